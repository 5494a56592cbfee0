//! What the services do about a changed configuration: a standby tries it, the active takes it when another lives with it.

use pbx_core::{Cause, Seat};
use pbx_crds::report::Problem;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;

use super::{Done, End, Services, now};
use crate::asterisk::ami::AmiError;
use crate::asterisk::config::{ConfigError, needs_start};
use crate::asterisk::reload::{Action, State, TELL_INTERVAL};
use crate::asterisk::supervisor::Phase;
use crate::asterisk::{Configured, RELOAD_DEADLINE};
use crate::daemon::ToCore;

/// Which configuration a node's Asterisk lives with, as it tells its peers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LivesWith {
    node: String,
    config_hash: String,
}

/// How a reload ended.
#[derive(Debug, PartialEq, Eq)]
pub enum ReloadEnd {
    /// Asterisk has read its files.
    Read,
    /// Asterisk ended before it answered: what it had read is gone with it.
    AsteriskEnded,
    /// It did not, and why.
    Refused(String),
}

impl ReloadEnd {
    fn failure(&self) -> Option<&str> {
        match self {
            Self::Read => None,
            Self::AsteriskEnded => Some("Asterisk ended before it had read its files"),
            Self::Refused(why) => Some(why),
        }
    }
}

impl Services {
    /// The files have changed.
    pub(super) fn on_files(&mut self, built: Result<Configured, ConfigError>) {
        let configured = match built {
            Ok(configured) => configured,
            Err(error) => {
                tracing::error!(reason = error.reason(), %error, "the changed configuration cannot be built: nothing is applied");
                self.config_problem = Some(problem("ConfigInvalid", error.to_string()));
                return;
            }
        };
        self.config_problem = None;
        if self.configured.is_none() {
            return self.take_first(configured);
        }
        let hash = configured.snapshot.hash.clone();
        let running = self
            .configured
            .as_ref()
            .map_or("", |one| &one.snapshot.hash);
        tracing::info!(hash, running, "the configuration has changed");
        self.rollover.on_files(now(), &hash, running);
        self.candidate = Some(configured);
    }

    /// Something that a peer told beside its ledger; returns whether it was that.
    pub(super) fn on_told(&mut self, json: &[u8]) -> bool {
        let told = serde_json::from_slice::<LivesWith>(json);
        let Ok(told) = told else { return false };
        let nodes = &self.checked.file.nodes;
        if nodes.iter().any(|node| node.name == told.node) {
            self.rollover.on_told(now(), &told.node, &told.config_hash);
        }
        true
    }

    /// What is due of a new configuration.
    pub(super) fn tend_reload(&mut self) {
        self.tell_config();
        let phase = self.supervisor.phase();
        let own = self.checked.settings.seat;
        let active = self.channels.view.borrow().active;
        let is_before = |seat: &u8| Some(Seat(*seat)) != active;
        let state = State {
            is_active: self.active_epoch.is_some(),
            is_booted: phase == Phase::Booted,
            is_stopped: phase == Phase::Held
                && (self.supervisor.is_cold() || self.crash.is_some() || !self.was_booted),
            is_sick: self.health.assessment.status.level == pbx_crds::health::HealthLevel::Failure,
            is_busy: self.desk.is_busy() || self.end != End::NotAsked || self.is_reloading,
            standbys_before: (0..own.0).filter(is_before).count() as u32,
        };
        match self.rollover.on_tick(now(), state) {
            Some(Action::Try) => self.try_candidate(),
            Some(Action::Keep) => self.keep_candidate(),
            Some(Action::GoBack) => self.go_back("its Asterisk did not live with it"),
            Some(Action::Apply) => self.apply_candidate(),
            None => self.note_overdue(),
        }
    }

    /// Asterisk has read its files again, or could not.
    pub(super) fn on_reloaded(&mut self, end: ReloadEnd) {
        self.is_reloading = false;
        self.tell_reloading(false);
        self.end_reload_job(end.failure());
        // One that a person asked for changes nothing of what is on its way.
        if self.before_candidate.is_none() {
            return;
        }
        match end {
            // Its end, such as that of a switchover, is no verdict: a standby lives with the files, and the next start reads them.
            ReloadEnd::Read | ReloadEnd::AsteriskEnded => {
                tracing::info!(?end, "the new configuration is applied by a reload");
                self.before_candidate = None;
                self.config_problem = None;
                self.rollover.on_applied();
            }
            ReloadEnd::Refused(error) => {
                tracing::error!(
                    error,
                    "Asterisk could not be reloaded: the configuration before is given back"
                );
                self.go_back(&error);
                self.reload();
            }
        }
    }

    /// What stood there at the start could not be built: nothing is lost by taking this.
    fn take_first(&mut self, configured: Configured) {
        configured.link(false);
        self.fault = self
            .fault
            .take()
            .filter(|fault| fault.reason != "ConfigInvalid");
        self.configured = Some(configured);
        self.allow_asterisk();
    }

