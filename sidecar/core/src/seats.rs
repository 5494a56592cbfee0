//! The seat map: who may vote from where, and how a seat changes hands (R13).
//!
//! What is not here: requests and vacations by the operator, which writes them itself.

use serde::{Deserialize, Serialize};

use crate::lease_calls::Purpose;
use crate::node::Node;
use crate::observation::Observation;
use crate::peer::Peer;
use crate::rule::{Rule, holds};
use crate::{
    BootTime, Effect, Holder, LeaseContent, MAX_NODES, Notice, Occupant, Record, Seat, Seats,
    Settings,
};

/// The seat map as this node goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// `None`: not read yet, no vote (R13 rule 5).
    pub(crate) seats: Option<Seats>,
    /// No grants to these, and their acks do not count.
    pub(crate) struck: [bool; MAX_NODES],
    /// Replaced for good; an older Lease does not bring them back (R9).
    pub(crate) former: [Option<Occupant>; MAX_NODES],
}

impl Membership {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            seats: settings.fixed_seats,
            struck: [false; MAX_NODES],
            former: [None; MAX_NODES],
        }
    }

    /// The map of the same boot's record is durable enough to vote by.
    pub(crate) fn resume(&mut self, record: &Record) {
        self.seats = record.seats.or(self.seats);
        self.struck = record.struck;
        self.former = record.former;
    }
}

impl Node {
    /// In its own seat, as the map says.
    pub(crate) fn is_seated(&self) -> bool {
        self.membership
            .seats
            .is_some_and(|seats| self.sits_in(&seats))
    }

    /// No votes for it, and none counted of it.
    pub(crate) fn is_struck(&self, seat: Seat) -> bool {
        self.membership.struck[usize::from(seat.0)]
    }

    /// Asked to vacate: barred from the witness, and never an heir.
    pub(crate) fn is_requested(&self, seat: Seat) -> bool {
        self.membership
            .seats
            .is_some_and(|seats| seats.requested[usize::from(seat.0)])
    }

    /// Whether this node sits in its seat in a map.
    pub(crate) fn sits_in(&self, seats: &Seats) -> bool {
        let own = self.settings.seat.0;
        own < seats.count && seats.occupants[usize::from(own)] == Some(self.settings.occupant)
    }

    /// Goes along with the map that was read last, as far as the votes allow it now.
    pub(crate) fn tend_seats(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(content) = self.witness.content() else {
            return;
        };
        let Some(seats) = self.membership.seats else {
            return self.take_seat(now, &content, effects);
        };
        if self.has_departed() {
            return;
        }
        if !self.sits_in(&content.seats) || content.seats.requested[self.own_index()] {
            return self.leave_seat(now, &content.seats, effects);
        }
        self.follow_count(now, &content.seats, effects);
        let mut seats = self.membership.seats.unwrap_or(seats);
        for seat in self.peer_seats() {
            self.follow(now, seat, &content.seats, &mut seats, effects);
        }
        self.membership.seats = Some(seats);
        for seat in self.peer_seats() {
            self.strike_if_requested(now, seat);
        }
    }

    /// The map to write with a take or renewal of the witness: struck seats are emptied by it (R13 2a).
    pub(crate) fn seats_to_write(&self, read: &Seats) -> Seats {
        let mut seats = *read;
        for seat in self
            .peer_seats()
            .filter(|seat| self.is_to_vacate(*seat, read))
        {
            seats.occupants[usize::from(seat.0)] = None;
            seats.requested[usize::from(seat.0)] = false;
        }
        seats
    }

    /// Whether the Lease still names somebody whom this node has struck, or knows as replaced.
    pub(crate) fn has_to_vacate(&self, read: &Seats) -> bool {
        self.peer_seats().any(|seat| self.is_to_vacate(seat, read))
    }

    /// The first map that has this node in its seat: read, and gone by from now on. Who was asked to leave, and has forgotten
    /// it, leaves at once.
    fn take_seat(&mut self, now: BootTime, content: &LeaseContent, effects: &mut Vec<Effect>) {
        if !self.sits_in(&content.seats) {
            return;
        }
        self.membership.seats = Some(content.seats);
        effects.push(Effect::Notice(Notice::SeatsChanged));
        if content.seats.requested[self.own_index()] {
            self.leave_seat(now, &content.seats, effects);
        }
    }

    /// Takes over what the Lease says of one seat.
    fn follow(
        &mut self,
        now: BootTime,
        seat: Seat,
        read: &Seats,
        seats: &mut Seats,
        effects: &mut Vec<Effect>,
    ) {
        let index = usize::from(seat.0);
        let (old, new) = (seats.occupants[index], read.occupants[index]);
        if new.is_some() && new == self.membership.former[index] {
            return;
        }
        if old == new {
            seats.requested[index] = read.requested[index];
            // The strike stands until a read shows the request withdrawn.
            self.membership.struck[index] &= read.requested[index];
        } else if old.is_none() || self.can_do_without(now, seat) {
            self.forget(seat, old, new);
            seats.occupants[index] = new;
            seats.requested[index] = read.requested[index];
            effects.push(Effect::Notice(Notice::SeatsChanged));
        }
    }

