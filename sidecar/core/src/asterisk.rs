//! The local Asterisk as the guard confirms it: armed, stopping, or out of service (R3, R4).
//!
//! A standby's Asterisk runs slack and serves nobody: here it counts as idle. What matters is whether a
//! deadline was ordered, since from then on it may serve, until the guard says that it ended.

use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::rule::{Rule, holds};
use crate::{BootTime, Cause, Effect, GuardEvent, Notice, Seat, Suppression};

/// What may be serving here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Asterisk {
    /// The latest deadline ordered: the kernel's timer stands nowhere later.
    ordered: Option<BootTime>,
    /// The latest deadline confirmed: the kernel's timer stands nowhere earlier.
    confirmed: Option<BootTime>,
    /// A stop is ordered and not confirmed.
    stopping: Option<Stopping>,
    /// Since when it is being started again in place.
    restarting: Option<BootTime>,
    /// The deadline was found at the start of the sidecar; the votes behind it are not known any more.
    is_inherited: bool,
}

/// What comes after the confirmation of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stopping {
    pub(crate) then: AfterStop,
    pub(crate) cause: Cause,
    pub(crate) since: BootTime,
}

/// What a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum AfterStop {
    /// To this seat, or to the best.
    HandOver(Option<Seat>),
    /// The authority ends; the bid goes on without serving.
    KeepBid,
    /// Another serves: nothing is kept (R15).
    GiveWay,
    /// It was armed by a life that this one knows nothing of.
    Nothing,
}

