//! Leaving for good: by order, or because the seat is wanted or given away (R13 1, 2b).
//!
//! The leaver hands over if it is active, goes on voting as long as the active needs it (liveness only), and
//! then never votes again. Tq after its last grant it empties its own seat, so that a newcomer may fill it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::asterisk::AfterStop;
use crate::node::Node;
use crate::{Body, BootTime, Cause, Effect, Message, Notice, Seats};

/// How far the leaving has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaving {
    since: BootTime,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Hands over, frees, and still votes.
    Told {
        /// The active has said that it needs this vote no longer.
        is_dismissed: bool,
    },
    /// Never votes again.
    Departed {
        /// Tq after the last grant: the seat may be emptied.
        may_vacate_at: BootTime,
    },
    /// Silent.
    Gone,
}

/// How long a leaver tries to empty its seat before it leaves that to others.
const VACATE_TIMEOUT: Duration = Duration::from_secs(3);

impl Node {
    /// The pod ends.
    pub(crate) fn on_leave_command(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        if self.leaving.is_some() {
            return;
        }
        let stage = Stage::Told {
            is_dismissed: false,
        };
        self.leaving = Some(Leaving { since: now, stage });
        self.next_beat_at = now;
        if self.bid.is_some() && !self.asterisk.is_idle() && !self.asterisk.is_stopping() {
            self.begin_stop(now, AfterStop::HandOver(None), Cause::PodDeleted, effects);
        }
    }

    /// The Lease asks this node to go, or names somebody else in its seat.
    pub(crate) fn leave_seat(&mut self, now: BootTime, read: &Seats, effects: &mut Vec<Effect>) {
        self.on_leave_command(now, effects);
        if !self.sits_in(read) && self.bid.is_none() {
            self.depart(now);
        }
    }

    /// A record that says so: never again, and the last grant may have been given just now.
    pub(crate) fn resume_leaving(&mut self, now: BootTime) {
        self.leaving = Some(Leaving {
            since: now,
            stage: Stage::Told { is_dismissed: true },
        });
        self.depart(now);
    }

    /// A peer leaves: the active makes its deadline rest on other votes, and says when it does.
    pub(crate) fn on_leave(&mut self, now: BootTime, leave: &Message, effects: &mut Vec<Effect>) {
        self.peers[usize::from(leave.from.0)].is_leaving = true;
        let rests = self.authority_without(now, leave.from);
        if !self.is_serving() || !self.covers_deadline(rests) {
            return;
        }
        let epoch = self.bid.expect("who serves has a bid").epoch;
        self.send(now, leave.from, epoch, Body::Dismiss, effects);
    }

    /// The active rests on other votes.
    pub(crate) fn on_dismiss(&mut self, dismiss: &Message) {
        let is_of_grant = self.grant.is_some_and(|grant| grant.is_of(dismiss));
        if let Some(Leaving {
            stage: Stage::Told { is_dismissed },
            ..
        }) = &mut self.leaving
        {
            *is_dismissed |= is_of_grant;
        }
    }

    /// The next stage, when it is due.
    pub(crate) fn tend_leaving(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(leaving) = self.leaving else { return };
        match leaving.stage {
            Stage::Told { is_dismissed } => {
                let is_overdue = now >= self.patience_ends(&leaving);
                let is_needed = self.grant.is_some() && !is_dismissed;
                let is_busy = self.bid.is_some() || !self.asterisk.is_idle() || self.heir.is_some();
                let is_holding = self.witness.may_own && self.has_witness();
                if !is_busy && (is_overdue || !(is_needed || is_holding)) {
                    self.depart(now);
                    self.save(effects);
                }
            }
            Stage::Departed { may_vacate_at } => {
                let gives_up_at = may_vacate_at.after(VACATE_TIMEOUT);
                let is_vacated = self.membership.seats.is_none()
                    || self.settings.fixed_seats.is_some()
                    || self
                        .witness
                        .content()
                        .is_some_and(|read| !self.sits_in(&read.seats));
                if self.asterisk.is_idle() && (is_vacated || now >= gives_up_at) {
                    self.set_stage(Stage::Gone);
                    effects.push(Effect::Notice(Notice::Left));
                }
            }
            Stage::Gone => {}
        }
    }

    /// R13 2b: Tq after the last grant, by the one who gave it.
    pub(crate) fn may_vacate_own_seat(&self, now: BootTime) -> bool {
        matches!(
            self.leaving,
            Some(Leaving { stage: Stage::Departed { may_vacate_at }, .. }) if now >= may_vacate_at
        ) && self.asterisk.is_idle()
    }

    /// On its way out: no bid, no acceptance.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Never votes again.
    pub(crate) fn has_departed(&self) -> bool {
        self.leaving
            .is_some_and(|leaving| !matches!(leaving.stage, Stage::Told { .. }))
    }

    /// Says and does nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.leaving
            .is_some_and(|leaving| leaving.stage == Stage::Gone)
    }

    /// When a stage of the leaving is due.
    pub(crate) fn consider_leaving(&self, consider: &mut impl FnMut(BootTime)) {
        let Some(leaving) = self.leaving else { return };
        consider(self.patience_ends(&leaving));
        if let Stage::Departed { may_vacate_at } = leaving.stage {
            consider(may_vacate_at);
            consider(may_vacate_at.after(VACATE_TIMEOUT));
        }
    }

    fn patience_ends(&self, leaving: &Leaving) -> BootTime {
        leaving.since.after(self.settings.timing.deadtime * 5)
    }

    fn depart(&mut self, now: BootTime) {
        self.grant = None;
        self.heir = None;
        let last = self.last_granted_at.max(self.booted_at);
        let may_vacate_at = last.after(self.settings.timing.quarantine()).max(now);
        self.set_stage(Stage::Departed { may_vacate_at });
        self.witness.poll_soon(now);
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(leaving) = &mut self.leaving {
            leaving.stage = stage;
        }
    }
}
