//! The records on disk (redb). Every change is one transaction, durable when it returns.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::Record;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

/// What cannot be done with the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can neither be opened nor made anew.
    #[error("cannot open the queue's file {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A damaged file cannot be moved aside.
    #[error("cannot move the damaged queue's file {} aside", path.display())]
    MoveAside {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its thread cannot be started.
    #[error("cannot start the queue's thread")]
    Thread(#[source] std::io::Error),
    /// A change was not written.
    #[error("cannot write to the queue's file")]
    Write(#[source] Box<redb::Error>),
    /// A record was not read.
    #[error("cannot read the queue's file")]
    Read(#[source] Box<redb::Error>),
}

impl StoreError {
    /// A stable name for metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open { .. } => "CannotOpenQueue",
            Self::MoveAside { .. } => "CannotMoveQueueAside",
            Self::Thread(_) => "CannotStartThread",
            Self::Write(_) => "CannotWriteQueue",
            Self::Read(_) => "CannotReadQueue",
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
}

impl Store {
    /// Opens it, or makes it. One that cannot be read is moved aside, and an empty one made: a full queue is no reason to serve nobody.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = match open(path) {
            Ok(database) => database,
            Err(error) => {
                let aside = path.with_extension("damaged");
                tracing::error!(%error, kept = %aside.display(), "the AMI queue cannot be read: its actions are unknown, a new one is made");
                fs::rename(path, &aside).map_err(|source| StoreError::MoveAside {
                    path: path.into(),
                    source,
                })?;
                open(path).map_err(|source| StoreError::Open {
                    path: path.into(),
                    source: Box::new(source),
                })?
            }
        };
        Ok(Self { database })
    }

    /// All records, by number.
    pub(super) fn all(&self) -> Result<Vec<Record>, StoreError> {
        let read = || -> Result<Vec<Record>, redb::Error> {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let mut records = Vec::new();
            for entry in table.iter()? {
                records.extend(decode(entry?.1.value()));
            }
            Ok(records)
        };
        read().map_err(|error| StoreError::Read(Box::new(error)))
    }

    pub(super) fn get(&self, id: u64) -> Result<Option<Record>, StoreError> {
        let read = || -> Result<Option<Record>, redb::Error> {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let found = table.get(id)?;
            Ok(found.and_then(|bytes| decode(bytes.value())))
        };
        read().map_err(|error| StoreError::Read(Box::new(error)))
    }

    /// Writes records and forgets others, all or nothing; on disk when it returns.
    pub(super) fn write<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Record>,
        forgotten: &[u64],
    ) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for record in records {
                    let bytes = serde_json::to_vec(record).expect("a record is JSON");
                    table.insert(record.id, bytes.as_slice())?;
                }
                for id in forgotten {
                    table.remove(id)?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| StoreError::Write(Box::new(error)))
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let database = Database::create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    Ok(database)
}

/// One that an older version cannot read is as good as none.
fn decode(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes).ok()
}
