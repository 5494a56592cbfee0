//! `cargo xtask bench latency`: every term of a failover, from the flight recorders, and whether they add up to the whole.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use pbx_tests::measure::{Figure, Goal, markdown_table};
use pbx_tests::office::{self, Office};
use pbx_tests::scenario::latency::{Budget, of_kill, of_node_off};

use crate::results::{ensure_met, write_json, write_table};

const BEGIN: &str = "<!-- bench:latency:begin -->";
const END: &str = "<!-- bench:latency:end -->";
const DOCUMENT: &str = "docs/latency.md";
/// The terms add up to the whole within so many percent.
const TOLERANCE_PERCENT: f64 = 10.0;
/// A cause that cannot be measured so often is given up.
const MOST_FAILURES: usize = 3;

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Failovers of each cause
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Write the tables into docs/latency.md, between its markers
    #[arg(long)]
    docs: bool,
}

/// A cause of failovers.
struct Cause {
    name: &'static str,
    title: &'static str,
    run: fn(&Office) -> Result<Budget>,
}

const CAUSES: [Cause; 2] = [
    Cause {
        name: "kill",
        title: "`kill -9` of the active's Asterisk, mode Pod",
        run: of_kill,
    },
    Cause {
        name: "node_off",
        title: "The active's node powered off, deadtime 800 ms, mode Pod",
        run: of_node_off,
    },
];

/// Measures, prints the tables, and fails when the terms do not add up.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let office = office::ready()?;
    let mut figures = Vec::new();
    let mut text = String::new();
    for cause in &CAUSES {
        let budgets = measure(&office, cause, arguments.runs)?;
        let of_cause = figures_of(cause.name, &budgets);
        write!(
            text,
            "### {}\n\n{}\n",
            cause.title,
            markdown_table(&of_cause)
        )
        .expect("a text can grow");
        figures.extend(of_cause);
    }
    println!("{text}");
    write_json(arguments.json.as_deref(), &figures)?;
    if arguments.docs {
        write_table(DOCUMENT, (BEGIN, END), &text)?;
    }
    ensure_met(&figures)
}

fn measure(office: &Office, cause: &Cause, runs: usize) -> Result<Vec<Budget>> {
    let mut budgets = Vec::new();
    let mut failures = 0;
    for run in 0..runs {
        match (cause.run)(office) {
            Ok(budget) => {
                eprintln!("{} {}/{runs}: {budget:?}", cause.name, run + 1);
                budgets.push(budget);
            }
            Err(error) => {
                failures += 1;
                eprintln!("{} {}/{runs}: FAILED: {error:#}", cause.name, run + 1);
                ensure!(
                    failures < MOST_FAILURES,
                    "given up after {failures} failed runs"
                );
            }
        }
    }
    Ok(budgets)
}

/// One figure for each term, then the whole and what the medians of the terms miss of it. A term by itself has no goal.
fn figures_of(cause: &str, budgets: &[Budget]) -> Vec<Figure> {
    let Some(first) = budgets.first() else {
        return Vec::new();
    };
    let names: Vec<&str> = first.terms.iter().map(|(name, _)| *name).collect();
    let mut figures: Vec<Figure> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let values: Vec<f64> = budgets.iter().map(|budget| budget.terms[at].1).collect();
            figure(
                &format!("latency.{cause}.{}", at + 1),
                name,
                "ms",
                Goal::None,
                &values,
            )
        })
        .collect();
    let sum: f64 = figures.iter().map(|figure| figure.median).sum();
    let whole: Vec<f64> = budgets.iter().map(|budget| budget.whole_ms).collect();
    let whole = figure(
        &format!("latency.{cause}.whole"),
        "cause → first answer of the new node, new source port",
        "ms",
        Goal::None,
        &whole,
    );
    let missing = (sum - whole.median).abs() / whole.median * 100.0;
    figures.push(whole);
    figures.push(figure(
        &format!("latency.{cause}.unexplained"),
        "the medians of all terms together, against the median of the whole",
        "%",
        Goal::Median(TOLERANCE_PERCENT),
        &[missing],
    ));
    figures
}

fn figure(name: &str, what: &str, unit: &str, goal: Goal, values: &[f64]) -> Figure {
    Figure::new(name, what, unit, goal, values, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_do_not_add_up_are_told() {
        let budget = |last: f64, whole_ms: f64| Budget {
            terms: vec![("a", 1.0), ("b", last)],
            whole_ms,
        };
        let sound = figures_of("kill", &[budget(9.0, 10.0), budget(9.2, 10.2)]);
        assert!(sound.iter().all(|figure| figure.met), "{sound:?}");
        assert_eq!(sound.len(), 4);
        let unsound = figures_of("kill", &[budget(5.0, 10.0)]);
        assert!(!unsound.last().unwrap().met);
    }
}
