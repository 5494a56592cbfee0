//! What the services do about Asterisk: its configuration, its boot, its trunks, its orderly end.

use std::time::Duration;

use pbx_core::BootTime;
use pbx_crds::report::Problem;
use tokio::task::spawn_local;

use super::{Done, End, Services, now};
use crate::asterisk;
use crate::asterisk::supervisor::Action;
use crate::daemon::ToCore;
use crate::guard::GuardNote;

/// Below it, a crash is an accident; from it on, a loop that a person has to look at.
const CRASH_LOOP: u32 = 3;
/// The deletion of a pod makes work for kubelet, the API server and kube-proxy: the move, which needs all three and has
/// time, waits until most of it is done.
const CALM_AFTER_DELETION: Duration = Duration::from_millis(500);

impl Services {
    /// Once the guard is there: in a pod, what the image has by default was copied before its container began.
    fn configure(&mut self) {
        match asterisk::configure(&self.checked.file.asterisk) {
            Ok(configured) => {
                if !configured.is_linked() {
                    configured.link(false);
                }
                self.configured = Some(configured);
                self.allow_asterisk();
            }
            Err(error) => {
                tracing::error!(
                    reason = error.reason(),
                    error = &error as &dyn std::error::Error,
                    "Asterisk's configuration cannot be built"
                );
                self.fault = Some(Problem {
                    reason: "ConfigInvalid".into(),
                    message: error.to_string(),
                });
            }
        }
    }

    /// It may start once it has its configuration, and the addresses that it may be bound to.
    pub(super) fn allow_asterisk(&mut self) {
        if self.configured.is_some() && self.is_network_ready() {
            self.supervisor.on_config();
        }
    }

    pub(super) fn on_guard(&mut self, note: GuardNote) {
        if self.configured.is_none() {
            self.configure();
        }
        match note {
            GuardNote::Started => {
                self.metrics.asterisk_starts.inc();
                self.end_boot();
                let Action::Boot = self.supervisor.on_started() else {
                    return;
                };
                self.boot();
            }
            GuardNote::Draining => {
                self.supervisor.on_draining();
                self.told_condition = None;
            }
            GuardNote::Ending => {
                self.end_boot();
                self.supervisor.on_ending();
                self.told_condition = None;
            }
            GuardNote::Exited {
                asked,
                status,
                quick_exits,
            } => {
                tracing::info!(asked, ?status, quick_exits, "Asterisk ended");
                self.end_boot();
                self.supervisor.on_exited(now(), quick_exits);
                self.told_condition = None;
                self.rollover.on_exited(now());
                self.desk.on_exited();
                self.crash = (quick_exits >= CRASH_LOOP).then(|| Problem {
                    reason: "AsteriskCrashLoop".into(),
                    message: format!("Asterisk on {} ended {quick_exits} times within seconds of its start ({status:?}): see the log of its container", self.checked.node),
                });
            }
            GuardNote::Idle => {
                self.end_boot();
                self.supervisor.on_exited(now(), 0);
                self.told_condition = None;
            }
            GuardNote::Terminating { grace_ends } => self.on_terminating(Some(grace_ends)),
        }
    }

    pub(super) fn boot(&mut self) {
        let Some(configured) = self.configured.clone() else {
            return;
        };
        let done = self.done.clone();
        let task = spawn_local(async move {
            let boot = configured.boot();
            tokio::pin!(boot);
            let in_time = tokio::time::timeout(asterisk::SLOW_BOOT, &mut boot).await;
            let booted = if let Ok(booted) = in_time {
                booted
            } else {
                tracing::warn!(
                    after = ?asterisk::SLOW_BOOT,
                    "Asterisk is not fully booted yet: see the log of its container"
                );
                boot.await
            };
            let _ = done.send(Done::Booted(booted)).await;
        });
        self.boot_task = Some(task.abort_handle());
    }

    pub(super) fn end_boot(&mut self) {
        self.booted = None;
        self.forget_life();
        if let Some(task) = self.boot_task.take() {
            task.abort();
        }
    }

    /// The node is to end, at `grace_ends` at the latest where that is known.
    pub(super) fn on_terminating(&mut self, grace_ends: Option<BootTime>) {
        if self.end != End::NotAsked {
            return;
        }
        tracing::info!("the pod ends: handing over and leaving");
        if let Some(grace_ends) = grace_ends {
            self.move_calls_before_end(grace_ends);
        }
        self.end = End::Leaving;
        self.supervisor.on_leaving();
    }

    /// Leaves once no planned move keeps calls here any more; the guard ends them all before the grace period is over.
    pub(super) fn tend_end(&mut self) {
        let is_due = self.end == End::Leaving && !self.is_leave_begun && !self.desk.is_busy();
        if is_due {
            self.is_leave_begun = true;
            self.leave();
        }
    }

    fn leave(&self) {
        let (configured, booted, done) = (
            self.configured.clone(),
            self.booted.clone(),
            self.done.clone(),
        );
        let is_active = self.active_epoch.is_some();
        let moves_traffic = self.slice().is_some();
        spawn_local(async move {
            if is_active && moves_traffic {
                tokio::time::sleep(CALM_AFTER_DELETION).await;
            }
            if let (true, Some(configured), Some(booted)) = (is_active, configured, booted) {
                configured.unregister_trunks(&booted).await;
            }
            let _ = done.send(Done::MayLeave).await;
        });
    }

    pub(super) fn tend_asterisk(&mut self) {
        match self.supervisor.on_tick(now()) {
            Some(Action::ReadTraffic) => self.read_traffic(),
            Some(Action::StartSlack) => {
                if let Some(configured) = &self.configured {
                    configured.link(false);
                }
                self.send(ToCore::StartSlack);
            }
            Some(Action::Boot) | None => {}
        }
    }

    pub(super) fn register_trunks(&self) {
        if let (Some(configured), Some(_), Some(_)) =
            (&self.configured, &self.booted, self.active_epoch)
        {
            spawn_local(configured.clone().register_trunks());
        }
    }
}
