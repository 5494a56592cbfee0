//! Processes killed by `kill -9`: Asterisk, and the sidecar.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::moves::{Move, Steps, observe};
use crate::clock::Moment;
use crate::cluster::wait_until;
use crate::office::{NAME, NAMESPACE, Office};
use crate::sidecar_log::notices_since;
use crate::watcher::Change;

const BACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills the active's Asterisk: the standby takes over.
pub fn kill_asterisk(office: &Office) -> Result<Move> {
    observe(
        office,
        &Steps {
            cause: &signal_asterisk,
            repair: &|_| Ok(()),
        },
    )
}

/// Kills the active's Asterisk and returns when.
pub fn signal_asterisk(office: &Office) -> Result<Moment> {
    let asterisk = office.asterisk_of(&office.active_pod()?)?;
    let at = Moment::now();
    asterisk.signal(Signal::KILL)?;
    Ok(at)
}

/// Kills the active's sidecar: it comes back to the same role and the same Asterisk. Returns the milliseconds until it serves on.
pub fn kill_sidecar(office: &Office) -> Result<f64> {
    let before = office.wait_whole()?;
    let pod = office.active_pod()?;
    let asterisk = office.asterisk_of(&pod)?;
    let sidecar = pod.processes_of("pbx-sidecar")?.remove(0);
    let killed_at = Moment::now();
    sidecar.signal(Signal::KILL)?;
    wait_until("the sidecar to resume its role", BACK_TIMEOUT, || {
        let notices = notices_since(&office.cluster, NAMESPACE, NAME, killed_at)?;
        Ok(notices.iter().any(|notice| notice.kind == "Resumed"))
    })?;
    let notices = notices_since(&office.cluster, NAMESPACE, NAME, killed_at)?;
    let resumed = notices.iter().find(|notice| notice.kind == "Resumed");
    let back_ms = resumed
        .context("the sidecar never resumed")?
        .at
        .ms_since(killed_at);
    let successor = pod.processes_of("pbx-sidecar")?.remove(0);
    ensure!(
        successor.pid != sidecar.pid,
        "the killed sidecar goes on: {sidecar:?}"
    );
    let after = office.wait_whole()?;
    let lost = notices
        .iter()
        .find(|notice| matches!(notice.kind.as_str(), "Promoted" | "Demoted"));
    ensure!(
        lost.is_none(),
        "the role moved when a sidecar was killed: {lost:?}"
    );
    let is_other = |change: &Change| matches!(change, Change::Status(status) if status.active != before.status.active);
    let seen = office.watcher.seen_since(killed_at);
    ensure!(
        !seen.iter().any(|seen| is_other(&seen.change)),
        "the status named another active while the sidecar restarted"
    );
    ensure!(
        office.asterisk_of(&pod)?.pid == asterisk.pid,
        "Asterisk was restarted with the sidecar"
    );
    ensure!(
        after.status.counts.failovers == before.status.counts.failovers,
        "a restarted sidecar was counted as a failover"
    );
    Ok(back_ms)
}
