//! Until when a node may serve, and what the kernel is told of it (R1, R3).

use std::time::Duration;

use crate::node::Node;
use crate::{BootTime, Effect, MAX_NODES, Seat};

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
        self.authority(now).before(self.kill_margin()).min(cap)
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

    /// A small step is left for the next ack, unless the end is near.
    fn is_worth_telling(&self, now: BootTime, standing: BootTime, deadline: BootTime) -> bool {
        let timing = &self.settings.timing;
        let gain = deadline.since(standing);
        let is_near_end = standing < now.after(timing.stop_margin * 2);
        gain >= timing.keepalive / 4 || (gain > Duration::ZERO && is_near_end)
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
        let nodes = self.node_count();
        usize::from(nodes + u8::from(nodes.is_multiple_of(2)))
    }
}