    fn try_candidate(&mut self) {
        let Some(candidate) = self.candidate.clone() else {
            return;
        };
        tracing::info!(
            hash = candidate.snapshot.hash,
            "this standby tries the new configuration"
        );
        candidate.link(false);
        self.before_candidate = self.configured.replace(candidate);
        self.restart_standby();
    }

    fn keep_candidate(&mut self) {
        tracing::info!("this standby lives with the new configuration");
        self.before_candidate = None;
        self.config_problem = None;
        self.rollover.on_applied();
        // The active waits for this word.
        self.told_config = None;
        self.tell_config();
        if self.supervisor.is_cold() {
            self.send(ToCore::StopSlack);
        }
    }

    fn go_back(&mut self, why: &str) {
        let Some(before) = self.before_candidate.take() else {
            return;
        };
        let bad = self.configured.replace(before);
        let hash = bad.map(|bad| bad.snapshot.hash).unwrap_or_default();
        tracing::error!(
            hash,
            why,
            "the new configuration is bad: the one before is kept"
        );
        self.config_problem = Some(problem(
            "ConfigRejected",
            format!(
                "configuration {hash} is not applied: {why}; see Asterisk's log on {}, and mend the files",
                self.checked.node
            ),
        ));
        self.rollover.on_failed();
        let is_active = self.active_epoch.is_some();
        if let Some(configured) = &self.configured {
            configured.link(is_active);
        }
        if !is_active {
            self.restart_standby();
        }
    }

    fn apply_candidate(&mut self) {
        let (Some(candidate), Some(running)) = (self.candidate.clone(), self.configured.clone())
        else {
            return;
        };
        let hash = candidate.snapshot.hash.clone();
        match needs_start(&running.snapshot, &candidate.snapshot) {
            Ok(None) => {
                tracing::info!(
                    hash,
                    "a standby lives with the new configuration: Asterisk reads it"
                );
                candidate.link(true);
                self.before_candidate = self.configured.replace(candidate);
                self.reload();
            }
            Ok(Some(file)) => {
                tracing::info!(
                    hash,
                    file,
                    "the new configuration needs a start: the role moves"
                );
                let who = format!("configuration {hash}");
                // Refused now, it is asked for again.
                let _ = self.begin_switchover(None, None, Cause::Switchover, &who);
            }
            Err(error) => {
                tracing::error!(reason = error.reason(), %error, "the snapshots cannot be compared");
                self.rollover.on_failed();
            }
        }
    }

    pub(super) fn reload(&mut self) {
        let Some(configured) = self.configured.clone().filter(|_| self.booted.is_some()) else {
            return;
        };
        self.is_reloading = true;
        self.tell_reloading(true);
        let done = self.done.clone();
        spawn_local(async move {
            let reload = configured.reload(&[]);
            let end = match tokio::time::timeout(RELOAD_DEADLINE, reload).await {
                Ok(Ok(())) => ReloadEnd::Read,
                Ok(Err(AmiError::Lost { .. } | AmiError::Connect { .. })) => {
                    ReloadEnd::AsteriskEnded
                }
                Ok(Err(error)) => ReloadEnd::Refused(error.to_string()),
                Err(_) => ReloadEnd::Refused(format!("no answer within {RELOAD_DEADLINE:?}")),
            };
            let _ = done.send(Done::Reloaded(end)).await;
        });
    }

    /// It starts again with what the link points to.
    fn restart_standby(&mut self) {
        match self.supervisor.phase() {
            Phase::Held if self.supervisor.is_cold() => self.send(ToCore::StartSlack),
            // The supervisor starts it, when it may.
            Phase::Held => {}
            _ => self.send(ToCore::StopSlack),
        }
    }

    /// What the others wait for, the active above all: the configuration that this standby's Asterisk lives with. Nobody waits for that of
    /// the active.
    fn tell_config(&mut self) {
        let active = self.channels.view.borrow().active;
        let Some(active) = active.filter(|seat| *seat != self.checked.settings.seat) else {
            return;
        };
        let is_due = self
            .told_config
            .is_none_or(|(to, at)| to != active || now().since(at) >= TELL_INTERVAL);
        let lives = self.supervisor.phase() == Phase::Booted || self.supervisor.is_cold();
        if !is_due || !lives || self.rollover.is_trying() {
            return;
        }
        let Some(configured) = &self.configured else {
            return;
        };
        let told = LivesWith {
            node: self.checked.node.clone(),
            config_hash: configured.snapshot.hash.clone(),
        };
        let json = serde_json::to_vec(&told).expect("two texts are JSON");
        self.told_config = Some((active, now()));
        for seat in self.other_seats() {
            self.send(ToCore::SendLedger(seat, vec![json.clone()]));
        }
    }

    fn note_overdue(&mut self) {
        if let Some(hash) = self.rollover.overdue(now())
            && self.config_problem.is_none()
        {
            self.config_problem = Some(problem(
                "ConfigWaiting",
                format!(
                    "configuration {hash} waits: no standby lives with it yet; see the problems of the other nodes"
                ),
            ));
        }
    }
}

fn problem(reason: &str, message: String) -> Problem {
    Problem {
        reason: reason.to_owned(),
        message,
    }
}
