//! `cargo xtask bench doors`: what clients of the doors wait for, what a crowd of them does to a node, and the real heartbeat beside it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use pbx_tests::bare_hosts::BareHosts;
use pbx_tests::doors;
use pbx_tests::doors::deaths::{Ours, Peer};
use pbx_tests::doors::moves::{DOORS, Moves};
use pbx_tests::doors::{kinds, round_trips};
use pbx_tests::linux_ha;
use pbx_tests::measure::{Figure, Goal, markdown_table};

use super::failover::responder;
use super::measured::chosen;
use crate::fuzz;
use crate::results::{ensure_met, write_json, write_table};

mod crowd;

const BEGIN: &str = "<!-- bench:doors:begin -->";
const END: &str = "<!-- bench:doors:end -->";
const DOCUMENT: &str = "docs/benchmarks.md";
/// At most 8 bytes: of the network namespaces.
const HOSTS: &str = "dooBench";
const PEER: &str = "dooPeer";
const EVENT_GOAL_MS: f64 = 5.0;
const DEATH_GOAL_MS: f64 = 310.0;
const GETSTATUS_GOAL_US: f64 = 100.0;
/// Kinds of unmodified clients that are to work.
const KINDS_GOAL: f64 = 8.0;
/// Questions of one run.
const QUESTIONS: usize = 2_000;
const CL_STATUS: usize = 100;
/// A measurement that fails so often is given up.
const MOST_FAILURES: usize = 3;
const SECTIONS: [(&str, Section); 6] = [
    ("doors.fuzz", fuzzed),
    ("doors.roundtrip_us", questions),
    ("doors.heartbeat_death_ms", deaths),
    ("doors.event_ms", events),
    ("doors.crowd", crowd::figures),
    ("doors.clients", clients),
];

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// These figures only, such as doors.crowd; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Deaths of nodes, ours and the peer's each, and failovers of each kind under the crowd
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Moves of the role
    #[arg(long, default_value_t = 20)]
    moves: usize,
    /// Inputs for each codec; ten million take half an hour more
    #[arg(long, default_value_t = 200_000)]
    fuzz_inputs: u64,
    /// Begin no figure after this many minutes
    #[arg(long, default_value_t = 22)]
    limit: u64,
    /// Write the table into docs/benchmarks.md, between its markers
    #[arg(long)]
    docs: bool,
}

type Section = fn(&Arguments) -> Result<Vec<Figure>>;

/// Measures, prints the table, and fails when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let sections = chosen(&SECTIONS, &arguments.only, |(name, _)| name)?;
    linux_ha::ensure()?;
    let end = Instant::now() + Duration::from_secs(arguments.limit * 60);
    let mut figures = Vec::new();
    for (name, section) in sections {
        eprintln!("==> {name}");
        let measured = if Instant::now() < end {
            section(arguments)
        } else {
            Err(anyhow::anyhow!("no time was left"))
        };
        figures.extend(measured.unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            let reason = format!("{error:#}");
            vec![Figure::new(
                name,
                "not measured",
                "",
                Goal::None,
                &[],
                &[reason],
            )]
        }));
    }
    let table = markdown_table(&figures);
    println!("{table}");
    write_json(arguments.json.as_deref(), &figures)?;
    if arguments.docs {
        write_table(DOCUMENT, (BEGIN, END), &table)?;
    }
    ensure_met(&figures)
}

/// `count` runs of something, and why some could not be measured; given up after a few failures.
fn repeat(
    what: &str,
    count: usize,
    mut once: impl FnMut() -> Result<f64>,
) -> (Vec<f64>, Vec<String>) {
    let (mut values, mut failures) = (Vec::new(), Vec::new());
    for run in 0..count {
        match once() {
            Ok(value) => {
                eprintln!("    {what} {}/{count}: {value:.3}", run + 1);
                values.push(value);
            }
            Err(error) => {
                eprintln!("    {what} {}/{count}: {error:#}", run + 1);
                failures.push(format!("{error:#}"));
                if failures.len() == MOST_FAILURES {
                    break;
                }
            }
        }
    }
    (values, failures)
}

/// The middle of each, put against each other.
fn ratio(ours: &Figure, other: &Figure) -> Vec<f64> {
    let is_known = ours.n > 0 && other.n > 0;
    is_known
        .then(|| ours.median / other.median)
        .into_iter()
        .collect()
}

fn fuzzed(arguments: &Arguments) -> Result<Vec<Figure>> {
    let outcomes = fuzz::outcomes(arguments.fuzz_inputs)?;
    let figures = outcomes.into_iter().map(|outcome| {
        if let Some(failure) = &outcome.failure {
            eprintln!("    {}: {failure}", outcome.name);
        }
        Figure::new(
            &format!("doors.fuzz.{}", outcome.name),
            &format!("failures of this codec in {} inputs", arguments.fuzz_inputs),
            "failures",
            Goal::Max(0.0),
            &[f64::from(u8::from(outcome.failure.is_some()))],
            &[],
        )
    });
    Ok(figures.collect())
}

