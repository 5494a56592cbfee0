//! `cargo xtask bench`: measured figures, as a table and as JSON.

use anyhow::{Context, Result};
use clap::Subcommand;
use pbx_tests::cluster::Cluster;

mod ami;
mod asterisk;
mod asterisk_rows;
mod doors;
mod e2e;
mod failover;
mod figures;
mod groups;
mod latency;
mod measured;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// The AMI hub against Asterisk's own manager, on a real Asterisk (needs root; up to 10 minutes)
    Ami(ami::Arguments),
    /// The doors on bare hosts: events, deaths, crowds, questions, beside the real heartbeat (needs root and heartbeat; 20 minutes)
    Doors(doors::Arguments),
    /// Failovers of the whole system on the local cluster, from the cause to the first answer (needs root; up to 30 minutes)
    E2e(e2e::Arguments),
    /// An Asterisk that hangs, drains, reloads and is upgraded, on bare hosts and on the local cluster (needs root; ends within 30 minutes)
    Asterisk(asterisk::Arguments),
    /// Where the time of a failover goes, by the flight recorders, on the local cluster (needs root; a few minutes)
    Latency(latency::Arguments),
    /// pbx-ha on bare hosts against keepalived, in turns, under the same faults (needs root, keepalived and nft; ends within 30 minutes)
    Failover(failover::Arguments),
}

/// Carries out one command.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Ami(arguments) => ami::run(&arguments),
        Command::Asterisk(arguments) => on_cluster(|| asterisk::run(&arguments)),
        Command::Doors(arguments) => doors::run(&arguments),
        Command::E2e(arguments) => on_cluster(|| e2e::run(&arguments)),
        Command::Latency(arguments) => on_cluster(|| latency::run(&arguments)),
        Command::Failover(arguments) => failover::run(&arguments),
    }
}

/// A benchmark that needs the local cluster leaves it as it was found: one that was not running is ended, whatever became of the
/// benchmark.
fn on_cluster(measure: impl FnOnce() -> Result<()>) -> Result<()> {
    let was_running = Cluster::attach().is_ok();
    let measured = measure();
    if was_running {
        eprintln!("The cluster ran before, and goes on running: cargo xtask cluster down ends it.");
        return measured;
    }
    let ended = Cluster::down().context("end the cluster of the benchmark");
    measured.and(ended)
}
