//! All processes of the active's pod stand still, as after a live migration or a stuck disk: whatever the length, nobody may be
//! answered by two nodes, not even in the instant of the thaw.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::freeze::{freeze, stop};
use crate::office::Office;
use crate::watcher::View;

/// How the processes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// By the freezer of cgroup v2, all at once.
    Freezer,
    /// By SIGSTOP, one after the other.
    Signal,
}

/// What was seen of a freeze.
#[derive(Clone, Copy, Debug)]
pub struct Freeze {
    /// Whether the standby took over.
    pub moved: bool,
    /// Answers that show two nodes serving at once.
    pub dual: usize,
    /// The longest time without an answer, in milliseconds.
    pub gap_ms: f64,
}

/// Holds the active's pod for `length` while a SIP client asks through the Service, and waits until all is whole again.
pub fn freeze_active(office: &Office, hold: Hold, length: Duration) -> Result<Freeze> {
    let before = office.wait_whole()?;
    let old = office.serving_address()?;
    let pod = office.active_pod()?;
    let probe = office.probe(office.service()?)?;
    let done =
        hold_for(&pod.processes(), hold, length).and_then(|()| settle(office, &before, length));
    let log = probe.finish()?;
    let after = done?;
    let moved = after.status.active != before.status.active;
    let new = if moved {
        office.serving_address()?
    } else {
        old
    };
    let dual = log.dual_if_moved(old, new);
    ensure!(
        dual == 0,
        "two nodes served at once: {dual} answers, the active held by {hold:?} for {length:?}"
    );
    Ok(Freeze {
        moved,
        dual,
        gap_ms: log.worst_gap().ms,
    })
}

fn hold_for(processes: &[crate::cluster::Process], hold: Hold, length: Duration) -> Result<()> {
    match hold {
        Hold::Freezer => {
            let frozen = freeze(processes)?;
            std::thread::sleep(length);
            frozen.thaw()
        }
        Hold::Signal => {
            let stopped = stop(processes)?;
            std::thread::sleep(length);
            stopped.proceed();
            Ok(())
        }
    }
}

/// A freeze longer than deadtime moves the role, a shorter one may not.
fn settle(office: &Office, before: &View, length: Duration) -> Result<View> {
    let patience = Duration::from_secs(30);
    if length > Duration::from_secs(1) {
        office
            .watcher
            .wait_until("another active", patience, |view| {
                view.status.active.is_some() && view.status.active != before.status.active
            })?;
    } else {
        // Nothing is expected to change, so there is nothing to wait for: time for stray answers.
        std::thread::sleep(Duration::from_secs(2));
    }
    office.wait_whole()
}
