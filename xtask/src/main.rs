//! What cargo lacks, as `cargo xtask COMMAND`: each command is a file here, its work a library.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod checks;
mod cluster;
mod demo;
mod fuzz;
mod generate;
mod licences;
mod model;
mod results;
mod simulate;
mod soak;
mod tidy;

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
    /// Show a failover on a real Kubernetes, from nothing (needs root)
    Demo(demo::Arguments),
    /// Run all tests, those on a local Kubernetes too (needs root)
    Test,
    /// Run everything that needs neither root nor a cluster: format, lints, tidy, licences, unit tests, generated files, chart
    Ci,
    /// Check the rules that neither rustfmt nor clippy knows, and the licences
    Tidy,
    /// Explore the real core with a model checker: at most one serves, in every interleaving of a few faults
    Model(model::Arguments),
    /// Run the real core in random worlds: at most one serves, and after the last fault one does
    Simulate(simulate::Arguments),
    /// Run three real hosts under load for long: nothing fails, so nothing may fail over (needs root)
    Soak(soak::Arguments),
    /// Give the codecs of the doors random and mutated bytes
    Fuzz(fuzz::Arguments),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Command),
    /// Answer SIP OPTIONS at an address: the small service of the failover benchmark
    #[command(hide = true)]
    Responder {
        /// Where.
        address: std::net::SocketAddrV4,
    },
    /// Write the generated files: the chart's CRD
    Generate {
        /// Only say whether they are fresh
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // The chain of causes alone: a backtrace tells a user nothing.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let mut tally = checks::Tally::default();
    match command {
        Command::Cluster(command) => cluster::run(command)?,
        Command::Demo(arguments) => demo::run(&arguments)?,
        Command::Test => {
            checks::without_cluster(&mut tally);
            checks::on_cluster(&mut tally);
            return Ok(tally.close());
        }
        Command::Ci => {
            checks::without_cluster(&mut tally);
            return Ok(tally.close());
        }
        Command::Tidy => {
            tidy::check()?;
            licences::check()?;
        }
        Command::Model(arguments) => model::run(&arguments)?,
        Command::Simulate(arguments) => simulate::run(&arguments)?,
        Command::Soak(arguments) => soak::run(&arguments)?,
        Command::Fuzz(arguments) => fuzz::run(&arguments)?,
        Command::Bench(command) => bench::run(command)?,
        Command::Responder { address } => pbx_tests::failover::responder::serve(address)?,
        Command::Generate { check } => generate::run(check)?,
    }
    Ok(ExitCode::SUCCESS)
}
