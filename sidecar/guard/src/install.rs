//! `pbx-guard install`: copies this binary into a directory, for the containers of an Asterisk image that knows nothing
//! of it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The file's name in the directory.
pub const INSTALLED_NAME: &str = "pbx-guard";

/// Why the binary was not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The running binary could not be read.
    #[error("failed to open the running binary; is /proc mounted?")]
    OpenSelf(#[source] io::Error),
    /// The copy could not be written.
    #[error("failed to write {}: the directory must exist and be writable", path.display())]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The copy could not be put in its place.
    #[error("failed to rename the copy to {}", path.display())]
    Rename {
        /// The file's final path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl InstallError {
    /// A stable name for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OpenSelf(_) => "OpenSelf",
            Self::Write { .. } => "Write",
            Self::Rename { .. } => "Rename",
        }
    }
}

/// Installs this binary in `directory`: whole or not at all, also over an older or a running one.
pub fn run(directory: &Path) -> Result<(), InstallError> {
    let binary = File::open("/proc/self/exe").map_err(InstallError::OpenSelf)?;
    let temporary = directory.join(format!(".{INSTALLED_NAME}.{}", std::process::id()));
    let path = directory.join(INSTALLED_NAME);
    write_copy(binary, &temporary).map_err(|source| {
        // What is there is not the binary; if it cannot be removed either, the name says what it is.
        let _ = fs::remove_file(&temporary);
        InstallError::Write {
            path: temporary.clone(),
            source,
        }
    })?;
    fs::rename(&temporary, &path).map_err(|source| InstallError::Rename { path, source })
}

fn write_copy(mut binary: File, path: &Path) -> io::Result<()> {
    let mut copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)?;
    io::copy(&mut binary, &mut copy)?;
    // The umask may have taken bits away.
    copy.set_permissions(fs::Permissions::from_mode(0o755))?;
    copy.sync_all()
}
