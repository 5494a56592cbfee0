//! How long a takeover takes in the world, and how many messages it needs. Prints a table:
//! `cargo test -p pbx-core --release --test measure -- --nocapture`

#![allow(clippy::cast_precision_loss, reason = "milliseconds to print")]

use pbx_model::world::faults::Fault;
use pbx_model::world::{MS, World};

/// A takeover, from the fault to the next that serves.
struct Takeover {
    took: u64,
    messages: u64,
    writes: u64,
}

fn take_over(nodes: u8, seed: u64, inflict: impl Fn(&mut World)) -> Takeover {
    let mut world = World::new(nodes, seed);
    world.run_for(20_000 + seed % 97);
    let active = world.active().expect("serves");
    let (messages, writes) = (world.messages, world.api.writes);
    let start = world.now;
    inflict(&mut world);
    while world.active().is_none_or(|serving| serving == active) {
        assert!(
            world.now < start + 5_000 * MS,
            "nodes {nodes} seed {seed}: nobody takes over"
        );
        let next = world.now + MS / 20;
        world.run_until(next);
    }
    let took = world.now - start;
    Takeover {
        took,
        messages: world.messages - messages,
        writes: world.api.writes - writes,
    }
}

fn table(name: &str, nodes: u8, inflict: impl Fn(&mut World)) -> u64 {
    let takeovers: Vec<_> = (1..=100)
        .map(|seed| take_over(nodes, seed, &inflict))
        .collect();
    let mut took: Vec<u64> = takeovers.iter().map(|takeover| takeover.took).collect();
    took.sort_unstable();
    let messages = takeovers
        .iter()
        .map(|takeover| takeover.messages)
        .max()
        .unwrap_or(0);
    let writes = takeovers
        .iter()
        .map(|takeover| takeover.writes)
        .max()
        .unwrap_or(0);
    let ms = |nanoseconds: u64| nanoseconds as f64 / MS as f64;
    println!(
        "{name}, {nodes} nodes: min {:.2} median {:.2} p95 {:.2} max {:.2} ms; messages in that time <= {messages}; API writes <= {writes}",
        ms(took[0]),
        ms(took[50]),
        ms(took[95]),
        ms(took[99]),
    );
    took[99]
}

#[test]
fn a_dead_asterisk_is_handed_over_in_milliseconds() {
    for nodes in [2, 3] {
        let worst = table("Asterisk dies", nodes, |world| {
            world.inflict(Fault::ActiveAsteriskDies);
        });
        // Guard 1 ms, network 1 ms, arming and its confirmation.
        assert!(worst < 6 * MS);
    }
}

#[test]
fn a_switchover_takes_milliseconds() {
    for nodes in [2, 3] {
        let worst = table("switchover", nodes, |world| {
            world.inflict(Fault::Switchover);
        });
        assert!(worst < 8 * MS);
    }
}

#[test]
fn a_silent_node_is_replaced_after_deadtime() {
    for nodes in [2, 3] {
        let worst = table("node dies", nodes, |world| {
            let active = world.active().expect("serves");
            world.crash(active);
        });
        assert!(worst < 900 * MS);
    }
}
