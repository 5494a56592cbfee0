//! What the services tell: the core of this node's condition, everybody of its state, the metrics of the past.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pbx_core::{Condition, Input, Role};
use pbx_crds::cluster::StandbyMode;
use pbx_crds::health::HealthStatus;
use pbx_crds::report::Report;

use super::{End, Services};
use crate::asterisk::supervisor::Phase;
use crate::config::Checked;
use crate::history::History;
use crate::metrics::Reason;
use crate::report::{Known, build_report, slow_link, without_quorum};

impl Services {
    pub(super) fn tell_condition(&mut self) {
        let condition = Condition {
            is_ready: self.is_ready(),
            is_api_reachable: self.is_api_reachable,
            rank: self.health.assessment.status.level as u8,
            is_held_back: self.is_held_back(),
        };
        if self.told_condition != Some(condition) {
            self.told_condition = Some(condition);
            self.ask(&Input::Condition(condition));
        }
    }

    pub(super) fn note_ledger(&self) {
        self.metrics
            .ledger_digest
            .store(self.history.digest(), Ordering::Relaxed);
        for record in self.history.ledger().entries.values() {
            let gauge = self.metrics.moves.get_or_create(&Reason {
                reason: record.cause.as_str(),
            });
            let count = self
                .history
                .ledger()
                .entries
                .values()
                .filter(|other| other.cause == record.cause)
                .count();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn publish(&mut self) {
        let view = *self.channels.view.borrow_and_update();
        if !view.has_started {
            return;
        }
        self.metrics
            .active
            .set(i64::from(view.role == Role::Active));
        self.metrics.epoch.set(view.epoch.cast_signed());
        let slow = slow_link(&self.checked, &view);
        let alone = without_quorum(&view);
        let switchover = self.switchover_status();
        let known = Known {
            view,
            phase: self.supervisor.phase(),
            is_ready: self.is_ready(),
            is_terminating: self.end != End::NotAsked,
            version: self
                .booted
                .as_ref()
                .and_then(|booted| booted.version.as_deref()),
            config_hash: self
                .configured
                .as_ref()
                .map(|configured| configured.snapshot.hash.as_str()),
            problem: self
                .crash
                .as_ref()
                .or(self.fault.as_ref())
                .or(self.fencing.problem())
                .or_else(|| self.host.as_ref()?.problem())
                .or(alone.as_ref())
                .or(self.config_problem.as_ref())
                .or(self.schedule_problem.as_ref())
                .or(slow.as_ref()),
            health: &self.health.assessment.status,
            switchover: switchover.as_ref(),
            is_cold: self.checked.file.asterisk.standby == StandbyMode::Cold,
            ledger: self.history.ledger(),
        };
        let checked = self.checked.clone();
        self.channels.report.send_if_modified(|before| {
            let report = build_report(&checked, &known, Some(before));
            let is_new = **before != report;
            if is_new {
                *before = Arc::new(report);
            }
            is_new
        });
    }
}

/// The report of a node of which nothing is known yet.
pub fn first_report(checked: &Checked, history: &History) -> Report {
    let known = Known {
        view: crate::daemon::view_before_start(),
        phase: Phase::Held,
        is_ready: false,
        is_terminating: false,
        version: None,
        config_hash: None,
        problem: None,
        health: &HealthStatus::default(),
        switchover: None,
        is_cold: false,
        ledger: history.ledger(),
    };
    build_report(checked, &known, None)
}
