//! A flight in a file: what is in front of the entries and behind them, reading it back, and the folder of the newest files.
//!
//!     "PBXFLT\r\n" | format 2 | length 2, header | length 2, entry | … | SHA-256 of all before
//!
//! The digest finds damage, not forgery: who may write the folder is trusted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pbx_core::BootTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::entry::{Entry, LENGTH_BYTES};

const MAGIC: &[u8; 8] = b"PBXFLT\r\n";
/// Raised with every change of this frame; a change of the core's state shows in [`Header::layout`] by itself.
const FORMAT: u16 = 1;
const DIGEST_BYTES: usize = 32;
const FRONT_BYTES: usize = MAGIC.len() + 2;
/// No flight is larger: four times the ring.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// The newest files are kept.
const KEPT_FILES: usize = 10;
/// In all; the folder is in memory.
const KEPT_BYTES: u64 = 4 << 20;
const ENDING: &str = "pbxflight";

/// Whose flight it is, and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the sidecar.
    pub program: String,
    /// Digest of how this build lays a node out: another one's checkpoints cannot be read.
    pub layout: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
    /// Names of all nodes, by seat.
    pub names: Vec<String>,
    /// When it was taken, by the clock of the entries.
    pub taken_at: BootTime,
    /// The same moment on the wall, nanoseconds since 1970.
    pub taken_at_unix_ns: u64,
    /// Why it was taken.
    pub occasion: String,
}

/// A flight, read.
#[derive(Debug)]
pub struct Flight {
    /// Whose.
    pub header: Header,
    /// Oldest first; the first is a start or a checkpoint.
    pub entries: Vec<Entry>,
}

/// Why bytes are no flight that can be replayed.
#[derive(Debug, Error)]
pub enum FlightError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is larger than any.
    #[error("more than {MAX_FILE_BYTES} bytes: this is no flight of a sidecar")]
    TooLarge,
    /// It begins with something else.
    #[error("this is no flight of a sidecar (a file *.{ENDING}, or the body of /debug/flight)")]
    NotAFlight,
    /// Of a newer or an older release.
    #[error(
        "a flight of format {found}, and this program reads {FORMAT}: replay it with the pbx-sidecar that wrote it"
    )]
    OtherFormat {
        /// What it says.
        found: u16,
    },
    /// The core of that build keeps another state.
    #[error("written by another build of pbx-sidecar ({program}): replay it with that one")]
    OtherBuild {
        /// Its version.
        program: String,
    },
    /// Cut off, or altered.
    #[error("the flight is damaged: its digest does not fit; copy it again")]
    Damaged,
    /// The digest fits, and an entry makes no sense.
    #[error("byte {at}: not an entry: {source}")]
    Entry {
        /// Where.
        at: usize,
        /// Why.
        source: postcard::Error,
    },
    /// Nothing to begin from.
    #[error("the flight does not begin with a start or a checkpoint of the core")]
    NoBeginning,
}

/// A whole file of the ring's bytes.
pub fn assemble(header: &Header, entries: &[u8]) -> Vec<u8> {
    let mut front = [0; 2048];
    let header = postcard::to_slice(header, &mut front).expect("names have bounded lengths");
    let length = header.len() as u16;
    let mut bytes =
        Vec::with_capacity(FRONT_BYTES + header.len() + entries.len() + DIGEST_BYTES + 2);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(entries);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Reads the file at `path`; `layout` is this build's.
pub fn read(path: &Path, layout: u32) -> Result<Flight, FlightError> {
    let failed = |source| FlightError::Read {
        path: path.into(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES as u64 {
        return Err(FlightError::TooLarge);
    }
    parse(&fs::read(path).map_err(failed)?, layout)
}

/// Reads a whole file's bytes.
pub fn parse(bytes: &[u8], layout: u32) -> Result<Flight, FlightError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(FlightError::TooLarge);
    }
    if !bytes.starts_with(MAGIC) {
        return Err(FlightError::NotAFlight);
    }
    let (body, digest) = bytes
        .split_last_chunk::<DIGEST_BYTES>()
        .filter(|(body, _)| body.len() >= FRONT_BYTES)
        .ok_or(FlightError::Damaged)?;
    let found = u16::from_le_bytes([body[MAGIC.len()], body[MAGIC.len() + 1]]);
    if found != FORMAT {
        return Err(FlightError::OtherFormat { found });
    }
    if Sha256::digest(body)[..] != digest[..] {
        return Err(FlightError::Damaged);
    }
    let mut reader = Reader {
        bytes: body,
        at: FRONT_BYTES,
    };
    let header: Header = reader.entry()?.ok_or(FlightError::NoBeginning)?;
    if header.layout != layout {
        return Err(FlightError::OtherBuild {
            program: header.program,
        });
    }
    let entries = entries(reader)?;
    Ok(Flight { header, entries })
}

fn entries(mut reader: Reader<'_>) -> Result<Vec<Entry>, FlightError> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.entry()? {
        entries.push(entry);
    }
    match entries.first() {
        Some(Entry::Start { .. } | Entry::Checkpoint(_)) => Ok(entries),
        _ => Err(FlightError::NoBeginning),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn entry<T: Deserialize<'a>>(&mut self) -> Result<Option<T>, FlightError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let cut = FlightError::Entry {
            at,
            source: postcard::Error::DeserializeUnexpectedEnd,
        };
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(cut);
        };
        let length = usize::from(u16::from_le_bytes(*length));
        let Some(body) = rest.get(..length) else {
            return Err(cut);
        };
        self.at = at + LENGTH_BYTES + length;
        postcard::from_bytes(body)
            .map(Some)
            .map_err(|source| FlightError::Entry { at, source })
    }
}

/// The folder of the newest flights.
#[derive(Clone, Debug)]
pub struct FlightStore {
    folder: PathBuf,
}

impl FlightStore {
    /// Uses `folder`, which is made with the first file.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes `<stem>.pbxflight` whole, under its name only when it is complete, and removes what is too old.
    pub fn write(&self, stem: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{stem}.{ENDING}"));
        let temporary = self.folder.join(".writing");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, &path)?;
        self.remove_old()?;
        Ok(path)
    }

    fn remove_old(&self) -> io::Result<()> {
        let (mut files, mut bytes) = (0, 0);
        for (path, size) in self.newest_first()? {
            files += 1;
            bytes += size;
            if files > KEPT_FILES || (bytes > KEPT_BYTES && files > 1) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn newest_first(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                let data = fs::metadata(&path)?;
                files.push((data.modified()?, path, data.len()));
            }
        }
        files.sort_by(|a, b| b.cmp(a));
        Ok(files
            .into_iter()
            .map(|(_, path, size)| (path, size))
            .collect())
    }
}
