//! What a file means together with its includes: sections with everything they inherit, and which
//! line belongs to which section.
//!
//! It follows Asterisk 22's main/config.c where order matters: an included file starts in the
//! section that was opened last anywhere, after it the including file goes on in its own; a section
//! inherits what its base holds at that moment; `(+)` adds to the first section of the name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dialect::{self, Header, Line, Statement};
use super::error::ConfigError;
use super::sources::Files;

/// Asterisk's own limit of nested includes is 10.
const DEPTH_LIMIT: usize = 10;
/// Lines read and variables inherited. Far above any real configuration; a file that includes
/// itself reaches it.
const STATEMENTS_LIMIT: usize = 1_000_000;

/// A section, with what it inherited.
#[derive(Debug)]
pub(super) struct Section {
    /// Between its brackets.
    pub(super) name: String,
    /// Only there to be inherited from.
    pub(super) is_template: bool,
    /// All variables, inherited ones first, as Asterisk orders them.
    pub(super) variables: Vec<(String, String)>,
    /// Indices of the sections that it inherits from.
    pub(super) bases: Vec<usize>,
}

impl Section {
    /// Whether any of the variable's values is this one. Asterisk looks at one of them; to look at
    /// all errs on the side of a standby that does not register.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.values(name)
            .any(|found| found.eq_ignore_ascii_case(value))
    }

    /// All values of a variable, in order.
    pub(super) fn values<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.variables
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A line of one of the files, once for each time that the file is included.
#[derive(Debug)]
pub(super) struct Placement {
    /// The file's name.
    pub(super) file: String,
    /// The line's index, from 0.
    pub(super) line: usize,
    /// The section that it opens or adds to.
    pub(super) section: Option<usize>,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a placed line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A section's head.
    Header,
    /// A variable.
    Variable,
    /// An include; whether there is a section's head in what it brings.
    Include {
        /// If not, everything in it belongs to the including section.
        opens_sections: bool,
    },
}

/// A file with all that it includes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// In the order in which Asterisk knows them.
    pub(super) sections: Vec<Section>,
    /// In reading order.
    pub(super) placements: Vec<Placement>,
    /// The lines of every file that was read.
    pub(super) lines: BTreeMap<String, Arc<[Line]>>,
    /// The section that was opened last.
    current: Option<usize>,
    /// Lines read and variables inherited so far.
    statements: usize,
}

impl Tree {
    /// Reads `root` and its includes. A root that is not there gives an empty tree. `trunks` is
    /// whether the reason for looking is that trunks are held back (then the error names that
    /// remedy too).
    pub(super) fn load(files: &Files, root: &str, trunks: bool) -> Result<Self, ConfigError> {
        let mut tree = Self::default();
        if files.contains_key(root) {
            let mut reader = Reader {
                files,
                root,
                trunks,
                tree: &mut tree,
            };
            reader.file(root, 0)?;
        }
        Ok(tree)
    }

    /// Whether there is a section of this name that is not a template.
    pub(super) fn has_section(&self, name: &str) -> bool {
        self.find(name, "").is_some()
    }

    /// The first section that `(+filter)` of this name would add to.
    fn find(&self, name: &str, filter: &str) -> Option<usize> {
        self.sections
            .iter()
            .position(|section| section.name.eq_ignore_ascii_case(name) && matches(section, filter))
    }

    /// A section is no base of itself: while its head is read, Asterisk does not know it yet.
    fn find_base(&self, name: &str, heir: usize) -> Option<usize> {
        let found = self
            .sections
            .iter()
            .position(|section| section.name.eq_ignore_ascii_case(name))?;
        (found != heir).then_some(found)
    }

    fn open(&mut self, header: &Header) -> Result<usize, &'static str> {
        let section = if let Some(filter) = &header.addition {
            let found = self.find(&header.name, filter);
            found.ok_or("the section that it adds to does not exist")?
        } else {
            let (variables, bases) = (Vec::new(), Vec::new());
            let name = header.name.clone();
            self.sections.push(Section {
                name,
                is_template: false,
                variables,
                bases,
            });
            self.sections.len() - 1
        };
        self.sections[section].is_template |= header.is_template;
        for name in &header.bases {
            let base = self
                .find_base(name, section)
                .ok_or("the section that it inherits from does not exist")?;
            self.statements += self.sections[base].variables.len();
            if self.statements > STATEMENTS_LIMIT {
                break;
            }
            let inherited = self.sections[base].variables.clone();
            self.sections[section].variables.extend(inherited);
            self.sections[section].bases.push(base);
        }
        self.current = Some(section);
        Ok(section)
    }
}

/// Asterisk takes both sides of each `name=value` of a filter for regular expressions; here they
/// are plain parts, anchors aside.
fn matches(section: &Section, filter: &str) -> bool {
    if filter.is_empty() {
        return !section.is_template;
    }
    let plain = |part: &str| part.trim_matches(['^', '$', ' ']).to_owned();
    let mut template_allowed = false;
    let fits = filter
        .split('&')
        .all(|expression| match expression.split_once('=') {
            Some((name, value)) if name.trim() == "TEMPLATES" => {
                template_allowed = true;
                !value.trim().eq_ignore_ascii_case("restrict") || section.is_template
            }
            Some((name, value)) => {
                let (name, value) = (plain(name), plain(value));
                section
                    .variables
                    .iter()
                    .any(|(have, is)| have.contains(&name) && is.contains(&value))
            }
            None => false,
        });
    fits && (template_allowed || !section.is_template)
}

