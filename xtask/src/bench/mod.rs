//! `cargo xtask bench`: measured figures, as a table and as JSON.

use anyhow::Result;
use clap::Subcommand;

mod ami;
mod asterisk;
mod asterisk_rows;
mod doors;
mod e2e;
mod failover;
mod figures;
mod groups;
mod latency;

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
        Command::Asterisk(arguments) => asterisk::run(&arguments),
        Command::Doors(arguments) => doors::run(&arguments),
        Command::E2e(arguments) => e2e::run(&arguments),
        Command::Latency(arguments) => latency::run(&arguments),
        Command::Failover(arguments) => failover::run(&arguments),
    }
}
