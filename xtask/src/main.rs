//! What cargo lacks, as `cargo xtask COMMAND`: each command is a file here, its work a library.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cluster;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real Kubernetes of several nodes on this machine, without Docker (needs root)
    #[command(subcommand)]
    Cluster(cluster::Command),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Cluster(command) => cluster::run(command),
    }
}
