//! `cargo xtask model`: the model checker over the real core, configuration by configuration. Ends by itself.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use pbx_model::checker::{Explored, SCENARIOS, Scenario, explore};

/// Every interleaving of a few faults, explored with stateright on clones of the real nodes.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Which configuration; without it all
    configuration: Option<String>,
    /// Stop a configuration after so many states
    #[arg(long, default_value_t = 5_000_000)]
    states: usize,
    /// Stop a configuration after so many seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many threads [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen = |scenario: &Scenario| {
        arguments
            .configuration
            .as_ref()
            .is_none_or(|name| name == scenario.name)
    };
    let scenarios: Vec<_> = SCENARIOS.into_iter().filter(chosen).collect();
    let names = SCENARIOS.map(|scenario| scenario.name).join(", ");
    ensure!(!scenarios.is_empty(), "no such configuration: there are {names}");
    let threads = arguments
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let limit = Duration::from_secs(arguments.seconds);
    let mut violated = 0;
    for scenario in scenarios {
        let start = Instant::now();
        let explored = explore(scenario, arguments.states, threads, limit);
        print(&scenario, &explored, start.elapsed());
        violated += usize::from(explored.violation.is_some());
    }
    match violated {
        0 => Ok(()),
        violated => bail!("{violated} configurations are violated"),
    }
}

fn print(scenario: &Scenario, explored: &Explored, took: Duration) {
    let bound = match (&explored.violation, explored.is_closed) {
        (Some(_), _) => "VIOLATED",
        (None, true) => "closed: all states within the limits",
        (None, false) => "bound reached, no violation",
    };
    println!(
        "{:14} {:>10} states {:>10} unique  depth {:>3}  {:>5.0} s  {bound}{}",
        scenario.name,
        explored.states,
        explored.unique,
        explored.depth,
        took.as_secs_f64(),
        if explored.moves { "" } else { "  (the role never moved)" },
    );
    if let Some(path) = &explored.violation {
        println!("{path}");
    }
}
