//! Until when a node may serve, and what the kernel is told of it (R1, R3).

use std::time::Duration;

use crate::node::Node;
use crate::seat_count::voters_of;
use crate::{BootTime, Effect, MAX_NODES, OnQuorumLoss, Seat};

impl Node {
    /// The seats that count, as the map has it.
    pub(crate) fn node_count(&self) -> u8 {
        self.membership
            .seats
            .map_or(self.settings.nodes, |seats| seats.count)
    }

    /// An even number of nodes has the witness as its last voter.
    pub(crate) fn has_witness(&self) -> bool {
        self.node_count().is_multiple_of(2) && self.settings.fixed_seats.is_none()
    }

    /// Until when the quorum of all votes lasts.
    pub(crate) fn authority(&self, now: BootTime) -> BootTime {
        let witness = self
            .bid
            .map_or(BootTime::default(), |bid| bid.witness_until);
        self.authority_by(now, witness, |_| true)
    }

    /// The same without the witness, and without those that go: what lasts when it is freed (R8). The one other node
    /// of two goes when its seat is requested: it can be struck only once the deadline rests on the witness (R13 2a).
    pub(crate) fn authority_without_witness(&self, now: BootTime) -> BootTime {
        let is_of_two = self.node_count() == 2;
        let goes =
            |seat: Seat| self.peer(seat).is_leaving || (is_of_two && self.is_requested(seat));
        self.authority_by(now, BootTime::default(), |seat| !goes(seat))
    }

    /// The same without the witness alone: what lasts when it is retired (R13).
    pub(crate) fn authority_of_nodes(&self, now: BootTime) -> BootTime {
        self.authority_by(now, BootTime::default(), |_| true)
    }

    /// The same without one peer: what lasts when it is struck or dismissed (R13).
    pub(crate) fn authority_without(&self, now: BootTime, left_out: Seat) -> BootTime {
        let witness = self
            .bid
            .map_or(BootTime::default(), |bid| bid.witness_until);
        self.authority_by(now, witness, |seat| seat != left_out)
    }

    /// The kernel's deadline rests on other votes than those left out of `authority`.
    pub(crate) fn covers_deadline(&self, authority: BootTime) -> bool {
        match self.asterisk.latest_deadline() {
            Some(deadline) => authority >= deadline.after(self.kill_margin()),
            None => true,
        }
    }

    /// Whether the votes left out of `authority` may go: the deadline rests on others, or by choice on none.
    pub(crate) fn may_do_with(&self, now: BootTime, authority: BootTime) -> bool {
        self.covers_deadline(authority) || self.is_without_quorum(now)
    }

    /// Whether the authority is worth a start: more than the orderly stop is left of it.
    pub(crate) fn has_time_to_serve(&self, now: BootTime) -> bool {
        self.bid.is_some() && self.is_worth_serving(now, self.deadline_to_give(now))
    }

    /// Whether Asterisk could serve under this deadline before its orderly stop begins.
    pub(crate) fn is_worth_serving(&self, now: BootTime, deadline: BootTime) -> bool {
        deadline > now.after(self.settings.timing.stop_lead())
    }

    /// R3: the authority less the kill's latency; never more than T ahead (the lone active).
    pub(crate) fn deadline_to_give(&self, now: BootTime) -> BootTime {
        let cap = now.after(self.settings.timing.deadtime);
        let authority = if self.is_going_on_alone(now) {
            now.after(self.counted_grant())
        } else {
            self.authority(now)
        };
        authority.before(self.kill_margin()).min(cap)
    }

    /// `onQuorumLoss: Continue`: its votes are about to end, and it extends the deadline by its own decision.
    fn is_going_on_alone(&self, now: BootTime) -> bool {
        let fresh = now
            .after(self.counted_grant())
            .before(self.settings.timing.warntime);
        let is_promoted = self.bid.is_some_and(|bid| bid.promoted_at.is_some());
        self.settings.on_quorum_loss == OnQuorumLoss::Continue
            && is_promoted
            && !self.asterisk.is_stopping()
            && self.authority(now) < fresh
    }

    /// It serves, or is about to stop serving, beyond what its votes carry.
    pub(crate) fn is_without_quorum(&self, now: BootTime) -> bool {
        self.settings.on_quorum_loss == OnQuorumLoss::Continue
            && !self.covers_deadline(self.authority(now))
    }

    /// Tells the kernel a later deadline when the votes carry one.
    pub(crate) fn push(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        if !self.has_time_to_serve(now) || self.asterisk.is_stopping() {
            return;
        }
        let deadline = self.deadline_to_give(now);
        let is_due = match self.asterisk.latest_deadline() {
            None => self.condition.is_ready && !self.is_leaving(),
            Some(standing) => self.is_worth_telling(now, standing, deadline),
        };
        if is_due {
            self.save(effects);
            self.asterisk.order(deadline);
            effects.push(Effect::Arm { deadline });
        }
    }

    /// While votes come with every beat, every second one is told: that halves what the guard has to do. When they stay
    /// away, whatever they carry is told at the next beat, so that nothing of the authority is lost.
    fn is_worth_telling(&self, now: BootTime, standing: BootTime, deadline: BootTime) -> bool {
        let timing = &self.settings.timing;
        let gain = deadline.since(standing);
        let fresh = now
            .after(self.counted_grant())
            .before(timing.keepalive * 3 / 2);
        let is_overdue = self.authority(now) < fresh && !self.is_going_on_alone(now);
        gain >= timing.keepalive * 7 / 4 || (gain > Duration::ZERO && is_overdue)
    }

    /// The Q-th largest of the votes: own, counted peers', witness's.
    fn authority_by(
        &self,
        now: BootTime,
        witness_until: BootTime,
        counts: impl Fn(Seat) -> bool,
    ) -> BootTime {
        let Some(bid) = &self.bid else {
            return BootTime::default();
        };
        let mut votes = [BootTime::default(); MAX_NODES + 1];
        for seat in self.peer_seats().filter(|seat| counts(*seat)) {
            votes[usize::from(seat.0)] = bid.counted[usize::from(seat.0)];
        }
        votes[usize::from(self.settings.seat.0)] = now.after(self.counted_grant());
        if self.has_witness() {
            votes[MAX_NODES] = witness_until;
        }
        votes.sort_unstable_by(|a, b| b.cmp(a));
        votes[self.quorum() - 1]
    }

    /// Votes that make a majority.
    pub(crate) fn quorum(&self) -> usize {
        self.voters() / 2 + 1
    }

    /// The configured nodes, and the witness of an even number.
    pub(crate) fn voters(&self) -> usize {
        usize::from(voters_of(self.node_count()))
    }
}