fn questions(_: &Arguments) -> Result<Vec<Figure>> {
    const RUNS: usize = 5;
    let hosts = doors::start(HOSTS)?;
    let peer = Peer::start(PEER, &responder()?)?;
    let status = repeat("getstatus", RUNS, || {
        round_trips::getstatus_us(&hosts, 0, QUESTIONS)
    });
    let node = repeat("nodestatus", RUNS, || {
        round_trips::nodestatus_us(&hosts, 0, QUESTIONS)
    });
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turns, so that a bad moment of the machine hits both.
    for _ in 0..RUNS {
        ours.push(round_trips::cl_status_us(&hosts, 0, CL_STATUS)?);
        theirs.push(round_trips::cl_status_of_peer_us(peer.nodes(), CL_STATUS)?);
    }
    let what =
        "HAAst's getstatus over one connection, the client's part included: medians of 2,000";
    let name = "doors.roundtrip_us.getstatus";
    let goal = Goal::Median(GETSTATUS_GOAL_US);
    let status = Figure::new(name, what, "µs", goal, &status.0, &status.1);
    let what = "Heartbeat's nodestatus over one connection: medians of 2,000";
    let name = "doors.roundtrip_us.nodestatus";
    let node = Figure::new(name, what, "µs", Goal::None, &node.0, &node.1);
    let what = "`cl_status nodestatus`, the whole process: means of 100";
    let ours = figure(
        "doors.roundtrip_us.cl_status",
        what,
        "µs",
        Goal::None,
        &ours,
    );
    let what = "… of heartbeat 3.0.6, in turns with it";
    let theirs = figure(
        "doors.roundtrip_us.cl_status.peer",
        what,
        "µs",
        Goal::None,
        &theirs,
    );
    let ratio = figure(
        "doors.roundtrip_us.cl_status.ratio",
        "… ours, times heartbeat's",
        "×",
        Goal::Max(1.0),
        &ratio(&ours, &theirs),
    );
    Ok(vec![status, node, ours, theirs, ratio])
}

fn deaths(arguments: &Arguments) -> Result<Vec<Figure>> {
    let mut hosts = doors::start(HOSTS)?;
    let mut ours = Ours::new(&mut hosts)?;
    let mut peer = Peer::start(PEER, &responder()?)?;
    let found = repeat("death", arguments.runs, || ours.once());
    let others = repeat("death under heartbeat", arguments.runs, || peer.once());
    let what =
        "a node's death until the callback of a Heartbeat client, keepalive 50 ms, deadtime 300 ms";
    let name = "doors.heartbeat_death_ms";
    let goal = Goal::Median(DEATH_GOAL_MS);
    let found = Figure::new(name, what, "ms", goal, &found.0, &found.1);
    let what = "… of heartbeat 3.0.6 with the same client and timing";
    let name = "doors.heartbeat_death_ms.peer";
    // What the peer fails at is told, and no failure of ours.
    let others = figure(name, what, "ms", Goal::None, &others.0);
    let name = "doors.heartbeat_death_ms.ratio";
    let goal = Goal::Max(1.0);
    let ratio = figure(
        name,
        "… ours, times heartbeat's",
        "×",
        goal,
        &ratio(&found, &others),
    );
    Ok(vec![found, others, ratio])
}

fn events(arguments: &Arguments) -> Result<Vec<Figure>> {
    let hosts: BareHosts = doors::start(HOSTS)?;
    let moves = Moves::new(&hosts)?;
    let mut values = [const { Vec::new() }; DOORS.len()];
    let (_, failures) = repeat("move", arguments.moves, || {
        let told = moves.once(&hosts)?;
        eprintln!("    {told:.2?}");
        for (values, ms) in values.iter_mut().zip(told) {
            values.push(ms);
        }
        Ok(told.into_iter().fold(0.0, f64::max))
    });
    let rows = DOORS.iter().zip(&values).map(|((door, what), values)| {
        let name = format!("doors.event_ms.{door}");
        let what = format!("the core's decision to serve, until: {what}");
        Figure::new(
            &name,
            &what,
            "ms",
            Goal::Median(EVENT_GOAL_MS),
            values,
            &failures,
        )
    });
    Ok(rows.collect())
}

fn clients(_: &Arguments) -> Result<Vec<Figure>> {
    let worked = kinds::measure()?;
    eprintln!("    {worked:?}");
    let what = format!(
        "kinds of unmodified clients that went through a failover: {}",
        worked.clients.join(", ")
    );
    let goal = Goal::AtLeast(KINDS_GOAL);
    #[allow(clippy::cast_precision_loss, reason = "fewer than ten")]
    let count = worked.clients.len() as f64;
    let failed = &worked.failed;
    Ok(vec![Figure::new(
        "doors.clients",
        &what,
        "kinds",
        goal,
        &[count],
        failed,
    )])
}

fn figure(name: &str, what: &str, unit: &str, goal: Goal, values: &[f64]) -> Figure {
    Figure::new(name, what, unit, goal, values, &[])
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn what_fails_too_often_is_given_up_and_told() {
        let mut runs = 0;
        let (values, failures) = repeat("something", 10, || {
            runs += 1;
            ensure!(runs % 2 == 1, "on purpose");
            Ok(1.0)
        });
        assert_eq!((values.len(), failures.len(), runs), (3, MOST_FAILURES, 6));
        let figure = Figure::new("doors.x", "", "", Goal::None, &values, &failures);
        assert!(!figure.met);
    }

    #[test]
    fn nothing_measured_has_no_ratio() {
        let of = |values: &[f64]| figure("doors.x", "", "", Goal::None, values);
        assert!(ratio(&of(&[]), &of(&[1.0])).is_empty());
        assert_eq!(ratio(&of(&[1.0]), &of(&[2.0])), [0.5]);
    }
}
