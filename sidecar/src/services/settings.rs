//! What may change while the sidecar runs: applied when it does, and never a reason to end a process.

use k8s_openapi::jiff::Timestamp;
use pbx_crds::report::Problem;
use pbx_crds::switchover::LiveSettings;

use super::Services;
use crate::drills::Schedule;
use crate::hooks::Hooks;
use crate::kubernetes::resource::Wanted;

impl Services {
    /// The resource, as it is read or watched.
    pub(super) fn on_wanted(&mut self, wanted: Wanted) {
        if wanted.live != self.live {
            self.apply_settings(wanted.live);
        }
        // What stands there when a sidecar starts was for others, or is long done.
        let is_first = self.seen_request.is_none();
        let before = self.seen_request.replace(wanted.request.clone());
        if let Some(value) = wanted.request
            && !is_first
            && before.flatten().as_deref() != Some(&value)
        {
            self.on_wish(&value);
        }
    }

    /// Maintenance begins or ends, on this node alone: where there is no resource that says so.
    pub(super) fn set_paused(&mut self, is_paused: bool) {
        let live = LiveSettings {
            paused: is_paused,
            ..self.live.clone()
        };
        self.apply_settings(live);
    }

    /// Applies the schedule of the present settings.
    pub(super) fn apply_schedule(&mut self) {
        self.schedule_problem = None;
        self.schedule = None;
        let Some(text) = &self.live.drills.schedule else {
            return;
        };
        match Schedule::new(text, Timestamp::now()) {
            Ok(schedule) => {
                tracing::info!(schedule = schedule.text(), next = %schedule.next(), "drills");
                self.schedule = Some(schedule);
            }
            Err(error) => {
                tracing::error!(%error, "drills are off");
                self.schedule_problem = Some(Problem {
                    reason: "ScheduleInvalid".into(),
                    message: error.to_string(),
                });
            }
        }
    }

    fn apply_settings(&mut self, live: LiveSettings) {
        tracing::info!(paused = live.paused, mode = ?live.mode, "settings changed");
        let before = std::mem::replace(&mut self.live, live);
        if before.health != self.live.health {
            self.restart_sensors();
        }
        if before.hooks != self.live.hooks {
            self.hooks = Hooks::start(self.live.hooks.clone(), self.metrics.clone());
        }
        if before.drills.schedule != self.live.drills.schedule {
            self.apply_schedule();
        }
    }
}
