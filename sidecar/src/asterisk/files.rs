//! Looks for changed files of the user: a mounted ConfigMap that kubelet swapped, or what an administrator edited on a host.
//!
//! Names, sizes and times are looked at every few seconds; only when they have changed, and stayed for a second (so that a
//! half-written file is not taken), the snapshot is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pbx_crds::sidecar_config::AsteriskConfig;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{Configured, config, configure};
use crate::alarm::rest;
use crate::services::Done;

/// An administrator waits for what he edited.
pub const LOOK_ON_HOST: Duration = Duration::from_secs(5);
/// kubelet takes a minute to bring what was changed.
pub const LOOK_IN_POD: Duration = Duration::from_secs(10);
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// As deep as the files of a snapshot.
const DEPTH: usize = 4;

/// Looks at every `interval` and tells of each change, until the services are gone.
pub async fn watch(asterisk: AsteriskConfig, interval: Duration, done: mpsc::Sender<Done>) {
    let mut known = look(&asterisk.user_dirs).await;
    let mut seen = known.clone();
    let mut pause = interval;
    loop {
        rest(pause).await;
        let now = look(&asterisk.user_dirs).await;
        let is_settled = now == seen;
        seen = now;
        pause = if is_settled { interval } else { SETTLE_TIME };
        if !is_settled || seen == known {
            continue;
        }
        known.clone_from(&seen);
        let built = build(asterisk.clone()).await;
        if done.send(Done::Files(Box::new(built))).await.is_err() {
            return;
        }
    }
}

type Trace = (PathBuf, u64, Option<SystemTime>, Option<PathBuf>);

/// On a thread that may wait: the folders may be on a slow disk.
async fn look(dirs: &[PathBuf]) -> Vec<Trace> {
    let dirs = dirs.to_vec();
    let found = spawn_blocking(move || {
        let mut traces = Vec::new();
        for dir in &dirs {
            trace(dir, DEPTH, &mut traces);
        }
        traces.sort();
        traces
    });
    found.await.unwrap_or_default()
}

/// What cannot be read is as if it were not there; building says why.
fn trace(dir: &Path, depth: usize, traces: &mut Vec<Trace>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let link = fs::read_link(&path).ok();
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth > 0 && link.is_none() {
            trace(&path, depth - 1, traces);
        }
        traces.push((path, metadata.len(), metadata.modified().ok(), link));
    }
}

async fn build(asterisk: AsteriskConfig) -> Result<Configured, config::ConfigError> {
    let built = spawn_blocking(move || configure(&asterisk));
    built
        .await
        .expect("building a configuration does not panic")
}
