//! Licences, bans and sources of all dependencies against deny.toml, from `cargo metadata` alone: the offline part of cargo-deny, which
//! takes minutes to compile. Where cargo-deny is installed, it is used instead.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use pbx_tests::office::repository;
use pbx_tests::progress::output_of;
use serde_json::Value;
use toml_edit::{Document, Item};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

struct Rules {
    allowed: BTreeSet<String>,
    banned: BTreeSet<String>,
}

/// Fails with every offence.
pub(crate) fn check() -> Result<()> {
    if is_cargo_deny_installed() {
        let mut deny = cargo();
        deny.args(["deny", "check", "licenses", "bans", "sources"]);
        return output_of(&mut deny).map(drop);
    }
    let text = fs::read_to_string(repository().join("deny.toml")).context("read deny.toml")?;
    let rules = rules_in(&text)?;
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    metadata.args(["--filter-platform", PLATFORM]);
    let metadata: Value =
        serde_json::from_str(&output_of(&mut metadata)?).context("read cargo metadata")?;
    let packages = metadata["packages"].as_array();
    let packages = packages.context("cargo metadata names no packages")?;
    let offences: Vec<String> = packages
        .iter()
        .flat_map(|package| offences_of(package, &rules))
        .collect();
    if offences.is_empty() {
        return Ok(());
    }
    bail!("against deny.toml:\n{}", offences.join("\n"))
}

fn is_cargo_deny_installed() -> bool {
    let answer = Command::new("cargo-deny").arg("--version").output();
    answer.is_ok_and(|output| output.status.success())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    cargo
}

fn rules_in(text: &str) -> Result<Rules> {
    let document = Document::parse(text).context("read deny.toml")?;
    let list = |table: &str, name: &str| -> Result<BTreeSet<String>> {
        let items = document
            .get(table)
            .and_then(|table| table.get(name))
            .and_then(Item::as_array)
            .with_context(|| format!("deny.toml has no list {table}.{name}"))?;
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        texts
            .collect::<Option<_>>()
            .with_context(|| format!("{table}.{name} of deny.toml holds more than texts"))
    };
    Ok(Rules {
        allowed: list("licenses", "allow")?,
        banned: list("bans", "deny")?,
    })
}

fn offences_of(package: &Value, rules: &Rules) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let version = package["version"].as_str().unwrap_or_default();
    let mut offences = Vec::new();
    if rules.banned.contains(name) {
        offences.push(format!("{name} {version} is banned"));
    }
    if let Some(source) = package["source"].as_str()
        && source != CRATES_IO
    {
        offences.push(format!("{name} {version} comes from {source}"));
    }
    let licence = package["license"].as_str().unwrap_or_default();
    if !is_allowed(licence, &rules.allowed) {
        offences.push(format!("{name} {version} has the licence {licence:?}"));
    }
    offences
}

/// Whether an SPDX expression can be met by allowed licences alone. `/` is an old way to write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = text.split_whitespace().peekable();
    let is_met = any_of(&mut words, allowed);
    is_met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words, allowed: &BTreeSet<String>) -> bool {
    let mut is_met = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_met |= all_of(words, allowed);
    }
    is_met
}

fn all_of(words: &mut Words, allowed: &BTreeSet<String>) -> bool {
    let mut is_met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is_met &= one(words, allowed);
    }
    is_met
}

fn one(words: &mut Words, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let is_met = any_of(words, allowed);
            words.next_if_eq(&")").is_some() && is_met
        }
        Some(licence) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().unwrap_or_default();
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        Some(licence) => allowed.contains(licence),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allowed() -> BTreeSet<String> {
        ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
            .map(str::to_owned)
            .into()
    }

    #[test]
    fn expression_is_met_by_allowed_licences_alone() {
        let is = |expression| is_allowed(expression, &allowed());
        assert!(is("MIT"));
        assert!(is("GPL-3.0 OR MIT"));
        assert!(is("MIT/Unlicense"));
        assert!(is("(MIT OR Apache-2.0) AND Apache-2.0 WITH LLVM-exception"));
        assert!(!is("MIT AND GPL-3.0"));
        assert!(!is("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!is("MIT WITH LLVM-exception"));
        assert!(!is(""));
        assert!(!is("(MIT"));
        assert!(!is("MIT MIT"));
    }

    #[test]
    fn ban_source_and_licence_are_offences() {
        let rules = Rules {
            allowed: allowed(),
            banned: ["openssl".to_owned()].into(),
        };
        let package = json!({ "name": "openssl", "version": "1", "license": "GPL-3.0", "source": "git+https://x" });
        assert_eq!(offences_of(&package, &rules).len(), 3);
        let own =
            json!({ "name": "pbx-core", "version": "1", "license": "Apache-2.0", "source": null });
        assert!(offences_of(&own, &rules).is_empty());
    }
}
