//! Action files: `sample.action`, moved into the folder, is done action after action, and `sampleaction.out` tells what came of it.
//!
//! A file is taken in whole and durably, and known by name, inode and time of change: it is done once, however often the sidecar is
//! killed meanwhile. It is removed when its answer is there.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::class::Classes;
use crate::folder_watch::FolderWatch;
use crate::queue::{Arrival, Lane, Queue, QueueError, Record, State, actions_in};

/// How often the folder is looked at while actions of it are under way, or while the kernel tells of no new files.
const PACE: Duration = Duration::from_millis(100);
/// After a folder or queue that cannot be used.
const PAUSE: Duration = Duration::from_secs(5);
/// The largest file.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
const SUFFIX: &str = ".action";

/// Why the folder cannot be served at present.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder or a file of it.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The queue.
    #[error("cannot take an action file in")]
    Queue(#[from] QueueError),
}

impl SpoolError {
    /// A stable name for metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::File { .. } => "CannotUseSpool",
            Self::Queue(error) => error.reason(),
        }
    }
}

/// Serves the folder until the process ends, on a thread of its own.
pub fn start(folder: PathBuf, write: Classes, queue: Queue) -> io::Result<()> {
    let serve = move || {
        let watch = FolderWatch::new(&folder).ok();
        let mut was_sound = true;
        loop {
            if let Some(watch) = &watch {
                watch.renew();
            }
            let looked = look(&folder, write, &queue);
            if let (Err(error), true) = (&looked, was_sound) {
                let reason = error.reason();
                tracing::error!(folder = %folder.display(), reason, error = chain(error), "action files are not done at present");
            }
            was_sound = looked.is_ok();
            match (looked, &watch) {
                (Ok(0), Some(watch)) => watch.wait(watch.look_again()),
                (Ok(_), _) => std::thread::sleep(PACE),
                (Err(_), _) => std::thread::sleep(PAUSE),
            }
        }
    };
    std::thread::Builder::new()
        .name("ami-spool".into())
        .spawn(serve)
        .map(drop)
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(chain);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Goes through the files that are there, in the order of their arrival. Returns how many were there.
pub(crate) fn look(folder: &Path, write: Classes, queue: &Queue) -> Result<usize, SpoolError> {
    let files = waiting(folder)?;
    for file in &files {
        match queue.lane(&file.lane)? {
            Lane::Open => {}
            Lane::Ended(records) => file.close(&answer_of(&records))?,
            Lane::Unknown => file.take_in(write, queue)?,
        }
    }
    Ok(files.len())
}

/// A file in the folder.
#[derive(Debug)]
struct ActionFile {
    path: PathBuf,
    /// What it is known by.
    lane: String,
    changed_at: (i64, i64),
    length: u64,
}

fn waiting(folder: &Path) -> Result<Vec<ActionFile>, SpoolError> {
    let at = |path: &Path, source| SpoolError::File {
        path: path.into(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| at(folder, error))? {
        let path = entry.map_err(|error| at(folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.ends_with(SUFFIX) || name.starts_with('.') {
            continue;
        }
        // One that is gone again was moved away by its owner.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_file() {
            let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
            let lane = format!("{name}:{}:{seconds}.{nanoseconds:09}", metadata.ino());
            files.push(ActionFile {
                lane,
                changed_at: (seconds, nanoseconds),
                length: metadata.len(),
                path,
            });
        }
    }
    files.sort_by(|one, other| (one.changed_at, &one.path).cmp(&(other.changed_at, &other.path)));
    Ok(files)
}

impl ActionFile {
    fn take_in(&self, write: Classes, queue: &Queue) -> Result<(), SpoolError> {
        match self.arrivals(write) {
            Ok(arrivals) => {
                queue.arrive_blocking(arrivals, Some(self.lane.clone()))?;
                Ok(())
            }
            Err(problem) => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                tracing::warn!(file = %name, problem, "an action file is refused");
                self.close(&format!(
                    "Response: Error\r\nState: failed\r\nMessage: {name}: {problem}: nothing of it was done\r\n\r\n"
                ))
            }
        }
    }

    /// The actions; the error says what is wrong with the file.
    fn arrivals(&self, write: Classes) -> Result<Vec<Arrival>, String> {
        if self.length > FILE_LIMIT_BYTES {
            return Err(format!("is larger than {FILE_LIMIT_BYTES} bytes: split it"));
        }
        let mut text = Vec::new();
        let file = fs::File::open(&self.path);
        file.and_then(|file| file.take(FILE_LIMIT_BYTES).read_to_end(&mut text))
            .map_err(|error| format!("cannot be read: {error}"))?;
        let actions = actions_in(&text)?;
        if actions.is_empty() {
            return Err("has no action in it: write Action: Name and an empty line".to_owned());
        }
        actions
            .into_iter()
            .map(|lines| Arrival::new(lines, write))
            .collect()
    }

    /// Writes the answer, whole or not at all, then removes the file.
    fn close(&self, answer: &str) -> Result<(), SpoolError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(SUFFIX).unwrap_or(&name);
        let out = self.path.with_file_name(format!("{stem}action.out"));
        let half = self.path.with_file_name(format!(".{stem}action.out.new"));
        let write = || {
            let mut file = fs::File::create(&half)?;
            file.write_all(answer.as_bytes())?;
            file.sync_all()?;
            fs::rename(&half, &out)?;
            fs::remove_file(&self.path)
        };
        write().map_err(|source| SpoolError::File {
            path: self.path.clone(),
            source,
        })
    }
}

/// What Asterisk answered to each; a failure is told in the same form.
fn answer_of(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        if record.answer.is_empty() || record.state == State::Unknown {
            let state = if record.state == State::Unknown {
                "unknown"
            } else {
                "failed"
            };
            let why = record.error.as_deref().unwrap_or("no reason known");
            let action = &record.action;
            write!(
                text,
                "Response: Error\r\nAction: {action}\r\nState: {state}\r\nMessage: {why}\r\n\r\n"
            )
            .expect("a text can grow");
            continue;
        }
        for line in &record.answer {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
    }
    text
}
