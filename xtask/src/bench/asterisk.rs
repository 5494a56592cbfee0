//! `cargo xtask bench asterisk`: an Asterisk that hangs, drains its calls, gets new files and a new image; on bare hosts, then on the
//! local cluster.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use pbx_crds::Cause;
use pbx_tests::bare_hosts::{BareHosts, BareSettings};
use pbx_tests::care::kubernetes::Exchange;
use pbx_tests::care::load::Carried;
use pbx_tests::care::{Hang, drain_floating, floating_settings, hang, reload, settings};
use pbx_tests::measure::markdown_table;
use pbx_tests::office;

use super::asterisk_rows::ROWS;
use super::measured::{Measured, Values, chosen, earlier, together};
use crate::results::{ensure_met, write_json, write_table};

/// As many as the goals say.
const CALLS: u32 = 50;
/// A group that fails so often is given up.
const MOST_FAILURES: usize = 3;
const DOCUMENT: &str = "docs/switchover.md";
const BEGIN: &str = "<!-- bench:asterisk:begin -->";
const END: &str = "<!-- bench:asterisk:end -->";

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Run this group only: hung, drain, reload, or on the cluster `pod_drain`, `pod_reload`, upgrade; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Runs of each group; default: each group's own number
    #[arg(long)]
    runs: Option<usize>,
    /// Begin no run after this many minutes
    #[arg(long, default_value_t = 26)]
    limit: u64,
    /// Keep from this file, written by an earlier run of the same code, what is not measured now; may be repeated
    #[arg(long)]
    with: Vec<PathBuf>,
    /// Write the table into docs/switchover.md, between its markers
    #[arg(long)]
    docs: bool,
}

/// Runs that share what is done.
struct Group {
    name: &'static str,
    runs: usize,
    /// The row that a failed run counts against.
    row: &'static str,
    work: Work,
}

/// What is done in one run, by its number, and on what.
enum Work {
    Hosts(
        fn() -> BareSettings,
        fn(&BareHosts, usize) -> Result<Values>,
    ),
    /// The flag: planned moves drain calls, those of a rollout too.
    Cluster(bool, fn(&Exchange) -> Result<Values>),
}

const GROUPS: [Group; 6] = [
    Group {
        name: "hung",
        runs: 20,
        row: "asterisk.hung_s",
        work: Work::Hosts(|| settings("caremark"), hung),
    },
    Group {
        name: "drain",
        runs: 5,
        row: "asterisk.drain",
        work: Work::Hosts(|| floating_settings("caremark"), drained),
    },
    Group {
        name: "reload",
        runs: 5,
        row: "asterisk.reload",
        work: Work::Hosts(|| settings("caremark"), reloaded),
    },
    Group {
        name: "pod_drain",
        runs: 5,
        row: "asterisk.drain.pod",
        work: Work::Cluster(false, pod_drained),
    },
    Group {
        name: "pod_reload",
        runs: 3,
        row: "asterisk.reload.pod",
        work: Work::Cluster(false, pod_reloaded),
    },
    Group {
        name: "upgrade",
        runs: 3,
        row: "asterisk.upgrade",
        work: Work::Cluster(true, upgraded),
    },
];

/// Measures, prints the table, and fails when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let groups = chosen(&GROUPS, &arguments.only, |group| group.name)?;
    let earlier = earlier(&arguments.with)?;
    let end = Instant::now() + Duration::from_secs(arguments.limit * 60);
    let mut measured = Measured::default();
    for group in groups {
        let runs = arguments.runs.unwrap_or(group.runs);
        if let Err(error) = run_group(&mut measured, group, runs, end) {
            note_failure(&mut measured, group, &error);
        }
    }
    let figures = together(&ROWS, &measured.figures(&ROWS), &earlier, |_| false);
    let table = markdown_table(&figures);
    println!("{table}");
    write_json(arguments.json.as_deref(), &figures)?;
    if arguments.docs {
        write_table(DOCUMENT, (BEGIN, END), &table)?;
    }
    ensure_met(&figures)
}

fn run_group(measured: &mut Measured, group: &Group, runs: usize, end: Instant) -> Result<()> {
    match group.work {
        Work::Hosts(settings, run) => {
            let hosts = BareHosts::start_with(settings())?;
            repeat(measured, group, (runs, end), |number| run(&hosts, number));
        }
        Work::Cluster(drains, run) => {
            let office = office::ready()?;
            let exchange = Exchange::open(&office, drains)?;
            repeat(measured, group, (runs, end), |_| run(&exchange));
        }
    }
    Ok(())
}

