//! `cargo xtask bench asterisk`: an Asterisk that hangs, drains and reloads, on bare hosts.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use pbx_crds::Cause;
use pbx_tests::bare_hosts::BareHosts;
use pbx_tests::care::{Hang, drain, hang, reload, settings};
use pbx_tests::measure::{Figure, Goal, markdown_table};

use crate::results::{ensure_met, write_json};

/// As many as the goals say.
const CALLS: usize = 50;

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// This figure only, such as asterisk.drain; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Runs of each figure
    #[arg(long, default_value_t = 6)]
    runs: usize,
}

struct Definition {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: Goal,
    /// One run, by its number.
    run: fn(&BareHosts, usize) -> Result<f64>,
}

const FIGURES: [Definition; 3] = [
    Definition {
        name: "asterisk.hung_s",
        what: "Asterisk hung (SIGSTOP, and its task processors blocked, in turns) → another node active",
        unit: "s",
        goal: Goal::Max(2.0),
        run: hung,
    },
    Definition {
        name: "asterisk.drain",
        what: "drain under 50 calls: calls cut before the timeout; a new call to the old node gets 503",
        unit: "calls",
        goal: Goal::Max(0.0),
        run: drained,
    },
    Definition {
        name: "asterisk.reload",
        what: "changed files under 50 calls, a standby first: calls cut",
        unit: "calls",
        goal: Goal::Max(0.0),
        run: reloaded,
    },
];

/// Measures, prints the table, and fails when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    for wanted in &arguments.only {
        let known = names.join(", ");
        ensure!(
            names.contains(&wanted.as_str()),
            "there is no {wanted}: choose of {known}"
        );
    }
    let is_chosen = |one: &&Definition| {
        arguments.only.is_empty() || arguments.only.iter().any(|wanted| wanted == one.name)
    };
    let figures: Vec<Figure> = FIGURES
        .iter()
        .filter(is_chosen)
        .map(|definition| measure(definition, arguments.runs))
        .collect::<Result<_>>()?;
    let table = markdown_table(&figures);
    println!("{table}");
    write_json(arguments.json.as_deref(), &figures)?;
    ensure_met(&figures)
}

fn measure(definition: &Definition, runs: usize) -> Result<Figure> {
    let hosts = BareHosts::start_with(settings("caremark"))?;
    let (mut values, mut failed) = (Vec::new(), Vec::new());
    for number in 0..runs {
        match (definition.run)(&hosts, number) {
            Ok(value) => {
                eprintln!(
                    "{} {}/{runs}: {value} {}",
                    definition.name,
                    number + 1,
                    definition.unit
                );
                values.push(value);
            }
            Err(error) => {
                eprintln!("{} {}/{runs}: {error:#}", definition.name, number + 1);
                failed.push(format!("{error:#}"));
            }
        }
    }
    let Definition {
        name,
        what,
        unit,
        goal,
        ..
    } = definition;
    Ok(Figure::new(name, what, unit, *goal, &values, &failed))
}

fn hung(hosts: &BareHosts, run: usize) -> Result<f64> {
    let how = [Hang::Stopped, Hang::Blocked][run % 2];
    let (took, cause) = hang(hosts, how)?;
    ensure!(cause == Cause::AsteriskHung, "{how:?} was told as {cause}");
    eprintln!("    {how:?}");
    Ok(took.as_secs_f64())
}

fn drained(hosts: &BareHosts, _: usize) -> Result<f64> {
    let found = drain(hosts, CALLS)?;
    ensure!(found.refusal == 503, "{found:?}");
    eprintln!("    moved after {:?}", found.moved_after);
    Ok(count(found.cut))
}

fn reloaded(hosts: &BareHosts, run: usize) -> Result<f64> {
    let (lost, took) = reload(hosts, CALLS, &format!("run {run}"))?;
    eprintln!("    the active had the new files after {took:?}");
    Ok(count(lost))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "fewer than 2^52 calls are counted"
)]
fn count(number: usize) -> f64 {
    number as f64
}
