//! The bid: when a node asks for votes, what it counts, and when it stands back (R6, R10, R11).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::rule::{Rule, holds};
use crate::{
    Body, BootTime, Cause, Effect, Epoch, MAX_NODES, Message, Notice, Refusal, Seat, Timing,
};

/// A candidate's, or the active's, claim to an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Bid {
    pub(crate) epoch: Epoch,
    /// When it began, or had a quorum last.
    pub(crate) fruitful_at: BootTime,
    /// Until when each peer's vote counts.
    pub(crate) counted: [BootTime; MAX_NODES],
    /// Until when the witness counts.
    pub(crate) witness_until: BootTime,
    pub(crate) origin: Origin,
    /// When it began to serve under this epoch.
    pub(crate) promoted_at: Option<BootTime>,
    /// A newer epoch stands in the API: raised above it then, unless a rival is heard before (R15).
    pub(crate) raise_at: Option<BootTime>,
    /// Asterisk served under this bid, at this or an earlier epoch: it may be started again in place.
    pub(crate) has_served: bool,
}

/// Why a bid was made, for the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) cause: Cause,
    pub(crate) from: Option<Seat>,
    pub(crate) detection: Duration,
    pub(crate) decided_at: BootTime,
}

/// Why nobody is active, or would not be if the known active fell silent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Vacancy {
    pub(crate) cause: Cause,
    pub(crate) from: Option<Seat>,
    pub(crate) since: BootTime,
}

impl Bid {
    /// When it has been without a quorum for T.
    pub(crate) fn fruitless_at(&self, timing: &Timing) -> BootTime {
        self.fruitful_at.after(timing.deadtime)
    }
}

impl Node {
    /// R2, R6: an ack counts for exactly the epoch of the present bid, from the beat's send time.
    pub(crate) fn on_ack(&mut self, now: BootTime, ack: &Message, beat_sent_at: BootTime) {
        let counts_until = if holds(Rule::SendTime) {
            beat_sent_at
        } else {
            now
        };
        let counts_until = counts_until.after(self.counted_grant());
        let is_struck = self.is_struck(ack.from);
        let Some(bid) = &mut self.bid else { return };
        if bid.epoch == ack.epoch && beat_sent_at <= now && !is_struck {
            let counted = &mut bid.counted[usize::from(ack.from.0)];
            *counted = counts_until.max(*counted);
            self.calm_down(beat_sent_at);
        }
    }

    /// R10: a newer epoch exists; a bid is raised above it and keeps its votes.
    ///
    /// Who serves raises only where that helps: above one that serves, the wrong one of two would go (R15).
    pub(crate) fn on_nack(
        &mut self,
        now: BootTime,
        nack: &Message,
        because: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        let helps = because == Refusal::EpochTooLow || self.asterisk.is_idle();
        if helps && !self.asterisk.is_giving_way() {
            self.on_epoch_seen(now, nack.epoch, effects);
        }
    }

    /// A newer epoch stands in the Lease or where the traffic is written. Who serves asks its voters first: the writer may serve
    /// too, after a pause of this whole machine, and above its epoch the wrong one of two would go (R15).
    pub(crate) fn on_epoch_in_api(
        &mut self,
        now: BootTime,
        epoch: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_serving() {
            return self.on_epoch_seen(now, epoch, effects);
        }
        self.raise_highest(epoch, None);
        let patience = self.settings.timing.keepalive * 2;
        if let Some(bid) = self.bid.as_mut().filter(|bid| bid.epoch < epoch) {
            bid.raise_at = bid.raise_at.or(Some(now.after(patience)));
        }
    }

    /// A newer epoch was seen, wherever: the own bid goes above it (I2).
    pub(crate) fn on_epoch_seen(&mut self, now: BootTime, epoch: Epoch, effects: &mut Vec<Effect>) {
        self.raise_highest(epoch, None);
        if self.bid.is_some_and(|bid| bid.epoch < epoch) {
            self.raise_epoch(now, effects);
        }
    }

    /// Raises the own epoch above all seen. The votes stay: they are this life's, whatever its epoch.
    pub(crate) fn raise_epoch(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let epoch = self.next_epoch();
        self.raise_highest(epoch, Some((self.settings.seat, self.incarnation)));
        let bid = self.bid.as_mut().expect("only a bid is raised");
        bid.epoch = epoch;
        bid.raise_at = None;
        if bid.promoted_at.is_some() {
            effects.push(Effect::Notice(Notice::EpochRaised { epoch }));
        }
        self.next_beat_at = now;
    }

    /// The first one of this node's above all seen.
    pub(crate) fn next_epoch(&self) -> Epoch {
        self.highest_epoch.next_of(self.settings.seat)
    }

    /// Begins a bid; the beats leave in the same step.
    pub(crate) fn start_bid(&mut self, now: BootTime, epoch: Epoch, origin: Origin) {
        self.raise_highest(epoch, Some((self.settings.seat, self.incarnation)));
        self.bid = Some(Bid {
            epoch,
            fruitful_at: now,
            counted: [BootTime::default(); MAX_NODES],
            witness_until: BootTime::default(),
            origin,
            promoted_at: None,
            raise_at: None,
            has_served: false,
        });
        self.grant = None;
        self.heir = None;
        self.known_active = None;
        self.next_beat_at = now;
        self.witness.poll_soon(now);
    }

