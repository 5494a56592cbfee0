//! Where measured figures go: a JSON file, a table in a document, and the exit code.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use pbx_tests::measure::Figure;
use pbx_tests::office::repository;
use serde::Serialize;

/// Writes `figures` to the file, if one is asked for.
pub(crate) fn write_json<T: Serialize + ?Sized>(path: Option<&Path>, figures: &T) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_string_pretty(figures).context("write the figures as JSON")?;
    fs::write(path, json + "\n").with_context(|| format!("write {}", path.display()))
}

/// Replaces what stands between two markers of a document of the repository.
pub(crate) fn write_table(document: &str, markers: (&str, &str), table: &str) -> Result<()> {
    let path = repository().join(document);
    let text = fs::read_to_string(&path).with_context(|| format!("read {document}"))?;
    let fresh = replace_between(&text, markers, table)?;
    fs::write(&path, fresh).with_context(|| format!("write {document}"))
}

/// Fails when a goal is missed, and says which.
pub(crate) fn ensure_met(figures: &[Figure]) -> Result<()> {
    let missed = figures.iter().filter(|figure| !figure.met);
    let missed: Vec<&str> = missed.map(|figure| figure.name.as_str()).collect();
    ensure!(missed.is_empty(), "goals missed: {}", missed.join(", "));
    Ok(())
}

fn replace_between(text: &str, (begin, end): (&str, &str), table: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(begin)
        .with_context(|| format!("the document has no line {begin}"))?;
    let (_, after) = rest
        .split_once(end)
        .with_context(|| format!("the document has no line {end}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKERS: (&str, &str) = ("<!-- begin -->", "<!-- end -->");

    #[test]
    fn table_replaces_the_old_one_only() {
        let (begin, end) = MARKERS;
        let text = format!("a\n{begin}\nold\n{end}\nb\n");
        let fresh = replace_between(&text, MARKERS, "new\n").unwrap();
        assert_eq!(fresh, format!("a\n{begin}\nnew\n{end}\nb\n"));
        assert!(replace_between("no markers", MARKERS, "new").is_err());
    }
}
