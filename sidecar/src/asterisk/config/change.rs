//! Whether a running Asterisk can take a new configuration by a reload, or has to be started anew.
//!
//! | what changed | why a reload is not enough |
//! |---|---|
//! | asterisk.conf | directories, options and limits are read at the start |
//! | modules.conf | modules are loaded in order at the start; unloading some is not safe under calls |
//! | sorcery.conf | where objects live is bound when a module is loaded |
//! | stasis.conf | the thread pool is made at the start |
//! | `type=transport`, `type=system` of pjsip.conf | a socket is opened, and the threads are made, at the start |
//!
//! Everything else is applied by `core reload`, which touches no call.

use std::path::Path;

use super::error::ConfigError;
use super::snapshot::Snapshot;
use super::sources::{self, Files};
use super::tree::Tree;

/// Read at the start alone.
const AT_START: [&str; 4] = [
    "asterisk.conf",
    "modules.conf",
    "sorcery.conf",
    "stasis.conf",
];
/// Kinds of sections of pjsip.conf that are read at the start alone.
const PJSIP_AT_START: [&str; 2] = ["transport", "system"];

/// What of `new` needs a start, if anything: the name of a file, for people.
pub fn needs_start(old: &Snapshot, new: &Snapshot) -> Result<Option<String>, ConfigError> {
    let (old, new) = (read(&old.path)?, read(&new.path)?);
    needs_start_of(&old, &new)
}

/// The copies of active and standby differ in trunks only: one is enough.
fn read(path: &Path) -> Result<Files, ConfigError> {
    sources::read(&path.join("active"), &[])
}

fn needs_start_of(old: &Files, new: &Files) -> Result<Option<String>, ConfigError> {
    if let Some(file) = AT_START
        .iter()
        .find(|file| old.get(**file) != new.get(**file))
    {
        return Ok(Some((*file).to_owned()));
    }
    let is_changed = at_start(old)? != at_start(new)?;
    Ok(is_changed.then(|| "the transports of pjsip.conf".to_owned()))
}

type Section = (String, Vec<(String, String)>);

fn at_start(files: &Files) -> Result<Vec<Section>, ConfigError> {
    let tree = Tree::load(files, "pjsip.conf", false)?;
    let is_at_start = |section: &&super::tree::Section| {
        !section.is_template && PJSIP_AT_START.iter().any(|kind| section.has("type", kind))
    };
    let found = tree.sections.iter().filter(is_at_start);
    Ok(found
        .map(|section| (section.name.clone(), section.variables.clone()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PJSIP: &str = "[udp]\ntype=transport\nbind=0.0.0.0\n[phone]\ntype=endpoint\ncontext=a\n";

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    fn between(old: &[(&str, &str)], new: &[(&str, &str)]) -> Option<String> {
        needs_start_of(&files(old), &files(new)).unwrap()
    }

    #[test]
    fn dialplan_and_endpoints_are_reloaded() {
        let new = PJSIP.replace("context=a", "context=b");
        let with = |pjsip, dialplan| [("pjsip.conf", pjsip), ("extensions.conf", dialplan)];
        assert_eq!(between(&with(PJSIP, "a"), &with(&new, "b")), None);
    }

    #[test]
    fn what_is_read_at_the_start_needs_one() {
        let found = between(&[("modules.conf", "a")], &[("modules.conf", "b")]);
        assert_eq!(found.as_deref(), Some("modules.conf"));
        let moved = PJSIP.replace("0.0.0.0", "0.0.0.0:5062");
        let found = between(&[("pjsip.conf", PJSIP)], &[("pjsip.conf", &moved)]);
        assert!(found.unwrap().contains("transports"));
        assert!(between(&[], &[("stasis.conf", "")]).is_some());
    }
}
