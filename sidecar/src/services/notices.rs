//! What the services do about what the core tells.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use pbx_core::{Cause, Epoch, Notice};
use pbx_crds::switchover::HookEvent;

use super::{End, Services, moves};
use crate::daemon::ToCore;
use crate::history::{Promotion, crd_cause};

impl Services {
    pub(super) fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Promoted {
                epoch,
                from,
                cause,
                detection_us,
                promotion_us,
            } => {
                let promotion = Promotion {
                    epoch: epoch.0.cast_signed(),
                    cause,
                    detection: Duration::from_micros(detection_us),
                    took: Duration::from_micros(promotion_us),
                };
                // What clients wait for comes first.
                self.on_active(epoch);
                let from = from.map(|seat| self.checked.name_of(seat));
                self.history
                    .on_promoted(Time(Timestamp::now()), from.clone(), promotion);
                self.note_ledger();
                self.tell_promotion(cause, from);
            }
            Notice::Resumed { epoch } => self.on_active(epoch),
            Notice::EpochRaised { epoch } => self.active_epoch = self.active_epoch.map(|_| epoch),
            Notice::Demoted { cause, .. } => {
                self.active_epoch = None;
                self.desk.on_demoted();
                self.note_moved_for_health();
                self.tell_role();
                self.tell_hooks(HookEvent::Demote, Some(crd_cause(cause).to_string()), None);
                self.silence_addresses();
                self.supervisor.on_role(false);
            }
            Notice::RestartedInPlace { reason, .. } => {
                self.note_restarted(moves::suppression_reason(reason));
                self.history.on_restarted_in_place();
                self.note_ledger();
            }
            Notice::SwitchoverRefused { reason } => self.on_refused(reason),
            Notice::SeatsChanged => {}
            Notice::Left => {
                self.end = End::Left;
                self.send(ToCore::EndGuard);
            }
        }
    }

    pub(super) fn on_active(&mut self, epoch: Epoch) {
        self.active_epoch = Some(epoch);
        self.may_take_over_until = None;
        self.supervisor.on_role(true);
        self.move_traffic(epoch);
        self.tell_role();
        if let Some(configured) = &self.configured {
            configured.link(true);
        }
        self.register_trunks();
    }

    pub(super) fn tell_promotion(&self, cause: Cause, from: Option<String>) {
        let why = Some(crd_cause(cause).to_string());
        self.tell_hooks(HookEvent::Promote, why.clone(), from.clone());
        if !cause.is_planned() {
            self.tell_hooks(HookEvent::Failover, why, from);
        } else if cause == Cause::Drill {
            self.tell_hooks(HookEvent::Drill, why, from);
        }
    }
}
