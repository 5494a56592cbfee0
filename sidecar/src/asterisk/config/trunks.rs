//! Holds trunks back: what a standby must not read is blanked out of its copy of the files, line by
//! line.
//!
//! Held back are `type=registration` and `type=outbound-publish` of pjsip.conf,
//! `sends_registrations` of `pjsip_wizard.conf` and `register` of iax.conf, each with all includes.
//! The active's copy is what the user wrote, plus two options at the end of pjsip.conf that make a
//! promotion quick. Not here: registrations in a database (refused), and telling Asterisk to
//! reload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::dialect;
use super::error::ConfigError;
use super::sources::Files;
use super::tree::{Kind, Placement, Section, Tree};

/// Whether trunks are held back from a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunks {
    /// Only the active's Asterisk knows of outbound registrations and publishes.
    ActiveOnly,
    /// Every node reads what the user wrote.
    Untouched,
}

/// What a promotion has to give to Asterisk, and a demotion to take away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrunkPlan {
    /// Sections of `type=registration`, by name, as `PJSIPUnregister` wants them; those made by
    /// `pjsip_wizard` too.
    pub registrations: Vec<String>,
    /// Sections of `type=outbound-publish`.
    pub publishes: Vec<String>,
    /// Lines `register =>` of iax.conf.
    pub iax_registrations: usize,
}

impl TrunkPlan {
    /// The modules to reload, in order, after the files were switched: only those that read what
    /// changed.
    pub fn modules_to_reload(&self) -> Vec<&'static str> {
        let mut modules = Vec::new();
        if !self.registrations.is_empty() {
            modules.push("res_pjsip_outbound_registration.so");
        }
        if !self.publishes.is_empty() {
            modules.push("res_pjsip_outbound_publish.so");
        }
        if self.iax_registrations > 0 {
            modules.push("chan_iax2.so");
        }
        modules
    }
}

/// The two copies and what they differ in.
#[derive(Debug)]
pub(super) struct Held {
    /// What the active reads.
    pub(super) active: Files,
    /// What a standby reads.
    pub(super) standby: Files,
    /// What the difference means.
    pub(super) plan: TrunkPlan,
}

/// Seconds after a start or a promotion within which every contact has been asked once; by default
/// the first OPTIONS are spread over the whole `qualify_frequency`, and a phone counts as
/// unreachable until then.
const INITIAL_QUALIFY_SECONDS: u32 = 1;

/// Makes both copies. `quick_registration` writes `max_random_initial_delay = 0`, which an Asterisk
/// that does not know the option would answer by refusing the registration.
pub(super) fn hold_back(
    files: Files,
    trunks: Trunks,
    quick_registration: bool,
) -> Result<Held, ConfigError> {
    let mut plan = TrunkPlan::default();
    if trunks == Trunks::Untouched {
        return Ok(Held {
            standby: files.clone(),
            active: files,
            plan,
        });
    }
    refuse_registrations_elsewhere(&files)?;
    let pjsip = Tree::load(&files, "pjsip.conf", true)?;
    let wizard = Tree::load(&files, "pjsip_wizard.conf", true)?;
    let iax = Tree::load(&files, "iax.conf", true)?;

    let mut cuts = Cuts::default();
    cut_pjsip(&pjsip, &mut plan, &mut cuts)?;
    cut_wizard(&wizard, &mut plan, &mut cuts)?;
    cut_iax(&iax, &mut plan, &mut cuts)?;

    let mut active = files;
    let mut standby = active.clone();
    for (name, lines) in &cuts {
        let parsed = [&pjsip, &wizard, &iax]
            .into_iter()
            .find_map(|tree| tree.lines.get(name));
        let parsed = parsed.expect("lines are cut out of parsed files");
        let text = standby.get_mut(name).expect("a parsed file is there");
        *text = blank(text, parsed, lines);
    }
    let mut added = globals(&pjsip);
    append(&mut standby, "pjsip.conf", &pjsip, &added);
    if quick_registration {
        added += &delays(&pjsip, "registration", "max_random_initial_delay");
        let option = "registration/max_random_initial_delay";
        append(
            &mut active,
            "pjsip_wizard.conf",
            &wizard,
            &delays(&wizard, "wizard", option),
        );
    }
    append(&mut active, "pjsip.conf", &pjsip, &added);
    Ok(Held {
        active,
        standby,
        plan,
    })
}

