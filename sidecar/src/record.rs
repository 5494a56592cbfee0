//! What survives a restart of the sidecar: the core's record (R7) and the ledger, on tmpfs, each written whole and renamed.
//!
//! A record of another boot of the machine is none: tmpfs is gone with it, and the boot id proves it on a bare host whose
//! folder is no tmpfs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pbx_core::Record;
use pbx_crds::ledger::Ledger;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Why the folder of the record cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It does not exist and cannot be made.
    #[error(
        "cannot make the record folder {path}: make it, or set recordDir to a folder on tmpfs that this user may write"
    )]
    MakeFolder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A write failed.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The folder with the record.
#[derive(Clone, Debug)]
pub struct RecordStore {
    folder: PathBuf,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    boot_id: String,
    content: T,
}

impl RecordStore {
    /// Uses `folder`, making it if need be.
    pub fn open(folder: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::MakeFolder {
            path: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned();
        Ok(Self {
            folder: folder.to_owned(),
            boot_id,
        })
    }

    /// The core's record of this boot, if there is one.
    pub fn read_record(&self) -> Option<Record> {
        self.read("record.json")
    }

    /// Writes the core's record.
    pub fn write_record(&self, record: &Record) -> Result<(), RecordError> {
        self.write("record.json", record)
    }

    /// The ledger of this boot, or an empty one.
    pub fn read_ledger(&self) -> Ledger {
        self.read("ledger.json").unwrap_or_default()
    }

    /// Writes the ledger.
    pub fn write_ledger(&self, ledger: &Ledger) -> Result<(), RecordError> {
        self.write("ledger.json", ledger)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = fs::read(self.folder.join(name)).ok()?;
        let stored: Stored<T> = serde_json::from_slice(&text).ok()?;
        (stored.boot_id == self.boot_id).then_some(stored.content)
    }

    fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), RecordError> {
        let path = self.folder.join(name);
        let failed = |source| RecordError::Write {
            path: path.clone(),
            source,
        };
        let stored = Stored {
            boot_id: self.boot_id.clone(),
            content,
        };
        let text = serde_json::to_vec(&stored).map_err(|error| failed(error.into()))?;
        let temporary = self.folder.join(format!(".{name}"));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_boot_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = RecordStore::open(folder.path()).unwrap();
        let mut ledger = Ledger::default();
        ledger.own.insert(
            "a".into(),
            pbx_crds::ledger::OwnCounts {
                asterisk_restarts: 1,
                suppressed: 0,
            },
        );
        store.write_ledger(&ledger).unwrap();
        assert_eq!(store.read_ledger(), ledger);
        store.boot_id = "another".into();
        assert_eq!(store.read_ledger(), Ledger::default());
    }
}
