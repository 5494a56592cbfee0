//! Random worlds: never two serving, and after the last fault somebody serves again.
//!
//! More of them: `cargo xtask simulate`.

use std::thread;

use pbx_model::simulation::{MakeWorld, run_many};
use pbx_model::world::faults::{hasty_world, random_world};

fn soak(make: MakeWorld, nodes: u8, seeds: u64) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let summary = run_many(make, &[nodes], 1..seeds + 1, threads, |_| {});
    println!("{nodes} nodes: {summary:?}");
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert_eq!(summary.worlds, seeds);
    assert!(summary.promotions > seeds, "the worlds are eventful");
}

#[test]
fn two_nodes_never_serve_together_and_recover() {
    soak(random_world, 2, 2_000);
}

#[test]
fn three_nodes_never_serve_together_and_recover() {
    soak(random_world, 3, 2_000);
}

#[test]
fn four_nodes_never_serve_together_and_recover() {
    soak(random_world, 4, 500);
}

#[test]
fn three_nodes_with_the_shortest_timing_never_serve_together_and_recover() {
    soak(hasty_world, 3, 300);
}