/// Lines to blank, by file, from 0.
type Cuts = BTreeMap<String, BTreeSet<usize>>;

fn cut_pjsip(tree: &Tree, plan: &mut TrunkPlan, cuts: &mut Cuts) -> Result<(), ConfigError> {
    let cut_sections = sections_to_cut(tree);
    for (section, _) in tree
        .sections
        .iter()
        .zip(&cut_sections)
        .filter(|(_, cut)| **cut)
    {
        if !registers(section) {
            return Err(ConfigError::InheritsFromRegistration {
                section: section.name.clone(),
            });
        }
        match section.has("type", "registration") {
            _ if section.is_template => {}
            true => plan.registrations.push(section.name.clone()),
            false => plan.publishes.push(section.name.clone()),
        }
    }
    cut_where(tree, cuts, |placement| match placement.kind {
        Kind::Include {
            opens_sections: true,
        } => false,
        _ => placement
            .section
            .is_some_and(|section| cut_sections[section]),
    })
}

/// Registrations and publishes; and the templates made of one, whose base would be missing.
fn sections_to_cut(tree: &Tree) -> Vec<bool> {
    let mut cut: Vec<bool> = tree
        .sections
        .iter()
        .map(|section| !section.is_template && registers(section))
        .collect();
    loop {
        let more: Vec<usize> = (0..cut.len())
            .filter(|&index| {
                !cut[index] && tree.sections[index].bases.iter().any(|&base| cut[base])
            })
            .collect();
        if more.is_empty() {
            return cut;
        }
        for index in more {
            cut[index] = true;
        }
    }
}

fn registers(section: &Section) -> bool {
    section.has("type", "registration") || section.has("type", "outbound-publish")
}

fn cut_wizard(tree: &Tree, plan: &mut TrunkPlan, cuts: &mut Cuts) -> Result<(), ConfigError> {
    for section in tree.sections.iter().filter(|section| !section.is_template) {
        if section
            .values("sends_registrations")
            .last()
            .is_some_and(is_true)
        {
            plan.registrations.extend(wizard_registrations(section));
        }
    }
    // The default is no, so leaving the line out says no, in templates too.
    cut_where(tree, cuts, |placement| {
        is_variable(tree, placement, "sends_registrations")
    })
}

/// The wizard names them `<section>-reg-<n>`, one for each remote host.
fn wizard_registrations(section: &Section) -> Vec<String> {
    let hosts = section.values("remote_hosts").last().map_or(0, |hosts| {
        hosts
            .split(',')
            .filter(|host| !host.trim().is_empty())
            .count()
    });
    (0..hosts)
        .map(|host| format!("{}-reg-{host}", section.name))
        .collect()
}

fn cut_iax(tree: &Tree, plan: &mut TrunkPlan, cuts: &mut Cuts) -> Result<(), ConfigError> {
    let is_register = |placement: &Placement| is_variable(tree, placement, "register");
    plan.iax_registrations = tree
        .placements
        .iter()
        .filter(|placement| is_register(placement))
        .count();
    cut_where(tree, cuts, is_register)
}

fn is_variable(tree: &Tree, placement: &Placement, wanted: &str) -> bool {
    match &tree.lines[&placement.file][placement.line].statement {
        dialect::Statement::Variable { name, .. } => name.eq_ignore_ascii_case(wanted),
        _ => false,
    }
}

