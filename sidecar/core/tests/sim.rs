//! Random worlds: never two serving, and after the last fault somebody serves again.
//!
//! `PBX_SIM_SEEDS` sets the number of seeds for each size; `PBX_SIM_FIRST` the first one.

mod world;

use std::panic::{catch_unwind, resume_unwind};
use std::time::Duration;

use world::MS;
use world::faults::{FAULTS_END, random_world};

/// Within this time of the end somebody serves: the longest hold of the witness, watched, and a start.
const RECOVERY: Duration = Duration::from_secs(22);

struct Outcome {
    steps: u64,
    promotions: usize,
    recovery: Duration,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn run(nodes: u8, seed: u64) -> Outcome {
    let mut world = random_world(nodes, seed);
    world.is_traced = std::env::var_os("PBX_SIM_TRACE").is_some();
    world.run_until(FAULTS_END);
    world.heal();
    // Machines that are still down come back within this time.
    let recovery = world.run_until_that(40_000, |world| world.active().is_some());
    world.run_for(13_000);
    assert!(
        world.overlap.is_none(),
        "two served: nodes {nodes} seed {seed}: {:?}",
        world.overlap
    );
    let recovery = recovery.unwrap_or_else(|| panic!("nobody serves: nodes {nodes} seed {seed}"));
    assert!(
        recovery <= RECOVERY,
        "slow recovery {recovery:?}: nodes {nodes} seed {seed}"
    );
    assert_eq!(
        world.serving().len(),
        1,
        "not one at the end: nodes {nodes} seed {seed}"
    );
    let (since, _) = world.serving_since;
    assert!(
        since < world.now - 100 * MS,
        "unstable at the end: nodes {nodes} seed {seed}"
    );
    let is_promotion = |notice: &&(u64, usize, pbx_core::Notice)| {
        matches!(notice.2, pbx_core::Notice::Promoted { .. })
    };
    let promotions = world.notices.iter().filter(is_promotion).count();
    Outcome {
        steps: world.steps,
        promotions,
        recovery,
    }
}

fn soak(nodes: u8) {
    let default = if cfg!(debug_assertions) { 100 } else { 1_000 };
    let (first, count) = (
        setting("PBX_SIM_FIRST", 1),
        setting("PBX_SIM_SEEDS", default),
    );
    let (mut steps, mut promotions, mut worst) = (0, 0, Duration::ZERO);
    for seed in first..first + count {
        let outcome = catch_unwind(|| run(nodes, seed)).unwrap_or_else(|panic| {
            eprintln!("nodes {nodes} seed {seed}");
            resume_unwind(panic)
        });
        steps += outcome.steps;
        promotions += outcome.promotions;
        worst = worst.max(outcome.recovery);
    }
    println!(
        "{nodes} nodes: {count} seeds, {steps} steps, {promotions} promotions, worst recovery {worst:?}"
    );
}

#[test]
fn two_nodes_never_serve_together_and_recover() {
    soak(2);
}

#[test]
fn three_nodes_never_serve_together_and_recover() {
    soak(3);
}

#[test]
fn four_nodes_never_serve_together_and_recover() {
    soak(4);
}

/// R8: a hold that still carried the deadline was given up for a Lease made anew, while the acks were old. Whoever
/// changes the world looks for the seed again, by dropping the check in `wanted_witness_call`.
#[test]
fn seed_1498_a_hold_that_carries_the_deadline_is_kept_when_the_lease_is_made_anew() {
    run(2, 1498);
}
