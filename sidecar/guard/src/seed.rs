//! `pbx-guard seed`: fills an empty volume with what the image has at a path (sounds, keys,
//! configuration), for an init container that runs in the PBX's own image.
//!
//! It copies files, directories and symbolic links with their modes, but not their owners: it runs
//! unprivileged. A file that it may not read is reported and left out. A seeding that was cut off is
//! done again: a marker stands in the volume until it is complete.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::log::{Level, log};

/// Stands in the destination while it is being filled.
const MARKER: &str = ".pbx-guard-seeding";
/// What a fresh file system may contain already.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

/// One tree and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// A directory of the image.
    pub source: PathBuf,
    /// A directory in the volume.
    pub destination: PathBuf,
}

/// What became of one seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Files, directories and links that were copied.
    pub copied: u64,
    /// Those that could not be read, or are neither.
    pub left_out: u64,
}

/// Why a volume was not filled.
#[derive(Debug, Error)]
pub enum SeedError {
    /// The destination could not be made or looked into.
    #[error("failed to prepare {}: the volume must be writable", path.display())]
    Prepare {
        /// The destination.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something could not be written into the volume.
    #[error("failed to write {}: is the volume full or read-only?", path.display())]
    Write {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SeedError {
    /// A stable name for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "Prepare",
            Self::Write { .. } => "Write",
        }
    }
}

/// Fills the destination unless it has content; `None`: it has, and nothing was done. A source that
/// does not exist leaves an empty destination.
pub fn run(seed: &Seed) -> Result<Option<Seeded>, SeedError> {
    let prepare_error = |source| SeedError::Prepare {
        path: seed.destination.clone(),
        source,
    };
    fs::create_dir_all(&seed.destination).map_err(prepare_error)?;
    if has_content(&seed.destination).map_err(prepare_error)? {
        return Ok(None);
    }
    let marker = seed.destination.join(MARKER);
    File::create(&marker).map_err(|source| write_error(&marker, source))?;
    let mut seeded = Seeded::default();
    if seed.source.exists() {
        seeded.copy_content(&seed.source, &seed.destination)?;
    }
    fs::remove_file(&marker).map_err(|source| write_error(&marker, source))?;
    Ok(Some(seeded))
}

/// Whether the directory holds what somebody put there, and not a seeding that was cut off.
fn has_content(directory: &Path) -> io::Result<bool> {
    let names = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<OsString>>>()?;
    let is_cut_off = names.iter().any(|name| name == MARKER);
    Ok(!is_cut_off
        && names
            .iter()
            .any(|name| name != OsStr::new(OF_THE_FILE_SYSTEM)))
}

impl Seeded {
    fn copy_content(&mut self, source: &Path, destination: &Path) -> Result<(), SeedError> {
        match fs::read_dir(source) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => self.copy_entry(&entry, destination)?,
                        Err(error) => self.leave_out(source, &error),
                    }
                }
            }
            Err(error) => self.leave_out(source, &error),
        }
        Ok(())
    }

    fn copy_entry(&mut self, entry: &DirEntry, parent: &Path) -> Result<(), SeedError> {
        let (from, to) = (entry.path(), parent.join(entry.file_name()));
        // Of the entry itself: links are copied, not followed.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                self.leave_out(&from, &error);
                return Ok(());
            }
        };
        if metadata.is_dir() {
            self.copy_directory(&from, &to, &metadata)
        } else if metadata.is_symlink() {
            self.copy_link(&from, &to)
        } else if metadata.is_file() {
            self.copy_file(&from, &to, &metadata)
        } else {
            self.leave_out(&from, &"neither a file nor a directory nor a link");
            Ok(())
        }
    }

    fn copy_directory(
        &mut self,
        from: &Path,
        to: &Path,
        metadata: &Metadata,
    ) -> Result<(), SeedError> {
        let write = |source| write_error(to, source);
        match fs::create_dir(to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(write(error)),
            _ => {}
        }
        // Its own mode may forbid to write into it: that comes last.
        fs::set_permissions(to, Permissions::from_mode(0o700)).map_err(write)?;
        self.copy_content(from, to)?;
        fs::set_permissions(to, metadata.permissions()).map_err(write)?;
        self.copied += 1;
        Ok(())
    }

    fn copy_link(&mut self, from: &Path, to: &Path) -> Result<(), SeedError> {
        match fs::read_link(from) {
            Ok(target) => {
                remove_remains(to)?;
                symlink(target, to).map_err(|source| write_error(to, source))?;
                self.copied += 1;
            }
            Err(error) => self.leave_out(from, &error),
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, to: &Path, metadata: &Metadata) -> Result<(), SeedError> {
        let mut source = match File::open(from) {
            Ok(source) => source,
            Err(error) => {
                self.leave_out(from, &error);
                return Ok(());
            }
        };
        remove_remains(to)?;
        write_file(&mut source, to, metadata).map_err(|source| write_error(to, source))?;
        self.copied += 1;
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, reason: &dyn std::fmt::Display) {
        self.left_out += 1;
        let fields: [(&str, &dyn std::fmt::Display); 2] =
            [("path", &path.display()), ("error", reason)];
        log(Level::Warn, "not copied into the volume", &fields);
    }
}

fn write_file(source: &mut File, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut copy = File::create_new(to)?;
    io::copy(source, &mut copy)?;
    copy.set_permissions(metadata.permissions())
}

/// Removes what a seeding that was cut off left at this path.
fn remove_remains(path: &Path) -> Result<(), SeedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path, error)),
        _ => Ok(()),
    }
}

fn write_error(path: &Path, source: io::Error) -> SeedError {
    SeedError::Write {
        path: path.to_owned(),
        source,
    }
}
