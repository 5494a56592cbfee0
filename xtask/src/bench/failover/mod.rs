//! `cargo xtask bench failover`: pbx-ha and others on network namespaces, in turns, under the same faults.

mod plan;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use pbx_tests::failover::cost::{cost, least_cost};
use pbx_tests::failover::measure;
use pbx_tests::images::{Profile, build_programs};
use pbx_tests::scenario::steady::SETTLED;

pub(super) use self::plan::responder;
use self::plan::{CONTROL, DEFAULTS, FIGURES, Figure, SYSTEMS, System};
use self::table::{Measured, Row, markdown};
use super::measured::chosen;
use crate::results::{write_json, write_table};

const BEGIN: &str = "<!-- bench:failover:begin -->";
const END: &str = "<!-- bench:failover:end -->";
const DOCUMENT: &str = "docs/benchmarks.md";
const COST_TIME: Duration = Duration::from_secs(15);
/// As often as the cost's peer beats.
const BEAT: Duration = Duration::from_millis(100);
/// A system that fails so often in a turn is given up until the next.
const MOST_FAILURES: usize = 3;
/// A run that found the machine too busy is tried again so often.
const TRIES: usize = 3;

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// This system only; may be repeated, and a wrong name is answered with all of them
    #[arg(long)]
    system: Vec<String>,
    /// This figure only, such as failover.kill; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Runs of each figure and system, one in each turn of the systems: a bad minute of the machine hits all, and so does the limit
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Begin no run after this many minutes
    #[arg(long, default_value_t = 27)]
    limit: u64,
    /// Measure what is released: it takes minutes more to compile
    #[arg(long)]
    release: bool,
    /// Write the table into docs/benchmarks.md, between its markers
    #[arg(long)]
    docs: bool,
}

/// Measures, prints the table, and fails when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let systems = chosen(&SYSTEMS, &arguments.system, |system| system.name)?;
    let figures = chosen(&FIGURES, &arguments.only, |figure| figure.name)?;
    let profile = Profile::measured(arguments.release);
    // Compiling is no part of the limit.
    build_programs(profile)?;
    let end = Instant::now() + Duration::from_secs(arguments.limit * 60);
    let mut measured = Measured::default();
    for turn in 0..arguments.runs {
        for system in &systems {
            if let Err(error) = take_turn(system, &figures, profile, turn, end, &mut measured) {
                eprintln!("{}: {error:#}", system.name);
                for figure in &figures {
                    measured.note_failure(system.name, figure.name, &format!("{error:#}"));
                }
            }
        }
    }
    report(arguments, &measured.rows(&systems, &figures))
}

fn report(arguments: &Arguments, rows: &[Row]) -> Result<()> {
    let table = markdown(rows);
    println!("{table}");
    write_json(arguments.json.as_deref(), rows)?;
    if arguments.docs {
        write_table(DOCUMENT, (BEGIN, END), &table)?;
    }
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| row.met == Some(false))
        .map(|row| format!("{} of {}", row.figure, row.system))
        .collect();
    ensure!(missed.is_empty(), "goals missed: {}", missed.join(", "));
    Ok(())
}

/// One system: started, put through every fault once, and gone.
fn take_turn(
    system: &System,
    figures: &[&'static Figure],
    profile: Profile,
    turn: usize,
    end: Instant,
    measured: &mut Measured,
) -> Result<()> {
    let mut contender = (system.start)(profile)?;
    let mut failures = 0;
    if turn == 0 {
        if system.name == DEFAULTS {
            std::thread::sleep(SETTLED);
        }
        let cost = match system.name {
            CONTROL => least_cost(COST_TIME, BEAT)?,
            _ => cost(contender.as_mut(), COST_TIME)?,
        };
        measured.note_cost(system.name, cost);
    }
    for figure in figures.iter().filter(|figure| system.suffers(figure)) {
        if Instant::now() > end {
            return Ok(());
        }
        let title = format!("{} {} turn {}", system.name, figure.name, turn + 1);
        for _ in 0..TRIES {
            let result = match measure(contender.as_mut(), figure.fault) {
                Ok(result) => result,
                Err(error) => {
                    failures += 1;
                    eprintln!("{title}: {error:#}");
                    measured.note_failure(system.name, figure.name, &format!("{error:#}"));
                    ensure!(
                        failures < MOST_FAILURES,
                        "given up after {failures} failed runs"
                    );
                    break;
                }
            };
            eprintln!("{title}: {result:?}");
            let is_stalled = result.is_stalled;
            measured.note(system.name, figure.name, result);
            if !is_stalled {
                break;
            }
        }
    }
    Ok(())
}