    /// R13 2a: the one remaining node of two strikes the other, once its deadline rests on other votes.
    fn strike_if_requested(&mut self, now: BootTime, seat: Seat) {
        let index = usize::from(seat.0);
        let is_to_strike = self.node_count() == 2
            && self.is_requested(seat)
            && !self.membership.struck[index]
            && holds(Rule::StrikeFirst);
        if is_to_strike && self.can_do_without(now, seat) {
            self.membership.struck[index] = true;
            self.uncount(seat);
        }
    }

    fn can_do_without(&self, now: BootTime, seat: Seat) -> bool {
        self.may_do_with(now, self.authority_without(now, seat))
    }

    /// Who is replaced, or was struck, never comes back. Who is only missing from the map may: a Lease made anew from
    /// an older map lacks whoever came last.
    pub(crate) fn forget(&mut self, seat: Seat, old: Option<Occupant>, new: Option<Occupant>) {
        let index = usize::from(seat.0);
        if old.is_some() {
            if new.is_some() || self.membership.struck[index] {
                self.membership.former[index] = old;
            }
            self.uncount(seat);
        }
        self.membership.struck[index] = false;
        self.peers[index] = Peer::default();
        self.witness.reset_hint();
    }

    fn uncount(&mut self, seat: Seat) {
        if let Some(bid) = &mut self.bid {
            bid.counted[usize::from(seat.0)] = BootTime::default();
        }
    }

    fn is_to_vacate(&self, seat: Seat, read: &Seats) -> bool {
        let index = usize::from(seat.0);
        let is_former = read.occupants[index].is_some()
            && read.occupants[index] == self.membership.former[index];
        let is_struck = if holds(Rule::StrikeFirst) {
            self.membership.struck[index]
        } else {
            read.requested[index]
        };
        self.node_count() == 2 && (is_former || (is_struck && read.requested[index]))
    }

    /// R13: an empty seat is filled, an occupied one requested, by a plain write that keeps the holder.
    pub(crate) fn admission(
        &self,
        now: BootTime,
        seen: &Observation,
    ) -> Option<(Purpose, Option<LeaseContent>)> {
        let content = &seen.lease.content;
        let own = self.own_index();
        let mut written = *content;
        let is_outside = self.settings.seat.0 >= content.seats.count;
        match content.seats.occupants[own] {
            _ if is_outside || self.is_leaving() || self.membership.seats.is_some() => {}
            _ if !self.is_witness_over(now, seen) => {}
            None => {
                written.seats.occupants[own] = Some(self.settings.occupant);
                written.seats.requested[own] = false;
                if content.holder == Holder::Created && self.is_watched(now, seen) {
                    // Nobody counts on a lost Lease any more: the next newcomer need not watch it again.
                    written.holder = Holder::Nobody;
                }
                return Some((Purpose::Seat, Some(written)));
            }
            Some(other) if other != self.settings.occupant && !content.seats.requested[own] => {
                written.seats.requested[own] = true;
                return Some((Purpose::Seat, Some(written)));
            }
            Some(_) => {}
        }
        (now >= self.witness.next_poll_at).then_some((Purpose::Read, None))
    }

    /// A Lease made anew with an odd number may have been made in the midst of a change from an even one: then a hold of the
    /// lost witness may count still, and nobody new votes before it cannot (R9).
    fn is_witness_over(&self, now: BootTime, seen: &Observation) -> bool {
        let content = &seen.lease.content;
        let is_even = content.seats.count.is_multiple_of(2);
        is_even || content.holder != Holder::Created || self.is_watched(now, seen)
    }

    /// R13 2b: the leaver empties its own seat.
    pub(crate) fn vacation(
        &self,
        now: BootTime,
        content: &LeaseContent,
    ) -> Option<(Purpose, Option<LeaseContent>)> {
        if !self.may_vacate_own_seat(now) || !self.sits_in(&content.seats) {
            return None;
        }
        let mut written = if self.is_own(content) {
            self.freed(content)
        } else {
            *content
        };
        // The newcomer votes in its place, and must know of every epoch that it voted for (I2).
        written.epoch = written.epoch.max(self.highest_epoch);
        written.seats.occupants[self.own_index()] = None;
        written.seats.requested[self.own_index()] = false;
        Some((Purpose::Seat, Some(written)))
    }

    pub(crate) fn own_index(&self) -> usize {
        usize::from(self.settings.seat.0)
    }
}
