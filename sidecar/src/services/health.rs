//! What the services do about health: tell the sensors what they stand on, and carry out what follows from the level.

use std::net::IpAddr;
use std::sync::Arc;

use pbx_core::{Command, Input};
use pbx_crds::health::HealthSpec;
use pbx_crds::switchover::HookEvent;
use tokio::sync::mpsc;

use super::{Done, End, Services, now};
use crate::asterisk::supervisor::Phase;
use crate::config::Checked;
use crate::daemon::ToCore;
use crate::health::{
    Assessment, Chooser, Decision, Ground, Life, Reading, Scoreboard, Situation, Watch,
};
use crate::metrics::{Metrics, Reason};

/// The sensors and what they say.
pub(super) struct Health {
    watch: Watch,
    board: Scoreboard,
    chooser: Chooser,
    pub(super) assessment: Assessment,
    lives: u64,
    /// The core was asked for a move for health, and has not answered yet.
    is_asked: bool,
}

impl Health {
    /// Starts the sensors.
    pub(super) fn start(
        spec: &HealthSpec,
        checked: &Checked,
        metrics: &Metrics,
        done: &mpsc::Sender<Done>,
    ) -> Self {
        let floating: Arc<[IpAddr]> = checked
            .plan
            .as_ref()
            .map(|plan| plan.addresses.iter().map(|address| address.ip).collect())
            .unwrap_or_default();
        let ground = Ground {
            floating,
            ..Ground::default()
        };
        let (watch, board) = Watch::start(spec, ground, metrics, done);
        Self {
            watch,
            board,
            chooser: Chooser::default(),
            assessment: Assessment::default(),
            lives: 0,
            is_asked: false,
        }
    }
}

impl Services {
    /// Other sensors, from now on.
    pub(super) fn restart_sensors(&mut self) {
        let health = Health::start(&self.live.health, &self.checked, &self.metrics, &self.done);
        self.health = Health {
            lives: self.health.lives,
            ..health
        };
        self.tell_role();
        if self.booted.is_some() {
            self.note_life();
        }
    }

    pub(super) fn on_sensor(&mut self, name: &str, reading: Reading) {
        tracing::debug!(sensor = name, verdict = ?reading.verdict, text = reading.text, "sensor");
        self.health.board.on_reading(now(), name, reading);
    }

    /// Asterisk is fully booted: it is asked from now on.
    pub(super) fn note_life(&mut self) {
        let Some(configured) = self.configured.clone() else {
            return;
        };
        self.health.lives += 1;
        let life = Life {
            number: self.health.lives,
            configured: Arc::new(configured),
        };
        self.health.board.forget_asterisk(now());
        self.health
            .watch
            .set_ground(|ground| ground.asterisk = Some(life));
    }

    /// Asterisk ends, or is closed: it is asked no more.
    pub(super) fn forget_life(&mut self) {
        self.health
            .watch
            .set_ground(|ground| ground.asterisk = None);
    }

    pub(super) fn tell_role(&mut self) {
        let is_active = self.active_epoch.is_some();
        self.health
            .watch
            .set_ground(|ground| ground.is_active = is_active);
    }

    pub(super) fn tell_reloading(&mut self, is_reloading: bool) {
        self.health
            .watch
            .set_ground(|ground| ground.is_reloading = is_reloading);
    }

    /// Carries out what follows from the level.
    pub(super) fn tend_health(&mut self) {
        let before = self.health.assessment.status.level;
        self.health.assessment = self.health.board.assess(now());
        let level = self.health.assessment.status.level;
        self.show_health();
        if before != level {
            self.tell_level_change();
        }
        let situation = Situation {
            is_active: self.active_epoch.is_some(),
            is_booted: self.supervisor.phase() == Phase::Booted
                && self.end == End::NotAsked
                && !self.desk.is_moving(),
            is_paused: self.live.paused,
            has_heir: !self.is_held_back() && self.has_healthier(level),
            assessment: &self.health.assessment,
        };
        let decision = self.health.chooser.decide(now(), &situation);
        if let Some(decision) = decision {
            self.carry_out(decision);
        }
    }

    /// The core refused a move; whether it was one for health.
    pub(super) fn on_health_refused(&mut self, reason: &'static str) -> bool {
        let is_ours = std::mem::take(&mut self.health.is_asked);
        if is_ours && let Some(decision) = self.health.chooser.on_refused(reason) {
            self.carry_out(decision);
        }
        is_ours
    }

    /// A move that is not made is counted, in the ledger and by its reason.
    pub(super) fn count_suppressed(&mut self, reason: &'static str) {
        Metrics::count(&self.metrics.suppressed, reason);
        self.history.on_suppressed();
        self.note_ledger();
    }

    /// When a level falls, or a refused move is asked for again.
    pub(super) fn health_deadline(&self) -> Option<pbx_core::BootTime> {
        let health = &self.health;
        let deadlines = [health.board.next_deadline(), health.chooser.next_deadline()];
        let now = now();
        deadlines.into_iter().flatten().filter(|at| *at > now).min()
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::HandOver(cause) => {
                tracing::error!(
                    ?cause,
                    score = self.health.assessment.score,
                    sensors = ?self.health.assessment.status.sensors,
                    "this node is sick: it hands over, if another is healthier"
                );
                // The core compares the ranks.
                self.tell_condition();
                self.health.is_asked = true;
                self.ask(&Input::Command(Command::Switchover { to: None, cause }));
            }
            Decision::RestartStandby => {
                tracing::error!("Asterisk of this standby does not answer: it is started again");
                self.send(ToCore::StopSlack);
            }
            Decision::Suppress(reason) => {
                tracing::warn!(reason, "a move for health is not made");
                self.count_suppressed(reason);
            }
        }
    }

    fn tell_level_change(&mut self) {
        let status = &self.health.assessment.status;
        tracing::warn!(level = status.level.as_str(), sensors = ?status.sensors, "health changed");
        let why = status.sensors.join(", ");
        self.tell_hooks(HookEvent::HealthChange, Some(why), None);
    }

    fn show_health(&self) {
        let Assessment { score, status, .. } = &self.health.assessment;
        self.metrics.health.score.set(i64::from(*score));
        self.metrics.health.level.set(status.level as i64);
    }

    pub(super) fn note_restarted(&mut self, reason: &'static str) {
        self.health.is_asked = false;
        self.metrics
            .suppressed
            .get_or_create(&Reason { reason })
            .inc();
    }

    pub(super) fn note_moved_for_health(&mut self) {
        self.health.is_asked = false;
    }
}
