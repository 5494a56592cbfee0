//! Random worlds: never two serving, and after the last fault somebody serves again.
//!
//! More of them: `cargo xtask simulate`.

use std::thread;

use pbx_model::simulation::run_many;

fn soak(nodes: u8, seeds: u64) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let summary = run_many(&[nodes], 1..seeds + 1, threads, |_| {});
    println!("{nodes} nodes: {summary:?}");
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert_eq!(summary.worlds, seeds);
    assert!(summary.promotions > seeds, "the worlds are eventful");
}

#[test]
fn two_nodes_never_serve_together_and_recover() {
    soak(2, 2_000);
}

#[test]
fn three_nodes_never_serve_together_and_recover() {
    soak(3, 2_000);
}

#[test]
fn four_nodes_never_serve_together_and_recover() {
    soak(4, 500);
}