/// Marks the lines to cut. A file may be included into several sections: then all of its uses must
/// agree, unless it opens no section itself, so that the lines that include it decide.
fn cut_where(
    tree: &Tree,
    cuts: &mut Cuts,
    is_cut: impl Fn(&Placement) -> bool,
) -> Result<(), ConfigError> {
    let mut uses: BTreeMap<(&str, usize), (bool, bool)> = BTreeMap::new();
    for placement in &tree.placements {
        let (cut_somewhere, kept_somewhere) =
            uses.entry((&placement.file, placement.line)).or_default();
        if is_cut(placement) {
            *cut_somewhere = true;
        } else {
            *kept_somewhere = true;
        }
    }
    for ((file, line), used) in uses {
        match used {
            (true, false) => {
                cuts.entry(file.to_owned()).or_default().insert(line);
            }
            (true, true) if !is_headless(tree, file) => {
                return Err(ConfigError::SharedInclude {
                    file: file.to_owned(),
                    line: line + 1,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file, with its own includes, opens no section: then the include's line decides, not
/// the lines inside.
fn is_headless(tree: &Tree, file: &str) -> bool {
    tree.placements
        .iter()
        .filter(|placement| placement.file == file)
        .all(|placement| {
            !matches!(
                placement.kind,
                Kind::Header
                    | Kind::Include {
                        opens_sections: true
                    }
            )
        })
}

fn blank(text: &[u8], lines: &[dialect::Line], cut: &BTreeSet<usize>) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    for (index, line) in lines.iter().enumerate() {
        if cut.contains(&index) {
            kept.extend(dialect::blanked(line, text));
        } else {
            kept.extend(&text[line.bytes.clone()]);
        }
    }
    kept
}

/// Without a random delay (by default the first REGISTER waits for up to ten seconds), where the
/// user has chosen none.
fn delays(tree: &Tree, kind: &str, option: &str) -> String {
    let mut text = String::new();
    for section in tree
        .sections
        .iter()
        .filter(|section| !section.is_template && section.has("type", kind))
    {
        if section.values(option).next().is_none() {
            let _ = write!(text, "[{}](+^type$=^{kind}$)\n{option} = 0\n", section.name);
        }
    }
    text
}

/// A quick first OPTIONS to every contact, where the user has chosen none.
fn globals(tree: &Tree) -> String {
    let global = tree
        .sections
        .iter()
        .find(|section| !section.is_template && section.has("type", "global"));
    match global {
        Some(section) if section.values("max_initial_qualify_time").next().is_some() => {
            String::new()
        }
        Some(section) => format!(
            "[{}](+^type$=^global$)\nmax_initial_qualify_time = {INITIAL_QUALIFY_SECONDS}\n",
            section.name
        ),
        None => format!(
            "[pbx-ha-global]\ntype = global\nmax_initial_qualify_time = {INITIAL_QUALIFY_SECONDS}\n"
        ),
    }
}

fn append(files: &mut Files, name: &str, tree: &Tree, addition: &str) {
    if let (Some(text), Some(lines)) = (files.get_mut(name), tree.lines.get(name)) {
        dialect::append(text, lines, addition);
    }
}

/// Asterisk's notion of yes.
pub(super) fn is_true(value: &str) -> bool {
    ["yes", "true", "y", "t", "1", "on"]
        .iter()
        .any(|yes| value.eq_ignore_ascii_case(yes))
}

fn refuse_registrations_elsewhere(files: &Files) -> Result<(), ConfigError> {
    let tree = Tree::load(files, "sorcery.conf", true)?;
    for section in tree.sections.iter().filter(|section| !section.is_template) {
        for object in ["registration", "outbound-publish"] {
            let elsewhere = section
                .values(object)
                .find(|source| !source.trim().starts_with("config,pjsip.conf"));
            if let (true, Some(source)) = (section.name.starts_with("res_pjsip"), elsewhere) {
                return Err(ConfigError::RegistrationsElsewhere {
                    object: object.to_owned(),
                    source_name: source.to_owned(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "trunks_tests.rs"]
mod tests;
