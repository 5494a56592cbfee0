//! `cargo xtask bench`: measured figures, as a table and as JSON.

use anyhow::Result;
use clap::Subcommand;

mod e2e;
mod figures;
mod groups;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Failovers of the whole system on the local cluster, from the cause to the first answer (needs root; up to 30 minutes)
    E2e(e2e::Arguments),
}

/// Carries out one command.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::E2e(arguments) => e2e::run(&arguments),
    }
}
