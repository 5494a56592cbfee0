//! Rules that neither rustfmt nor clippy knows: every file says what it is, none is too long, no function is too long, nothing is left
//! to be done, and the core depends on nothing that acts. A scanner of lines, not a parser: rustfmt has put the code in order before.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pbx_tests::office::repository;

const FOLDERS: [&str; 6] = ["crds", "operator", "sidecar", "tests", "xtask", "cli"];
const MOST_LINES: usize = 500;
const MOST_FUNCTION_LINES: usize = 70;
/// What the core may depend on: nothing with threads, files, sockets or a clock.
const PURE: [&str; 2] = ["serde", "thiserror"];
const LEFT_OVERS: [&str; 5] = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];

/// Fails with every offence.
pub(crate) fn check() -> Result<()> {
    let root = repository();
    let mut offences = Vec::new();
    for file in rust_files(&root)? {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(&file).display();
        let found = offences_in(&text, is_this_file(&file));
        offences.extend(found.into_iter().map(|offence| format!("{name}{offence}")));
    }
    let manifest = root.join("sidecar/core/Cargo.toml");
    let manifest = fs::read_to_string(&manifest).context("read sidecar/core/Cargo.toml")?;
    offences.extend(impurities_in(&manifest));
    if offences.is_empty() {
        return Ok(());
    }
    bail!("untidy:\n{}", offences.join("\n"))
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|name| root.join(name)).collect();
    folders.retain(|folder| folder.is_dir());
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("list {}", folder.display()))?
                .path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// This file names what it looks for.
fn is_this_file(file: &Path) -> bool {
    file.ends_with("xtask/src/tidy.rs")
}

/// Each begins with `:line: ` or `: `.
fn offences_in(text: &str, may_name_left_overs: bool) -> Vec<String> {
    let mut offences = Vec::new();
    if !text.starts_with("//!") {
        offences.push(": does not open with //! that says what the file is".to_owned());
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > MOST_LINES {
        let count = lines.len();
        offences.push(format!(": {count} lines, more than {MOST_LINES}: split it"));
    }
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        let left_over = LEFT_OVERS.iter().find(|word| line.contains(**word));
        if let Some(word) = left_over.filter(|_| !may_name_left_overs) {
            offences.push(format!(":{number}: {word}"));
        }
        if let Some(length) = function_length(&lines[index..])
            && length > MOST_FUNCTION_LINES
        {
            offences.push(format!(
                ":{number}: a function of {length} lines, more than {MOST_FUNCTION_LINES}: split it"
            ));
        }
    }
    offences
}

/// The lines of the function that begins with the first line, up to the brace that closes it at the same depth.
fn function_length(lines: &[&str]) -> Option<usize> {
    let first = lines.first()?;
    let code = first.trim_start();
    let depth = first.len() - code.len();
    let is_function = code
        .split_once("fn ")
        .is_some_and(|(before, _)| before.split_whitespace().all(is_qualifier));
    if !is_function {
        return None;
    }
    let is_end = |line: &&str| {
        let code = line.trim_start();
        line.len() - code.len() == depth && (code == "}" || code.ends_with(';'))
    };
    if first.ends_with('}') || first.ends_with(';') {
        return Some(1);
    }
    let end = lines.iter().skip(1).position(is_end)?;
    Some(end + 2)
}

fn is_qualifier(word: &str) -> bool {
    word.starts_with("pub")
        || word.ends_with(')')
        || matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"")
}

fn impurities_in(manifest: &str) -> Vec<String> {
    let dependencies = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let names = dependencies.filter_map(|line| {
        let name = line.split(['.', '=', ' ']).next()?;
        (!name.is_empty() && !name.starts_with('#')).then_some(name)
    });
    names
        .filter(|name| !PURE.contains(name))
        .map(|name| {
            format!("sidecar/core/Cargo.toml: pbx-core depends on {name}: it must stay pure")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_of(lines: usize) -> String {
        let body = "    work();\n".repeat(lines - 2);
        format!("pub(crate) const fn long() {{\n{body}}}\n")
    }

    #[test]
    fn tidy_file_passes() {
        let text = format!("//! What it is.\n{}", function_of(MOST_FUNCTION_LINES));
        assert!(offences_in(&text, false).is_empty());
    }

    #[test]
    fn each_rule_is_broken_by_one_line_too_much() {
        assert_eq!(offences_in("use x;\n", false).len(), 1);
        let long = format!("//! It.\n{}", "use x;\n".repeat(MOST_LINES));
        assert_eq!(offences_in(&long, false).len(), 1);
        let text = format!("//! It.\n{}", function_of(MOST_FUNCTION_LINES + 1));
        assert_eq!(
            offences_in(&text, false),
            [":2: a function of 71 lines, more than 70: split it"]
        );
        assert_eq!(offences_in("//! It.\n// TODO\n", false).len(), 1);
        assert!(offences_in("//! It.\n// TODO\n", true).is_empty());
    }

    #[test]
    fn core_may_not_act() {
        let manifest = "[dependencies]\nserde.workspace = true\ntokio = \"1\"\n\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(impurities_in(manifest).len(), 1);
    }
}
