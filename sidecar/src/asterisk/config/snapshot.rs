//! Snapshots on disk: `<hash>/active` and `<hash>/standby` side by side, and the link `current`,
//! which Asterisk reads, to one of them.
//!
//! A snapshot is built apart and renamed, so one that has its name is whole. Files that do not
//! differ are one file (a hard link), so that a switch changes nothing for the modules that read
//! them. Files are readable for the owner and the group: `out_dir` must carry Asterisk's group with
//! the set-group-id bit (an emptyDir with `fsGroup` does), or belong to Asterisk's user.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::error::ConfigError;
use super::sources::Files;
use super::trunks::{Held, TrunkPlan};

/// Of 64: enough to tell configurations apart, and short in names and logs.
const HASH_DIGITS: usize = 12;
/// The running one, the one before it, and one being tried.
const KEPT_SNAPSHOTS: usize = 3;
/// The link that Asterisk reads through.
const CURRENT: &str = "current";
const ACTIVE: &str = "active";
const STANDBY: &str = "standby";

/// A configuration, built and on disk, not yet in use: `set_trunks` puts it to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Twelve hex digits over all names and contents, the AMI secret aside: equal on all nodes with
    /// equal inputs.
    pub hash: String,
    /// The directory that holds both copies.
    pub path: PathBuf,
    /// What Asterisk is started with (`-C <config_dir>/asterisk.conf`); the same path for every
    /// snapshot.
    pub config_dir: PathBuf,
    /// What a promotion gives and a demotion takes away.
    pub trunks: TrunkPlan,
}

/// Lets Asterisk read this snapshot, with or without its trunks: one rename of one link. Asterisk
/// notices at its next reload or start. Setting what is set already changes nothing.
pub fn set_trunks(snapshot: &Snapshot, registered: bool) -> io::Result<()> {
    let variant = if registered { ACTIVE } else { STANDBY };
    let target = Path::new(&snapshot.hash).join(variant);
    if fs::read_link(&snapshot.config_dir).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let next = snapshot.config_dir.with_extension("next");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(&target, &next)?,
    }
    fs::rename(&next, &snapshot.config_dir)
}

/// The link that Asterisk reads through, below `out_dir`.
pub(super) fn config_dir_of(out_dir: &Path) -> PathBuf {
    out_dir.join(CURRENT)
}

/// Writes both copies below `out_dir`, unless they are there, and removes the oldest snapshots.
pub(super) fn write(held: Held, out_dir: &Path) -> Result<Snapshot, ConfigError> {
    let hash = hash_of(&held, out_dir);
    let path = out_dir.join(&hash);
    let unwritten = |source| ConfigError::Write {
        path: path.clone(),
        source,
    };
    if !path.is_dir() {
        write_new(&held, out_dir, &hash).map_err(unwritten)?;
    }
    prune(out_dir, &hash).map_err(unwritten)?;
    Ok(Snapshot {
        hash,
        config_dir: config_dir_of(out_dir),
        trunks: held.plan,
        path,
    })
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where a node keeps its snapshots is its own affair, and stands in two files of ours: nodes with equal inputs agree on the hash.
fn hash_of(held: &Held, out_dir: &Path) -> String {
    let mut hasher = Sha256::new();
    let place = out_dir.to_string_lossy();
    for files in [&held.active, &held.standby] {
        hasher.update((files.len() as u64).to_be_bytes());
        for (name, bytes) in files {
            let bytes = match name.as_str() {
                "asterisk.conf" | "manager.conf" => {
                    let text = String::from_utf8_lossy(bytes);
                    Cow::Owned(text.replace(&*place, "").into_bytes())
                }
                _ => Cow::Borrowed(bytes.as_slice()),
            };
            for part in [name.as_bytes(), &bytes] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
    }
    hex(&hasher.finalize())[..HASH_DIGITS].to_owned()
}

fn write_new(held: &Held, out_dir: &Path, hash: &str) -> io::Result<()> {
    let building = out_dir.join(format!(".{hash}.partial"));
    match fs::remove_dir_all(&building) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => make_dir(&building)?,
    }
    let (active, standby) = (building.join(ACTIVE), building.join(STANDBY));
    write_files(&held.active, &active, |_, _| None)?;
    write_files(&held.standby, &standby, |name, bytes| {
        (held.active.get(name).map(Vec::as_slice) == Some(bytes)).then(|| active.join(name))
    })?;
    fs::rename(&building, out_dir.join(hash))
}

/// Writes the files, or links those for which `twin` names an equal one.
fn write_files(
    files: &Files,
    dir: &Path,
    twin: impl Fn(&str, &[u8]) -> Option<PathBuf>,
) -> io::Result<()> {
    make_dir(dir)?;
    for (name, bytes) in files {
        let path = dir.join(name);
        make_dir(path.parent().unwrap_or(dir))?;
        if let Some(twin) = twin(name, bytes) {
            fs::hard_link(twin, &path)?;
        } else {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .open(&path)?;
            io::Write::write_all(&mut file, bytes)?;
        }
    }
    Ok(())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
}

/// Keeps the newest snapshots, and never removes the one in use or the one just asked for.
fn prune(out_dir: &Path, asked_for: &str) -> io::Result<()> {
    let in_use = fs::read_link(config_dir_of(out_dir)).unwrap_or_default();
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(out_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_snapshot =
            name.len() == HASH_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_snapshot && name != asked_for && !in_use.starts_with(&*name) {
            others.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    others.sort();
    let keep = if in_use.starts_with(asked_for) || in_use.as_os_str().is_empty() {
        KEPT_SNAPSHOTS - 1
    } else {
        KEPT_SNAPSHOTS - 2
    };
    let superfluous = others.len().saturating_sub(keep);
    others
        .iter()
        .take(superfluous)
        .try_for_each(|(_, path)| fs::remove_dir_all(path))
}
