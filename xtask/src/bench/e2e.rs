//! `cargo xtask bench e2e`: runs the groups, keeps going after a failed run, ends by itself, and tells all figures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use pbx_tests::images::Profile;
use pbx_tests::measure::markdown_table;
use pbx_tests::office::{Office, ready_from};

use super::figures::FIGURES;
use super::groups::{GROUPS, Group};
use super::measured::{Measured, earlier, together};
use crate::results::{ensure_met, write_json, write_table};

/// A group that fails so often is given up.
const MOST_FAILURES: usize = 3;
const BEGIN: &str = "<!-- bench:e2e:begin -->";
const END: &str = "<!-- bench:e2e:end -->";

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Run this group only, such as kill or steady; may be repeated, and a wrong name is answered with all of them
    #[arg(long)]
    only: Vec<String>,
    /// How many runs of each group
    #[arg(long)]
    runs: Option<usize>,
    /// Begin no run after this many minutes
    #[arg(long, default_value_t = 28)]
    limit: u64,
    /// Keep from this file, written by an earlier run of the same code, what is not measured now; may be repeated
    #[arg(long)]
    with: Vec<PathBuf>,
    /// Measure what is released: it takes minutes more to compile
    #[arg(long)]
    release: bool,
    /// Write the table into README.md, between its markers
    #[arg(long)]
    readme: bool,
}

/// Measures, prints the table, and fails when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let groups = chosen(&arguments.only)?;
    let earlier = earlier(&arguments.with)?;
    let profile = Profile::measured(arguments.release);
    let office = ready_from(profile)?;
    let end = Instant::now() + Duration::from_secs(arguments.limit * 60);
    let mut measured = Measured::default();
    for group in groups {
        let runs = arguments.runs.unwrap_or(group.runs);
        run_group(&mut measured, &office, group, (runs, end));
    }
    let now = measured.figures(&FIGURES);
    let figures = together(&FIGURES, &now, &earlier, is_of_several_groups);
    let table = markdown_table(&figures);
    println!("{table}");
    write_json(arguments.json.as_deref(), &figures)?;
    if arguments.readme {
        write_table("README.md", (BEGIN, END), &table)?;
    }
    ensure_met(&figures)
}

/// Whether several groups give values for it.
fn is_of_several_groups(name: &str) -> bool {
    let groups = GROUPS.iter();
    groups.filter(|group| group.figures.contains(&name)).count() > 1
}

fn chosen(only: &[String]) -> Result<Vec<&'static Group>> {
    if only.is_empty() {
        return Ok(GROUPS
            .iter()
            .filter(|group| !group.only_when_asked)
            .collect());
    }
    only.iter()
        .map(|name| {
            let group = GROUPS.iter().find(|group| group.name == name);
            let Some(group) = group else {
                let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
                bail!("there is no group {name}: choose of {}", names.join(", "));
            };
            Ok(group)
        })
        .collect()
}

fn run_group(
    measured: &mut Measured,
    office: &Office,
    group: &Group,
    (runs, end): (usize, Instant),
) {
    let mut failures = 0;
    for run in 0..runs {
        if Instant::now() > end {
            // More than the group's own runs were asked for: those that there was no time for are not missed.
            if run < group.runs {
                measured.note_failure(group.figures, "no time was left");
            }
            return;
        }
        if failures >= MOST_FAILURES {
            eprintln!("{}: given up after {failures} failed runs", group.name);
            return;
        }
        let begun_at = Instant::now();
        let result = (group.run)(office, run);
        let seconds = begun_at.elapsed().as_secs_f64();
        let title = format!("{} {}/{runs} ({seconds:.1} s)", group.name, run + 1);
        match result {
            Ok(values) => {
                eprintln!("{title}: {}", in_words(&values));
                measured.note(values);
            }
            Err(error) => {
                failures += 1;
                eprintln!("{title}: FAILED: {error:#}");
                measured.note_failure(group.figures, &format!("{error:#}"));
            }
        }
    }
}

fn in_words(values: &[(&str, f64)]) -> String {
    let words: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{} {value:.1}", name.trim_start_matches("e2e.")))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use pbx_tests::measure::{Figure, Goal};

    use super::*;

    #[test]
    fn every_figure_of_a_group_is_defined_and_every_figure_measured() {
        let measured: Vec<&str> = GROUPS
            .iter()
            .flat_map(|group| group.figures.iter().copied())
            .collect();
        for name in &measured {
            assert!(FIGURES.iter().any(|figure| figure.name == *name), "{name}");
        }
        for figure in &FIGURES {
            assert!(measured.contains(&figure.name), "{}", figure.name);
        }
    }

    #[test]
    fn earlier_figures_are_kept_replaced_or_counted_together() {
        let of = |name: &str, value: f64| Figure::new(name, "", "", Goal::Max(1.0), &[value], &[]);
        let earlier = [
            of("e2e.kill_status_ms", 7.0),
            of("e2e.api_down", 5.0),
            of("e2e.dual", 0.0),
        ];
        let now = [of("e2e.api_down", 6.0), of("e2e.dual", 2.0)];
        let found: Vec<_> = together(&FIGURES, &now, &earlier, is_of_several_groups)
            .into_iter()
            .map(|figure| (figure.name, figure.values))
            .collect();
        let expected = [
            ("e2e.kill_status_ms", vec![7.0]),
            ("e2e.api_down", vec![6.0]),
            ("e2e.dual", vec![2.0, 0.0]),
        ];
        assert_eq!(found, expected.map(|(name, values)| (name.into(), values)));
    }

    #[test]
    fn unknown_group_is_refused_by_name() {
        let error = chosen(&["kil".into()]).err().unwrap().to_string();
        assert!(
            error.contains("kil") && error.contains("node_off"),
            "{error}"
        );
        assert!(
            chosen(&[])
                .unwrap()
                .iter()
                .all(|group| group.name != "steady")
        );
    }
}
