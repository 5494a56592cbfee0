//! What keeps the guard from its work.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the guard cannot work.
#[derive(Debug, Error)]
pub enum PbxError {
    /// Its signals could not be set up.
    #[error("failed to block signals")]
    BlockSignals(#[source] io::Error),
    /// It could not become the parent of orphans.
    #[error("failed to become the reaper of orphans")]
    BecomeReaper(#[source] io::Error),
    /// The socket could not be opened.
    #[error("failed to listen on {}: its directory must exist and be writable", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting failed.
    #[error("failed to wait for events")]
    Poll(#[source] io::Error),
}

impl PbxError {
    /// A stable name for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BlockSignals(_) => "BlockSignals",
            Self::BecomeReaper(_) => "BecomeReaper",
            Self::Listen { .. } => "Listen",
            Self::Poll(_) => "Poll",
        }
    }
}
