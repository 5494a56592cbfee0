//! The vote: whom it is given to, and when it comes back (R5, R6, R7, R10, R11).

use serde::{Deserialize, Serialize};

use crate::bid::Vacancy;
use crate::handover::Heir;
use crate::node::Node;
use crate::rule::{Rule, holds};
use crate::{
    Body, BootTime, Cause, Effect, Epoch, Incarnation, Message, Occupant, Refusal, Seat, Timing,
};

/// A vote given to a peer: no other gets it before it lapses or is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) candidate: Seat,
    pub(crate) occupant: Occupant,
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) expires_at: BootTime,
}

impl Grant {
    /// When it was given, or renewed last.
    pub(crate) fn given_at(&self, timing: &Timing) -> BootTime {
        self.expires_at.before(timing.deadtime)
    }

    /// Whether it is this very life's.
    pub(crate) fn is_of(&self, message: &Message) -> bool {
        self.is_of_occupant(message) && self.incarnation == message.incarnation
    }

    fn is_of_occupant(&self, message: &Message) -> bool {
        self.candidate == message.from && self.occupant == message.occupant
    }
}

impl Node {
    /// A candidate, or the active, asks for the vote, or renews it.
    pub(crate) fn on_beat(
        &mut self,
        now: BootTime,
        beat: &Message,
        is_active: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !self.yields_to(now, beat, is_active, effects) || !self.may_grant(beat) {
            return self.refuse(now, beat, is_active, effects);
        }
        if is_active {
            self.known_active = Some((beat.from, beat.epoch));
            self.vacancy = Vacancy {
                cause: Cause::NodeSilent,
                from: Some(beat.from),
                since: now,
            };
        }
        let is_taken_up = |heir: &Heir| heir.seat == beat.from && beat.epoch >= heir.epoch;
        if let Some(heir) = self.heir.filter(is_taken_up) {
            self.forget_heir(now, heir);
        }
        self.give_vote(now, beat.from, beat.occupant, beat.incarnation, beat.epoch);
        let body = Body::Ack {
            beat_sent_at: beat.sent_at,
        };
        self.send(now, beat.from, beat.epoch, body, effects);
        self.greet_others(now, beat.from, effects);
    }

    /// R6: frees only the grant of exactly that life, at or below that epoch.
    pub(crate) fn on_release(&mut self, now: BootTime, release: &Message) {
        let is_exact = |grant: Grant| grant.is_of(release) && grant.epoch <= release.epoch;
        if !self.grant.is_some_and(is_exact) {
            return;
        }
        self.grant = None;
        // It has served by this move, or another bid: that it ends is another one.
        let is_over = |heir: &Heir| self.highest_epoch.max(release.epoch) > heir.epoch;
        if let Some(heir) = self.heir.take().filter(is_over) {
            self.forget_heir(now, heir);
        }
        self.may_bid_at = now;
        self.witness.poll_soon(now);
        if self
            .known_active
            .is_some_and(|(seat, _)| seat == release.from)
        {
            self.known_active = None;
            self.vacancy = Vacancy {
                cause: self.cause_of_release(release),
                from: Some(release.from),
                since: now,
            };
        }
    }

    /// Planned, unless another has bid since: that one may have served, and its end is not what was planned.
    fn cause_of_release(&self, release: &Message) -> Cause {
        let is_latest = release.epoch >= self.highest_epoch;
        if is_latest && self.peer(release.from).is_leaving {
            Cause::PodDeleted
        } else {
            Cause::QuorumLost
        }
    }

    /// Takes back a vote whose T has passed.
    pub(crate) fn expire_grant(&mut self, now: BootTime) {
        if self.grant.is_some_and(|grant| now >= grant.expires_at) {
            self.grant = None;
            if let Some(heir) = self.heir {
                self.forget_heir(now, heir);
            }
            self.known_active = None;
            self.may_bid_at = self.may_bid_at.max(now);
        }
    }

    /// Gives the vote, or renews it, for T from now.
    pub(crate) fn give_vote(
        &mut self,
        now: BootTime,
        candidate: Seat,
        occupant: Occupant,
        incarnation: Incarnation,
        epoch: Epoch,
    ) {
        self.raise_highest(epoch, Some((candidate, incarnation)));
        self.last_granted_at = now;
        let expires_at = now.after(self.settings.timing.deadtime);
        self.grant = Some(Grant {
            candidate,
            occupant,
            incarnation,
            epoch,
            expires_at,
        });
    }

    /// Remembers an epoch above all seen, and whose it is.
    pub(crate) fn raise_highest(&mut self, epoch: Epoch, of: Option<(Seat, Incarnation)>) {
        if epoch > self.highest_epoch {
            self.highest_epoch = epoch;
            self.highest_epoch_of = of;
        } else if epoch == self.highest_epoch && self.highest_epoch_of.is_none() {
            self.highest_epoch_of = of;
        }
    }

    /// A grant of the record: it counts a whole T from the restart (R7).
    pub(crate) fn resumed_grant(
        &self,
        now: BootTime,
        (candidate, occupant, incarnation, epoch): (Seat, Occupant, Incarnation, Epoch),
    ) -> Grant {
        let expires_at = now.after(self.settings.timing.deadtime);
        Grant {
            candidate,
            occupant,
            incarnation,
            epoch,
            expires_at,
        }
    }

    /// R11: who is not serving gives its bid up for an active, or for a better candidate.
    fn yields_to(
        &mut self,
        now: BootTime,
        beat: &Message,
        is_active: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.bid.is_none() {
            return true;
        }
        if !self.asterisk.is_idle() || !(is_active || self.is_better(beat.from)) {
            return false;
        }
        self.drop_bid(now, effects);
        true
    }

    fn may_grant(&self, beat: &Message) -> bool {
        let is_free = match &self.grant {
            Some(grant) => grant.is_of(beat) || !holds(Rule::OneGrant),
            None => true,
        };
        is_free && beat.epoch >= self.highest_epoch && !self.is_epoch_of_another(beat)
    }

    /// Two candidates may have chosen the same epoch; only the first one seen gets it.
    fn is_epoch_of_another(&self, beat: &Message) -> bool {
        beat.epoch == self.highest_epoch
            && self
                .highest_epoch_of
                .is_some_and(|of| of != (beat.from, beat.incarnation))
    }

    /// R10: a refusal gives nothing; it tells the candidate above what to raise its epoch, and leaves it the time.
    fn refuse(
        &mut self,
        now: BootTime,
        beat: &Message,
        is_active: bool,
        effects: &mut Vec<Effect>,
    ) {
        if self.bid.is_none() && self.grant.is_none() {
            if self.is_epoch_of_another(beat) {
                self.highest_epoch = self.next_epoch();
                self.highest_epoch_of = None;
            }
            if is_active || self.is_better(beat.from) {
                let raised_by = now.after(self.settings.timing.keepalive * 2);
                self.may_bid_at = self.may_bid_at.max(raised_by);
            }
        }
        let (because, epoch) = self.refusal(beat);
        self.send(now, beat.from, epoch, Body::Nack { because }, effects);
    }

    fn refusal(&self, beat: &Message) -> (Refusal, Epoch) {
        let highest = self.highest_epoch;
        match (&self.bid, &self.grant) {
            (Some(bid), _) if self.is_serving() => (Refusal::Serving, bid.epoch),
            (Some(_), _) => (Refusal::Committed, highest),
            (None, Some(grant)) if !grant.is_of_occupant(beat) => (Refusal::Committed, highest),
            // One that rose above a former life of its own counts the vote that the former name has.
            (None, _) => (Refusal::EpochTooLow, highest),
        }
    }
}
