//! The invariants that are the core's: I1, I2, I4, and that steps do not allocate more and more.

use pbx_core::{Epoch, Notice};
use pbx_model::world::faults::{FAULTS_END, Fault, random_world};
use pbx_model::world::{MS, SECOND, World};

#[test]
fn i1_at_most_one_serves() {
    for seed in 10_000..10_020 {
        for nodes in [2, 3, 5] {
            let mut world = random_world(nodes, seed);
            world.run_until(FAULTS_END);
            assert_eq!(world.overlap, None, "nodes {nodes} seed {seed}");
        }
    }
}

#[test]
fn i2_each_promotion_has_a_higher_epoch_than_any_that_its_node_remembers() {
    for seed in 20_000..20_030 {
        let mut world = random_world(2, seed);
        world.run_until(FAULTS_END);
        let mut last = vec![(0, Epoch(0)); world.pods.len()];
        for (at, pod, notice) in &world.notices {
            let Notice::Promoted { epoch, .. } = notice else {
                continue;
            };
            let (before, lower) = last[*pod];
            let has_forgotten = world
                .forgotten
                .iter()
                .any(|(when, who)| who == pod && (before..=*at).contains(when));
            assert!(has_forgotten || *epoch > lower, "seed {seed} at {at}");
            last[*pod] = (*at, *epoch);
        }
    }
}

#[test]
fn i4_in_steady_state_the_api_is_neither_read_nor_written() {
    for nodes in [2, 3, 4] {
        let mut world = World::new(nodes, 7);
        // The new Lease is watched and freed.
        world.run_for(40_000);
        assert!(world.active().is_some());
        let before = (world.api.reads, world.api.writes);
        world.run_for(60_000);
        assert_eq!((world.api.reads, world.api.writes), before, "nodes {nodes}");
    }
}

#[test]
fn i4_alone_the_witness_is_written_at_most_every_third_second() {
    let mut world = World::new(2, 8);
    world.run_for(40_000);
    let standby = 1 - world.active().unwrap();
    world.crash(standby);
    world.run_for(10_000);
    let (reads, writes) = (world.api.reads, world.api.writes);
    world.run_for(100_000);
    assert!(
        world.api.writes - writes <= 30,
        "{} writes",
        world.api.writes - writes
    );
    assert!(world.api.writes - writes >= 15, "it lives on the witness");
    assert_eq!(world.api.reads, reads);
    assert_eq!(world.longest_gap_since(45 * SECOND), 0);
}

#[test]
fn a_lone_active_outlives_ten_seconds_without_api() {
    let mut world = World::new(2, 9);
    world.run_for(40_000);
    let active = world.active().unwrap();
    world.crash(1 - active);
    world.run_for(12_000);
    let (since, _) = world.serving_since;
    world.inflict(Fault::ApiDown { for_ns: 9 * SECOND });
    world.run_for(15_000);
    assert_eq!(world.serving_since, (since, Some(active)));
}

#[test]
fn a_fresh_cluster_serves_within_three_seconds() {
    for nodes in [2, 3, 4, 5] {
        for seed in 1..=10 {
            let mut world = World::new(nodes, seed);
            let took = world.run_until_that(3_000, |world| world.active().is_some());
            assert!(took.is_some(), "nodes {nodes} seed {seed}");
        }
    }
}

#[test]
fn a_dead_node_is_replaced_within_deadtime_and_a_call() {
    for nodes in [2, 3] {
        for seed in 1..=50 {
            let mut world = World::new(nodes, seed);
            world.run_for(40_000);
            let active = world.active().unwrap();
            world.crash(active);
            let took = world.run_until_that(3_000, |world| world.active().is_some());
            let took = took.expect("taken over").as_nanos() as u64;
            assert!(took < 950 * MS, "nodes {nodes} seed {seed}: {took} ns");
        }
    }
}
