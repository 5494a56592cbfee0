//! `cargo xtask simulate`: the real core in random worlds, on all cores, at release speed.

use std::thread;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;
use pbx_model::simulation::{MakeWorld, Summary, run_many, run_world};
use pbx_model::world::faults::{hasty_world, random_world};

/// How many failed seeds are named.
const MOST_NAMED: usize = 20;

/// Random worlds: loss, duplicates, reordering, partitions, crashes, pauses, API failures, drifting clocks, replaced pods.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// The number of nodes, 2 to 5; without it 2, 3 and 4 for each seed
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=5))]
    nodes: Option<u8>,
    /// The shortest timing (deadtime 30 ms) instead of the defaults: 3 nodes, or 5
    #[arg(long)]
    shortest: bool,
    /// How many worlds at a time [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Print what happens in the world: one seed and one number of nodes
    #[arg(long)]
    trace: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (make, usual): (MakeWorld, _) = if arguments.shortest {
        (hasty_world, vec![3])
    } else {
        (random_world, vec![2, 3, 4])
    };
    let nodes = arguments.nodes.map_or(usual, |nodes| vec![nodes]);
    ensure!(
        !arguments.shortest || nodes.iter().all(|nodes| nodes % 2 == 1),
        "the shortest timing leaves no time for a witness: --nodes 3 or 5"
    );
    if arguments.trace {
        ensure!(
            arguments.seeds == 1 && nodes.len() == 1,
            "--trace shows one world: add --seeds 1 and --nodes"
        );
        let outcome = run_world(make, nodes[0], arguments.from, true)?;
        println!("{outcome:?}");
        return Ok(());
    }
    let threads = arguments
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let start = Instant::now();
    let summary = run_many(make, &nodes, seeds, threads, |done| {
        println!("{done} seeds after {:.0} s", start.elapsed().as_secs_f64());
    });
    print(&summary, start, arguments.shortest);
    match summary.failed.len() {
        0 => Ok(()),
        failed => bail!("{failed} worlds failed"),
    }
}

fn print(summary: &Summary, start: Instant, is_shortest: bool) {
    let which = if is_shortest { " --shortest" } else { "" };
    for failed in summary.failed.iter().take(MOST_NAMED) {
        println!(
            "{failed}\n    again: cargo xtask simulate --seeds 1 --from {} --nodes {}{which} --trace",
            failed.seed, failed.nodes
        );
    }
    println!(
        "{} worlds, {} steps, {} promotions in {:.0} s",
        summary.worlds,
        summary.steps,
        summary.promotions,
        start.elapsed().as_secs_f64()
    );
    if let Some((recovery, nodes, seed)) = summary.worst {
        println!("worst recovery {recovery:.1?} (nodes {nodes} seed {seed})");
    }
}