struct Reader<'a> {
    files: &'a Files,
    root: &'a str,
    trunks: bool,
    tree: &'a mut Tree,
}

impl Reader<'_> {
    fn file(&mut self, name: &str, depth: usize) -> Result<(), ConfigError> {
        let text = &self.files[name];
        if text.contains(&0) {
            return Err(ConfigError::NotText {
                file: name.to_owned(),
            });
        }
        let lines = self
            .tree
            .lines
            .entry(name.to_owned())
            .or_insert_with(|| dialect::parse(text).into())
            .clone();
        let mut section = self.tree.current;
        for (index, line) in lines.iter().enumerate() {
            self.tree.statements += 1;
            if depth > DEPTH_LIMIT || self.tree.statements > STATEMENTS_LIMIT {
                return Err(ConfigError::IncludeLoop {
                    file: self.root.to_owned(),
                    limit: STATEMENTS_LIMIT,
                });
            }
            let place = |section: usize, kind| placed(name, index, Some(section), kind);
            match &line.statement {
                Statement::Nothing => {}
                Statement::Unclosed => return Err(refused(name, index, "a bracket is not closed")),
                Statement::Header(header) => {
                    let opened = self
                        .tree
                        .open(header)
                        .map_err(|problem| refused(name, index, problem))?;
                    section = Some(opened);
                    self.tree.placements.push(place(opened, Kind::Header));
                }
                Statement::Variable {
                    name: variable,
                    value,
                } => {
                    let section = section.ok_or_else(|| {
                        refused(name, index, "a variable stands before the first section")
                    })?;
                    self.tree.sections[section]
                        .variables
                        .push((variable.clone(), value.clone()));
                    self.tree.placements.push(place(section, Kind::Variable));
                }
                Statement::Include {
                    name: included,
                    optional,
                } => self.included(name, index, (included, *optional), section, depth)?,
                Statement::Exec { command } => {
                    return Err(self.unseen(name, index, &format!("#exec {command}")));
                }
            }
        }
        Ok(())
    }

    /// An include as a statement of its own: it matters whether what it brings begins sections.
    fn included(
        &mut self,
        name: &str,
        index: usize,
        (included, optional): (&str, bool),
        section: Option<usize>,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let before = self.tree.placements.len();
        let kind = Kind::Include {
            opens_sections: false,
        };
        self.tree
            .placements
            .push(placed(name, index, section, kind));
        self.include(name, index, included, optional, depth)?;
        let opens_sections = self.tree.placements[before..]
            .iter()
            .any(|brought| brought.kind == Kind::Header);
        self.tree.placements[before].kind = Kind::Include { opens_sections };
        Ok(())
    }

    fn include(
        &mut self,
        file: &str,
        line: usize,
        name: &str,
        optional: bool,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let relative = name.trim_start_matches("./");
        // Asterisk gives both to glob(3); character classes and braces are not followed here.
        if name.starts_with('/')
            || relative.split('/').any(|part| part == "..")
            || relative.contains(['[', '{'])
        {
            return Err(self.unseen(file, line, name));
        }
        let found: Vec<String> = self
            .files
            .keys()
            .filter(|known| fits(relative, known))
            .cloned()
            .collect();
        if found.is_empty() && !optional {
            return Err(ConfigError::MissingInclude {
                file: file.to_owned(),
                line: line + 1,
                name: name.to_owned(),
            });
        }
        found
            .iter()
            .try_for_each(|included| self.file(included, depth + 1))
    }

    fn unseen(&self, file: &str, line: usize, name: &str) -> ConfigError {
        ConfigError::UnseenInclude {
            file: file.to_owned(),
            line: line + 1,
            name: name.to_owned(),
            trunks: self.trunks,
        }
    }
}

fn placed(file: &str, line: usize, section: Option<usize>, kind: Kind) -> Placement {
    Placement {
        file: file.to_owned(),
        line,
        section,
        kind,
    }
}

fn refused(file: &str, line: usize, problem: &'static str) -> ConfigError {
    ConfigError::Refused {
        file: file.to_owned(),
        line: line + 1,
        problem,
    }
}

/// Shell patterns with `*` and `?`, neither of which passes a slash or a leading dot.
fn fits(pattern: &str, name: &str) -> bool {
    let (patterns, names): (Vec<_>, Vec<_>) =
        (pattern.split('/').collect(), name.split('/').collect());
    patterns.len() == names.len()
        && patterns.iter().zip(&names).all(|(pattern, name)| {
            (!name.starts_with('.') || pattern.starts_with('.'))
                && part_fits(pattern.as_bytes(), name.as_bytes())
        })
}

/// Linear in practice: on a mismatch only the last star takes one byte more.
fn part_fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
