//! R15: two that serve, and how it ends. While clocks run, votes and margins let nobody serve beside another. Two cases are
//! left: a whole machine stood still, clock and kernel timers included (then its votes seem to last), and
//! `onQuorumLoss: Continue`, which serves without votes by choice.
//!
//! What ends it is the later word of others, never an epoch that was merely seen (R10): a voter that bids, or has given its
//! vote to another, does not hold it for this node any more, whatever this node's clock says; and of two that serve, the
//! one with the higher epoch was promoted later, so the other one goes.
//!
//! ```text
//!  Active ── outranked by one that serves, or a vote is void ──► Stopping ── confirmed (R4) ──► Standby
//!         └─ the votes that are left cover the deadline: goes on
//! ```

use crate::asterisk::AfterStop;
use crate::bid::Vacancy;
use crate::node::Node;
use crate::rule::{Rule, holds};
use crate::{
    BootTime, Cause, Effect, Epoch, Holder, LeaseContent, Message, Notice, OnQuorumLoss, Seat,
};

/// What a rival's message says beside its epoch.
#[derive(Clone, Copy)]
pub(crate) struct Claim {
    /// It serves.
    pub(crate) serves: bool,
    /// It was sent after all that was heard of it before: an acknowledgement of it that counts is older.
    pub(crate) is_newest: bool,
    /// The way held it up for longer than any vote lasts, or it is the first word of another life of its sender: what it says of serving
    /// may be over.
    pub(crate) is_doubtful: bool,
}

impl Node {
    /// A peer bids, or has refused since its vote is not free; nothing newer was heard of it.
    pub(crate) fn heed_rival(
        &mut self,
        now: BootTime,
        message: &Message,
        claim: Claim,
        effects: &mut Vec<Effect>,
    ) {
        if !holds(Rule::HeedRivals) {
            return;
        }
        if claim.is_newest {
            self.void_vote(now, message.from);
        }
        if !self.is_serving() || self.is_ending(now) {
            return;
        }
        let is_outranked =
            claim.serves && !claim.is_doubtful && self.is_outranked_by(message.from, message.epoch);
        if is_outranked || self.has_lost_votes(now) {
            self.give_way(now, effects);
        }
    }

    /// The Lease names another holder, which took it after the hold that is counted here.
    pub(crate) fn heed_holder(
        &mut self,
        now: BootTime,
        content: &LeaseContent,
        effects: &mut Vec<Effect>,
    ) {
        let is_anothers = matches!(content.holder, Holder::Node { .. }) && !self.is_own(content);
        let counts = self.bid.is_some_and(|bid| bid.witness_until > now);
        if !is_anothers || !counts || !holds(Rule::HeedRivals) {
            return;
        }
        self.uncount_witness();
        if self.is_serving() && self.has_lost_votes(now) {
            self.give_way(now, effects);
        }
    }

    /// Asterisk is stopped: the bid goes, and with it every claim.
    pub(crate) fn give_up_bid(&mut self, now: BootTime, cause: Cause, effects: &mut Vec<Effect>) {
        let Some(bid) = self.bid else { return };
        self.vacancy = Vacancy {
            cause,
            from: Some(self.settings.seat),
            since: now,
        };
        // Its rival is to be heard first.
        let patience = self.settings.timing.keepalive * 2;
        self.may_bid_at = self.may_bid_at.max(now.after(patience));
        self.drop_bid(now, effects);
        if bid.promoted_at.is_some() {
            let epoch = bid.epoch;
            effects.push(Effect::Notice(Notice::Demoted { epoch, cause }));
        }
    }

    /// What was held up by a pause of its processes is heard after the kernel's kill: then there is no rival, but an end.
    fn is_ending(&self, now: BootTime) -> bool {
        let deadline = self.asterisk.latest_deadline();
        deadline.is_none_or(|deadline| !self.is_worth_serving(now, deadline))
    }

    /// Both know both: exactly one of them is outranked.
    fn is_outranked_by(&self, seat: Seat, epoch: Epoch) -> bool {
        let own = self.settings.seat;
        self.bid.is_some_and(|bid| (epoch, own) > (bid.epoch, seat))
    }

    fn void_vote(&mut self, now: BootTime, seat: Seat) {
        if let Some(bid) = &mut self.bid {
            let counted = &mut bid.counted[usize::from(seat.0)];
            if *counted > now {
                *counted = BootTime::default();
            }
        }
    }

    /// A deadline that was found at the start never rested on votes that this life knows; who goes on without a quorum does
    /// so without this vote too.
    fn has_lost_votes(&self, now: BootTime) -> bool {
        self.settings.on_quorum_loss == OnQuorumLoss::Demote
            && !self.asterisk.is_inherited()
            && !self.covers_deadline(self.authority(now))
    }

    fn give_way(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        self.begin_stop(now, AfterStop::GiveWay, Cause::Contention, effects);
    }
}