    /// The bid of the record, without its counts.
    pub(crate) fn resume_bid(&mut self, now: BootTime, epoch: Epoch, is_serving: bool) {
        let (from, detection) = (None, Duration::ZERO);
        let cause = Cause::SidecarRestarted;
        self.start_bid(
            now,
            epoch,
            Origin {
                cause,
                from,
                detection,
                decided_at: now,
            },
        );
        let bid = self.bid.as_mut().expect("just started");
        bid.has_served = is_serving;
        bid.promoted_at = is_serving.then_some(now);
    }

    /// Gives the bid up: Asterisk is not running for it, so all who granted may know (R4).
    pub(crate) fn drop_bid(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(bid) = self.bid.take() else { return };
        self.send_to_others(now, None, bid.epoch, Body::Release, effects);
        self.next_beat_at = now.after(self.settings.timing.keepalive);
    }

    /// Starts, keeps or drops a bid, as time has it.
    pub(crate) fn tend_bid(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        if self.bid.is_none() {
            if self.may_bid(now) && now >= self.bid_due_at() {
                self.bid_for_vacancy(now);
            }
            return;
        }
        if self.authority(now) > now {
            self.bid.as_mut().expect("checked").fruitful_at = now;
        }
        let is_raise_due = |bid: Bid| bid.raise_at.is_some_and(|at| now >= at);
        if self.bid.is_some_and(is_raise_due) && !self.asterisk.is_giving_way() {
            self.raise_epoch(now, effects);
        }
        if !self.asterisk.is_idle() {
            return;
        }
        if !self.condition.is_ready || self.is_leaving() {
            return self.tend_unready_bid(now, effects);
        }
        if self.is_fruitless(now) {
            self.stand_back(now, effects);
        }
    }

    /// Who could serve best among those that are heard now; itself excluded.
    pub(crate) fn better_peers(&self) -> u32 {
        let warntime = self.settings.timing.warntime;
        let is_ahead = |seat: &Seat| {
            let peer = self.peer(*seat);
            peer.condition.is_ready
                && peer.is_heard_within(self.stepped_at, warntime)
                && self.is_better(*seat)
        };
        self.peer_seats().filter(is_ahead).count() as u32
    }

    /// When this node's turn to bid comes: a lesser candidate defers by its rank.
    pub(crate) fn bid_due_at(&self) -> BootTime {
        let earliest = self.may_bid_at.max(self.quarantine_until);
        earliest.after(self.settings.timing.rank_delay * self.better_peers())
    }

    fn may_bid(&self, now: BootTime) -> bool {
        self.can_vote(now)
            && (self.grant.is_none() || !holds(Rule::OneGrant))
            && self.asterisk.is_idle()
            && self.condition.is_ready
            && !self.is_leaving()
            && !self.is_held_back_from_vacancy()
    }

    /// Another fell silent, and only a person may put this node in its place.
    fn is_held_back_from_vacancy(&self) -> bool {
        let Vacancy { cause, from, .. } = self.vacancy;
        let is_own_role = from == Some(self.settings.seat);
        self.condition.is_held_back && !cause.is_planned() && !is_own_role
    }

    fn bid_for_vacancy(&mut self, now: BootTime) {
        let Vacancy { cause, from, since } = self.vacancy;
        let detection = now.since(since);
        let origin = Origin {
            cause,
            from,
            detection,
            decided_at: now,
        };
        self.start_bid(now, self.next_epoch(), origin);
    }

    /// Not ready, and nothing runs: another, or in place under the authority that is left, or not at all.
    fn tend_unready_bid(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let bid = self.bid.expect("checked by the caller");
        if !bid.has_served {
            return self.drop_bid(now, effects);
        }
        let cause = if self.is_leaving() {
            Cause::PodDeleted
        } else {
            Cause::AsteriskExited
        };
        match self.choose_heir_for(cause, now, None) {
            Ok(heir) => self.hand_over(now, heir, bid.origin.cause, now, effects),
            Err(_) if self.is_leaving() => self.drop_bid(now, effects),
            Err(reason) if self.has_time_to_serve(now) => {
                self.restart_in_place(now, reason, effects);
            }
            Err(_) if self.is_fruitless(now) => self.stand_back(now, effects),
            Err(_) => {}
        }
    }

    /// No quorum for T. A ready candidate whose API answers goes on: the witness decides.
    fn is_fruitless(&self, now: BootTime) -> bool {
        let timing = &self.settings.timing;
        let is_overdue = self.bid.is_some_and(|bid| now >= bid.fruitless_at(timing));
        is_overdue && !(self.has_witness() && self.condition.is_ready && self.hears_api(now))
    }

    /// Lets another try: whoever granted this fruitless bid is free again.
    fn stand_back(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        self.drop_bid(now, effects);
        let timing = &self.settings.timing;
        // Different for each node and bid, without randomness: two that collide do not collide again.
        let mixed = (self.incarnation.0 ^ self.highest_epoch.0.rotate_left(17))
            .wrapping_add(u64::from(self.settings.seat.0) << 32)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let jitter = timing.warntime * (mixed >> 48) as u32 / (1 << 16);
        self.may_bid_at = now.after(timing.keepalive + jitter);
    }
}