fn repeat(
    measured: &mut Measured,
    group: &Group,
    (runs, end): (usize, Instant),
    run: impl Fn(usize) -> Result<Values>,
) {
    let mut failures = 0;
    for number in 0..runs {
        let result = if Instant::now() < end {
            run(number)
        } else {
            failures = MOST_FAILURES;
            Err(anyhow::anyhow!("no time was left"))
        };
        match result {
            Ok(values) => {
                eprintln!("{} {}/{runs}: {values:.3?}", group.name, number + 1);
                measured.note(values);
            }
            Err(error) => {
                failures += 1;
                note_failure(measured, group, &error);
            }
        }
        if failures >= MOST_FAILURES {
            return;
        }
    }
}

fn note_failure(measured: &mut Measured, group: &Group, error: &anyhow::Error) {
    eprintln!("{}: FAILED: {error:#}", group.name);
    measured.note_failure(&[group.row], &format!("{error:#}"));
}

fn hung(hosts: &BareHosts, run: usize) -> Result<Values> {
    let (how, row) = [
        (Hang::Stopped, "asterisk.hung_s"),
        (Hang::Blocked, "asterisk.hung_s.blocked"),
    ][run % 2];
    let (took, cause) = hang(hosts, how)?;
    ensure!(cause == Cause::AsteriskHung, "{how:?} was told as {cause}");
    Ok(vec![(row, took.as_secs_f64())])
}

fn drained(hosts: &BareHosts, _: usize) -> Result<Values> {
    let (carried, took) = drain_floating(hosts, CALLS)?;
    eprintln!("    {carried:?}");
    Ok(vec![
        ("asterisk.drain", cut(&carried)),
        ("asterisk.drain.refused", refused(&carried)),
        ("asterisk.drain.moved_s", took.as_secs_f64()),
    ])
}

fn reloaded(hosts: &BareHosts, run: usize) -> Result<Values> {
    let calls = usize::try_from(CALLS).context("a few calls")?;
    let (lost, took) = reload(hosts, calls, &format!("run {run}"))?;
    Ok(vec![
        ("asterisk.reload", f64::from(u32::try_from(lost)?)),
        ("asterisk.reload.took_s", took.as_secs_f64()),
    ])
}

fn pod_drained(exchange: &Exchange) -> Result<Values> {
    let (carried, took) = exchange.drain(CALLS)?;
    eprintln!("    {carried:?}");
    Ok(vec![
        ("asterisk.drain.pod", cut(&carried)),
        ("asterisk.drain.pod.refused", refused(&carried)),
        ("asterisk.drain.pod.moved_s", took.as_secs_f64()),
    ])
}

fn pod_reloaded(exchange: &Exchange) -> Result<Values> {
    let (carried, took) = exchange.reload(CALLS)?;
    eprintln!("    {carried:?}");
    Ok(vec![
        ("asterisk.reload.pod", cut(&carried)),
        ("asterisk.reload.pod.took_s", took.as_secs_f64()),
    ])
}

fn upgraded(exchange: &Exchange) -> Result<Values> {
    let (carried, found) = exchange.upgrade(CALLS)?;
    eprintln!("    {carried:?} {found:?}");
    Ok(vec![
        ("asterisk.upgrade", found.gap_ms),
        ("asterisk.upgrade.cut", cut(&carried)),
        ("asterisk.upgrade.refused", refused(&carried)),
    ])
}

/// Answered calls that did not end as they should have, of both kinds.
fn cut(carried: &Carried) -> f64 {
    f64::from(carried.held.failed + carried.fresh.failed)
}

/// New calls that were not answered.
fn refused(carried: &Carried) -> f64 {
    f64::from(carried.fresh.refused + carried.fresh.unanswered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_run_counts_against_a_row_that_exists() {
        for group in &GROUPS {
            assert!(
                ROWS.iter().any(|row| row.name == group.row),
                "{}",
                group.name
            );
        }
    }

    #[test]
    fn a_failed_group_is_a_missed_goal() {
        let mut measured = Measured::default();
        note_failure(&mut measured, &GROUPS[0], &anyhow::anyhow!("why"));
        let figures = measured.figures(&ROWS);
        assert_eq!((figures.len(), figures[0].met), (1, false));
    }
}
