//! The doors under measurement: three bare hosts with every door open, and clients that look at the boot clock.
//!
//! Reading order: this file (the hosts), [`listener`] (who hears events), [`moves`] (a role change until each door tells it),
//! [`deaths`] (a node's death until Heartbeat's clients are told, ours and the real one's), [`crowd`] (many clients at once),
//! [`round_trips`] (questions), [`kinds`] (which unmodified clients work).

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pbx_crds::cluster::FailoverSpec;

use crate::bare_hosts::{BareHosts, BareSettings};
use crate::failover::heartbeat::Timing;

pub mod crowd;
pub mod deaths;
pub mod kinds;
pub mod listener;
pub mod moves;
pub mod raw;
pub mod round_trips;

/// Keepalive, warntime and deadtime of the hosts; the real heartbeat beside them has the same.
pub const TIMING: Timing = Timing {
    keepalive: "50ms",
    warntime: "150ms",
    deadtime: "300ms",
};
/// With real Asterisks, on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
const HOSTS: u8 = 3;

/// Starts the hosts and waits until they are whole. `name` (at most 8 bytes) must be the caller's own.
pub fn start(name: &str) -> Result<BareHosts> {
    let Timing {
        keepalive,
        warntime,
        deadtime,
    } = TIMING;
    let timing = format!("{{keepalive: {keepalive}, warntime: {warntime}, deadtime: {deadtime}}}");
    let failover: FailoverSpec = serde_yaml::from_str(&timing).context("read the timing")?;
    let hosts = BareHosts::start_with(BareSettings {
        failover,
        ..BareSettings::plain(name, HOSTS)
    })?;
    hosts.wait_whole(PATIENCE)?;
    Ok(hosts)
}

/// Where Heartbeat's clients of a host connect to.
fn heartbeat_socket(hosts: &BareHosts, index: usize) -> PathBuf {
    hosts.heartbeat_folder(index).join("register")
}

/// A client's end of a unix socket; a read waits for `patience`.
fn connect_unix(path: &Path, patience: Duration) -> Result<UnixStream> {
    let stream =
        UnixStream::connect(path).with_context(|| format!("connect to {}", path.display()))?;
    stream.set_read_timeout(Some(patience)).context("set up")?;
    Ok(stream)
}

/// One answer: nothing comes behind its `end` before the next question.
fn read_to(reader: &mut impl Read, end: &[u8]) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 8192];
    while !answer.ends_with(end) {
        let bytes = reader.read(&mut piece).context("read an answer")?;
        ensure!(bytes > 0, "the door closed");
        answer.extend_from_slice(&piece[..bytes]);
    }
    Ok(answer)
}
