//! What cargo lacks, as `cargo xtask COMMAND`: each command is a file here, its work a library.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cluster;
mod generate;

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
    /// Write the files that are made from the Rust types: the chart's CRD
    Generate {
        /// Write nothing; fail when one is stale
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Cluster(command) => cluster::run(command),
        Command::Generate { check } => generate::run(check),
    }
}
