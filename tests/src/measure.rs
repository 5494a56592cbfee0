//! Figures: what was measured, how often, against which goal; as JSON and as a table in Markdown. Pure.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Times and counts of one thing, and what they should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, such as `e2e.kill_promoted_ms`.
    pub name: String,
    /// What was measured.
    pub what: String,
    /// Of the numbers: `ms`, `s`, `MiB`, ...
    pub unit: String,
    /// How many runs.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub max: f64,
    /// What is wanted.
    pub goal: Goal,
    /// Whether it is so.
    pub met: bool,
    /// Every run, in order.
    pub values: Vec<f64>,
    /// Runs that could not be measured, and why.
    pub failed_runs: Vec<String>,
}

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "of", content = "most")]
pub enum Goal {
    /// The median is at most this.
    Median(f64),
    /// The largest is at most this.
    Max(f64),
    /// The median is at least this.
    AtLeast(f64),
    /// It is told, not judged.
    None,
}

impl Figure {
    /// A figure of `values`. Without any value, or with a failed run, it is not met.
    pub fn new(
        name: &str,
        what: &str,
        unit: &str,
        goal: Goal,
        values: &[f64],
        failed_runs: &[String],
    ) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (
            sorted.first().copied().unwrap_or(0.0),
            sorted.last().copied().unwrap_or(0.0),
        );
        let median = median(&sorted);
        let is_within = match goal {
            Goal::Median(most) => median <= most,
            Goal::Max(most) => max <= most,
            Goal::AtLeast(least) => median >= least,
            Goal::None => true,
        };
        Self {
            name: name.into(),
            what: what.into(),
            unit: unit.into(),
            n: values.len(),
            min,
            median,
            max,
            goal,
            met: is_within && !values.is_empty() && failed_runs.is_empty(),
            values: values.to_vec(),
            failed_runs: failed_runs.to_vec(),
        }
    }
}

/// A table of figures in Markdown, a line each.
pub fn markdown_table(figures: &[Figure]) -> String {
    let mut table = "| figure | what | runs | min | median | max | goal | met |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for figure in figures {
        let goal = match figure.goal {
            Goal::Median(most) => format!("median ≤ {most} {}", figure.unit),
            Goal::Max(most) => format!("≤ {most} {}", figure.unit),
            Goal::AtLeast(least) => format!("median ≥ {least} {}", figure.unit),
            Goal::None => "-".to_owned(),
        };
        let met = match (figure.met, figure.failed_runs.len()) {
            (true, _) if figure.goal == Goal::None => "-".to_owned(),
            (true, _) => "yes".to_owned(),
            (false, 0) => "no".to_owned(),
            (false, failed) => format!("no ({failed} failed runs)"),
        };
        writeln!(
            table,
            "| `{}` | {} | {} | {} | {} | {} | {goal} | {met} |",
            figure.name,
            figure.what,
            figure.n,
            number(figure.min),
            number(figure.median),
            number(figure.max),
        )
        .expect("a text can grow");
    }
    table
}

/// Three significant digits are what these measurements hold.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => 0.0,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(goal: Goal, values: &[f64], failed: &[String]) -> Figure {
        Figure::new("e2e.x_ms", "something", "ms", goal, values, failed)
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_two() {
        let is = |values: &[f64], expected: f64| {
            let found = figure(Goal::Median(2.0), values, &[]).median;
            assert!((found - expected).abs() < 1e-9, "{found}");
        };
        is(&[9.0, 1.0, 2.0], 2.0);
        is(&[1.0, 2.0], 1.5);
    }

    #[test]
    fn goal_is_missed_by_a_value_by_a_failed_run_and_by_nothing_measured() {
        assert!(figure(Goal::Median(2.0), &[9.0, 1.0, 2.0], &[]).met);
        assert!(!figure(Goal::Max(2.0), &[9.0, 1.0, 2.0], &[]).met);
        assert!(!figure(Goal::Max(2.0), &[1.0], &["why".into()]).met);
        assert!(!figure(Goal::Max(2.0), &[], &[]).met);
    }

    #[test]
    fn table_has_a_line_for_each_figure() {
        let table = markdown_table(&[figure(Goal::Median(10.0), &[4.25, 12.5, 180.4], &[])]);
        let last = table.lines().last().unwrap();
        assert_eq!(
            last,
            "| `e2e.x_ms` | something | 3 | 4.25 | 12.5 | 180 | median ≤ 10 ms | no |"
        );
    }
}
