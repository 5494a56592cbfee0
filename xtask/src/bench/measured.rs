//! What groups of runs gave: values and failures by row, and the figures that they make.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use pbx_tests::measure::{Figure, Goal};

/// Values of some rows, from one run.
pub(super) type Values = Vec<(&'static str, f64)>;

/// One line of a table: what it means and what is wanted.
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
}

/// All values so far, and why runs failed.
#[derive(Default)]
pub(super) struct Measured {
    values: BTreeMap<&'static str, Vec<f64>>,
    failed: BTreeMap<&'static str, Vec<String>>,
}

/// A line of a table.
pub(super) const fn figure(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: Goal,
) -> Definition {
    Definition {
        name,
        what,
        unit,
        goal,
    }
}

/// Those of `all` that were asked for by name, or all of them; an unknown name is answered with the known ones.
pub(super) fn chosen<T>(
    all: &'static [T],
    only: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<&'static T>> {
    for wanted in only {
        let names: Vec<&str> = all.iter().map(&name).collect();
        ensure!(
            names.contains(&wanted.as_str()),
            "there is no {wanted}: choose of {}",
            names.join(", ")
        );
    }
    let is_chosen = |one: &&T| only.is_empty() || only.iter().any(|wanted| *wanted == name(one));
    Ok(all.iter().filter(is_chosen).collect())
}

/// The figures in files that earlier runs wrote.
pub(super) fn earlier(files: &[PathBuf]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for path in files {
        let context = || format!("read figures of {}", path.display());
        let text = fs::read_to_string(path).with_context(context)?;
        figures.extend(serde_json::from_str::<Vec<Figure>>(&text).with_context(context)?);
    }
    Ok(figures)
}

/// In the order of the definitions. What was measured now wins, but of a figure that adds up all runs count.
pub(super) fn together(
    definitions: &[Definition],
    measured: &[Figure],
    earlier: &[Figure],
    adds_up: impl Fn(&str) -> bool,
) -> Vec<Figure> {
    let chosen = definitions.iter().filter_map(|of| {
        let same = |figure: &&Figure| figure.name == of.name;
        let mut found: Vec<&Figure> = measured.iter().filter(same).collect();
        if found.is_empty() || adds_up(of.name) {
            found.extend(earlier.iter().filter(same));
        }
        let values: Vec<f64> = found.iter().flat_map(|one| one.values.clone()).collect();
        let failed = found.iter().flat_map(|one| one.failed_runs.clone());
        let failed: Vec<String> = failed.collect();
        let joined = Figure::new(of.name, of.what, of.unit, of.goal, &values, &failed);
        (!found.is_empty()).then_some(joined)
    });
    chosen.collect()
}

impl Measured {
    /// One run gave these.
    pub(super) fn note(&mut self, values: Values) {
        for (name, value) in values {
            self.values.entry(name).or_default().push(value);
        }
    }

    /// A run failed; it counts against these rows.
    pub(super) fn note_failure(&mut self, rows: &[&'static str], why: &str) {
        for row in rows {
            self.failed.entry(row).or_default().push(why.to_owned());
        }
    }

    /// The figures of which a run was tried, in the order of the definitions.
    pub(super) fn figures(&self, definitions: &[Definition]) -> Vec<Figure> {
        let tried = |of: &&Definition| {
            self.values.contains_key(of.name) || self.failed.contains_key(of.name)
        };
        let tried = definitions.iter().filter(tried);
        tried
            .map(|of| {
                let values = self.values.get(of.name).map_or(&[][..], Vec::as_slice);
                let failed = self.failed.get(of.name).map_or(&[][..], Vec::as_slice);
                Figure::new(of.name, of.what, of.unit, of.goal, values, failed)
            })
            .collect()
    }
}
