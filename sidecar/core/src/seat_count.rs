//! The number of seats, and how it changes while the cluster serves (R13).
//!
//! Two nodes with the witness are three voters, and so are three nodes; four with the witness are five, and so are five nodes. Within
//! such a pair the quorum stays as it is, and one vote changes hands:
//!
//! ```text
//!   {0, 1, W} ── the number is raised over a free Lease: W is retired ──► {0, 1, empty} ── filled ──► {0, 1, 2}
//!   {0, 1, W} ◄── the number is lowered, W is free ── {0, 1, empty} ◄── 2 leaves for good, Tq after its last vote ──┘
//! ```
//!
//! The number stands in the Lease and is changed there by compare-and-swap, by the operator alone, and only when the vote that
//! goes is certainly over: nobody holds the witness, or nobody sits in the last seat. So each node may follow late, or never: by
//! the old number it counts nothing but a vote that is over, and the votes that both numbers share.
//!
//! What is not here: from three nodes to four and back, which changes the quorum itself.

use crate::node::Node;
use crate::{BootTime, Effect, Notice, Seat, Seats};

impl Node {
    /// The shell has read a map that is not the one that this node goes by.
    pub(crate) fn on_look_at_seats(&mut self) {
        self.witness.hinted = true;
    }

    /// Goes along with the number that was read, when the deadline rests on votes that stay.
    pub(crate) fn follow_count(&mut self, now: BootTime, read: &Seats, effects: &mut Vec<Effect>) {
        let Some(seats) = self.membership.seats else {
            return;
        };
        if read.count == seats.count || voters_of(read.count) != voters_of(seats.count) {
            return;
        }
        let is_followed = if read.count > seats.count {
            self.retire_witness(now)
        } else {
            self.give_up_seat(now, Seat(seats.count - 1), read)
        };
        if !is_followed {
            return;
        }
        if let Some(seats) = &mut self.membership.seats {
            seats.count = read.count;
        }
        self.witness.reset_hint();
        effects.push(Effect::Notice(Notice::SeatsChanged));
    }

    /// Whether the map that was read has as many seats: only then is the witness's vote what this node takes it for.
    pub(crate) fn agrees_on_count(&self, read: &Seats) -> bool {
        read.count == self.node_count()
    }

    fn retire_witness(&mut self, now: BootTime) -> bool {
        let is_covered = self.may_do_with(now, self.authority_of_nodes(now));
        if is_covered {
            self.uncount_witness();
        }
        is_covered
    }

    fn give_up_seat(&mut self, now: BootTime, last: Seat, read: &Seats) -> bool {
        let index = usize::from(last.0);
        let is_covered = self.may_do_with(now, self.authority_without(now, last));
        if !is_covered || read.occupants[index].is_some() {
            return false;
        }
        let Some(seats) = &mut self.membership.seats else {
            return false;
        };
        let old = seats.occupants[index].take();
        seats.requested[index] = false;
        self.forget(last, old, None);
        true
    }
}

/// The nodes, and the witness of an even number.
pub(crate) fn voters_of(count: u8) -> u8 {
    count + u8::from(count.is_multiple_of(2))
}