impl Asterisk {
    /// Nothing here may be serving.
    pub(crate) fn is_idle(&self) -> bool {
        self.ordered.is_none() && self.stopping.is_none()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Another serves, and this one is on its way out: it claims no epoch any more.
    pub(crate) fn is_giving_way(&self) -> bool {
        self.stopping
            .is_some_and(|stopping| stopping.then == AfterStop::GiveWay)
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The kernel kills nowhere later than this.
    pub(crate) fn latest_deadline(&self) -> Option<BootTime> {
        self.ordered
    }

    /// The kernel's timer is known to stand, at least here.
    pub(crate) fn confirmed_deadline(&self) -> Option<BootTime> {
        self.confirmed
    }

    /// A deadline found in the kernel.
    pub(crate) fn resume(&mut self, deadline: BootTime) {
        self.ordered = Some(deadline);
        self.confirmed = Some(deadline);
        self.is_inherited = true;
    }

    #[cfg(feature = "model")]
    pub(crate) fn rebase(
        &mut self,
        rebase: &crate::Rebase<'_>,
        over: std::time::Duration,
        patience: std::time::Duration,
    ) {
        self.ordered = self.ordered.map(|at| rebase.own(at, over));
        self.confirmed = self.confirmed.map(|at| rebase.own(at, over));
        self.restarting = self.restarting.map(|at| rebase.own(at, patience));
        if let Some(stopping) = &mut self.stopping {
            stopping.cause = Cause::Startup;
            stopping.since = rebase.now;
        }
    }

    /// A deadline is on its way to the guard.
    pub(crate) fn order(&mut self, deadline: BootTime) {
        debug_assert!(self.ordered < Some(deadline), "deadlines only grow");
        self.ordered = Some(deadline);
        self.is_inherited = false;
    }
}

impl Node {
    /// What the guard confirms.
    pub(crate) fn on_guard(&mut self, now: BootTime, event: GuardEvent, effects: &mut Vec<Effect>) {
        match event {
            GuardEvent::Armed { deadline } => self.on_armed(now, deadline, effects),
            GuardEvent::Exited { at } => self.on_asterisk_gone(now, at, effects),
            GuardEvent::Stopped => self.on_asterisk_gone(now, now, effects),
            GuardEvent::Adopted { deadline } => self.on_adopted(now, deadline, effects),
        }
    }

    /// Orders the stop that has to come before anything is given up (R4).
    pub(crate) fn begin_stop(
        &mut self,
        now: BootTime,
        then: AfterStop,
        cause: Cause,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Stop);
        let stopping = Stopping {
            then,
            cause,
            since: now,
        };
        if holds(Rule::StopFirst) {
            self.asterisk.stopping = Some(stopping);
        } else {
            self.asterisk = Asterisk::default();
            self.after_stop(now, stopping, effects);
        }
    }

    /// An armed Asterisk that no bid of this life stands behind.
    pub(crate) fn stop_stranger(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        self.begin_stop(now, AfterStop::Nothing, Cause::SidecarRestarted, effects);
    }

    /// Starts Asterisk again under the authority that lasts: no heir could do better.
    pub(crate) fn restart_in_place(
        &mut self,
        now: BootTime,
        reason: Suppression,
        effects: &mut Vec<Effect>,
    ) {
        let deadline = self.deadline_to_give(now);
        self.save(effects);
        self.asterisk.order(deadline);
        self.asterisk.restarting = Some(now);
        effects.push(Effect::RestartInPlace { deadline });
        let bid = self.bid.as_ref().expect("authority needs a bid");
        if bid.promoted_at.is_some() {
            let epoch = bid.epoch;
            effects.push(Effect::Notice(Notice::RestartedInPlace { epoch, reason }));
        }
    }

    /// Stops in time when the authority ends, and takes the kernel's word when the guard's is missing.
    pub(crate) fn tend_asterisk(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(deadline) = self.asterisk.ordered else {
            return;
        };
        if self.asterisk.is_stopping() {
            // The leash: a timer that was confirmed stands at `deadline` at the latest, and the kernel has killed by
            // now. One that was never confirmed is refused by the guard once its deadline has passed (R3).
            if now >= deadline.after(self.settings.timing.kill_margin) {
                self.on_asterisk_gone(now, deadline, effects);
            }
            return;
        }
        if self.asterisk.restarting.is_some() && self.asterisk.confirmed.is_some() {
            self.end_restart(now, effects);
        }
        let is_ending = !self.is_worth_serving(now, deadline);
        let can_extend = self.has_time_to_serve(now) && self.deadline_to_give(now) > deadline;
        if is_ending && !can_extend && !self.asterisk.is_stopping() {
            self.begin_stop(now, AfterStop::KeepBid, Cause::QuorumLost, effects);
        }
    }

    /// When the orderly stop is due, and when the kernel must have done it.
    pub(crate) fn consider_asterisk(&self, consider: &mut impl FnMut(BootTime)) {
        let timing = &self.settings.timing;
        if let Some(deadline) = self.asterisk.ordered {
            consider(deadline.before(timing.stop_lead()));
            consider(deadline.after(timing.kill_margin));
        }
        if let Some(since) = self.asterisk.restarting {
            consider(since.after(self.restart_patience()));
        }
    }

    fn on_armed(&mut self, now: BootTime, deadline: BootTime, effects: &mut Vec<Effect>) {
        let Some(ordered) = self.asterisk.ordered else {
            return;
        };
        self.asterisk.ordered = Some(ordered.max(deadline));
        self.asterisk.confirmed = self.asterisk.confirmed.max(Some(deadline));
        if !self.asterisk.is_stopping() && self.is_worth_serving(now, deadline) {
            self.promote(now, effects);
        }
    }

    /// Serving begins with the confirmed deadline, not before (R3).
    fn promote(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(bid) = &mut self.bid else { return };
        if bid.promoted_at.is_some() {
            return;
        }
        bid.promoted_at = Some(now);
        bid.has_served = true;
        let origin = bid.origin;
        effects.push(Effect::Notice(Notice::Promoted {
            epoch: bid.epoch,
            from: origin.from,
            cause: origin.cause,
            detection_us: origin.detection.as_micros() as u64,
            promotion_us: now.since(origin.decided_at).as_micros() as u64,
        }));
        self.next_beat_at = now;
    }

    /// The guard came back to us, or we to it.
    fn on_adopted(&mut self, now: BootTime, deadline: Option<BootTime>, effects: &mut Vec<Effect>) {
        match deadline {
            Some(deadline) if self.asterisk.ordered.is_some() => {
                self.on_armed(now, deadline, effects);
            }
            Some(deadline) => {
                self.asterisk.resume(deadline);
                let then = if self.bid.is_some() {
                    AfterStop::KeepBid
                } else {
                    AfterStop::Nothing
                };
                self.begin_stop(now, then, Cause::SidecarRestarted, effects);
            }
            // A timer never goes slack again: the one that was armed is gone.
            None if self.asterisk.confirmed.is_some() => self.on_asterisk_gone(now, now, effects),
            None => {}
        }
    }

    /// Asterisk certainly does not run: what was waiting for it happens in this very step.
    fn on_asterisk_gone(&mut self, now: BootTime, at: BootTime, effects: &mut Vec<Effect>) {
        self.condition.is_ready = false;
        if self.asterisk.is_idle() {
            return;
        }
        let is_expired = self
            .asterisk
            .confirmed
            .is_some_and(|deadline| at >= deadline);
        let stopping = self.asterisk.stopping.unwrap_or(Stopping {
            then: AfterStop::HandOver(None),
            cause: if is_expired {
                Cause::GuardExpired
            } else {
                Cause::AsteriskExited
            },
            since: at.min(now),
        });
        self.asterisk = Asterisk::default();
        self.after_stop(now, stopping, effects);
    }

    fn after_stop(&mut self, now: BootTime, stopped: Stopping, effects: &mut Vec<Effect>) {
        let Stopping { then, cause, since } = stopped;
        match then {
            AfterStop::HandOver(to) => {
                self.hand_over_or_restart(now, to, (cause, since), effects);
            }
            AfterStop::KeepBid => self.demote_and_keep_bid(now, cause, effects),
            AfterStop::GiveWay => self.give_up_bid(now, cause, effects),
            AfterStop::Nothing => {}
        }
    }

    /// A restart ends when Asterisk is ready. One that takes long gives way to an heir.
    fn end_restart(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        if self.condition.is_ready {
            self.asterisk.restarting = None;
            return;
        }
        let is_late = self
            .asterisk
            .restarting
            .is_some_and(|since| now >= since.after(self.restart_patience()));
        if is_late
            && self
                .choose_heir_for(Cause::AsteriskExited, now, None)
                .is_ok()
        {
            self.begin_stop(
                now,
                AfterStop::HandOver(None),
                Cause::AsteriskExited,
                effects,
            );
        }
    }

    /// Asterisk boots in 0.25 to 0.45 s (measured); a busy machine gets some more.
    fn restart_patience(&self) -> std::time::Duration {
        self.settings
            .timing
            .deadtime
            .max(std::time::Duration::from_secs(1))
    }
}
