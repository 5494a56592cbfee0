//! What can go wrong while the configuration is built; every message says what to change.

use std::path::PathBuf;

/// Why no snapshot was built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory of the inputs could not be read.
    #[error("failed to read {path}")]
    Read {
        /// What was being read.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The snapshot could not be written.
    #[error("failed to write {path}")]
    Write {
        /// What was being written.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The secret of our AMI user could not be made.
    #[error("failed to draw a random secret: the system has no random source")]
    DrawSecret,
    /// The mounted directory was replaced again and again while it was read.
    #[error(
        "{path} changed during each of {attempts} readings: it is read again at its next change"
    )]
    KeepsChanging {
        /// The mounted directory.
        path: PathBuf,
        /// How often it was read.
        attempts: usize,
    },
    /// More files than allowed.
    #[error("more than {limit} configuration files: remove those that Asterisk does not read")]
    TooManyFiles {
        /// The most files allowed.
        limit: usize,
    },
    /// A file, or all files together, are larger than allowed.
    #[error(
        "{name} makes the configuration larger than {limit_bytes} bytes: keep sounds and other data outside of it"
    )]
    TooLarge {
        /// The file that crossed the limit.
        name: String,
        /// The limit that it crossed.
        limit_bytes: usize,
    },
    /// A file that must be understood has a NUL byte in it.
    #[error("{file} has a NUL byte: configuration files are text")]
    NotText {
        /// The file's name.
        file: String,
    },
    /// An include leads to where the sidecar cannot look.
    #[error(
        "{file}:{line} includes {name}, which cannot be seen from here: put that file beside {file} and include it by its bare name{}",
        if *.trunks { ", or set asterisk.trunks to Untouched" } else { "" }
    )]
    UnseenInclude {
        /// The file with the include.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is included.
        name: String,
        /// Whether `trunks: Untouched` would be a remedy too.
        trunks: bool,
    },
    /// An include names a file that is not there; Asterisk would refuse the whole file.
    #[error("{file}:{line} includes {name}, which does not exist: add it, or use #tryinclude")]
    MissingInclude {
        /// The file with the include.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is included.
        name: String,
    },
    /// A line for which Asterisk refuses the whole file.
    #[error("{file}:{line}: {problem}; Asterisk would refuse the whole file")]
    Refused {
        /// The file's name.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Includes that are nested too deep, or repeated too often.
    #[error(
        "{file} and its includes have more than {limit} statements or are nested too deep: include each file once"
    )]
    IncludeLoop {
        /// The file from which the includes start.
        file: String,
        /// The most statements allowed.
        limit: usize,
    },
    /// A file serves a registration in one place and something else in another.
    #[error(
        "{file}:{line} is included into a registration and into other sections: include it into sections of one type only, or set asterisk.trunks to Untouched"
    )]
    SharedInclude {
        /// The included file.
        file: String,
        /// Its line, from 1.
        line: usize,
    },
    /// A section would lose what it inherits when the registration is held back.
    #[error(
        "[{section}] of pjsip.conf inherits from a registration, which a standby does not read: put what they share into a template `[name](!)`"
    )]
    InheritsFromRegistration {
        /// The section that inherits.
        section: String,
    },
    /// Registrations that do not stand in pjsip.conf.
    #[error(
        "sorcery.conf takes {object} from {source_name}, so a standby would register too: keep them in pjsip.conf, or set asterisk.trunks to Untouched"
    )]
    RegistrationsElsewhere {
        /// `registration` or `outbound-publish`.
        object: String,
        /// Where sorcery.conf says that they are.
        source_name: String,
    },
    /// The user's files have a section with the name of ours.
    #[error(
        "manager.conf has a section [{section}], which is the sidecar's own AMI user: give yours another name"
    )]
    ReservedSection {
        /// The section's name.
        section: String,
    },
}

impl ConfigError {
    /// A stable name for metrics, Events and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "ConfigUnreadable",
            Self::Write { .. } => "ConfigNotWritten",
            Self::DrawSecret => "NoRandomSource",
            Self::KeepsChanging { .. } => "ConfigKeepsChanging",
            Self::TooManyFiles { .. } => "TooManyConfigFiles",
            Self::TooLarge { .. } => "ConfigTooLarge",
            Self::NotText { .. } => "ConfigNotText",
            Self::UnseenInclude { .. } => "UnseenInclude",
            Self::MissingInclude { .. } => "MissingInclude",
            Self::Refused { .. } => "ConfigRefused",
            Self::IncludeLoop { .. } => "IncludeLoop",
            Self::SharedInclude { .. } => "SharedInclude",
            Self::InheritsFromRegistration { .. } => "InheritsFromRegistration",
            Self::RegistrationsElsewhere { .. } => "RegistrationsElsewhere",
            Self::ReservedSection { .. } => "ReservedSection",
        }
    }
}
