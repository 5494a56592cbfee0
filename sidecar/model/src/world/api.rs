//! The API server: one Lease, compare-and-swap by uid and version.

use pbx_core::{
    ApiAnswer, ApiCall, Epoch, Holder, LeaseContent, LeaseView, MAX_NODES, Occupant, Seats,
};
use std::time::Duration;

/// The store, and what it was asked for.
pub struct Api {
    /// The object, while there is one.
    pub lease: Option<LeaseView>,
    /// GETs so far.
    pub reads: u64,
    /// Writes so far that took effect.
    pub writes: u64,
    next_uid: u128,
    next_version: u64,
}

impl Api {
    /// As the operator makes it: free, since nobody can count on an earlier one; all seats empty.
    pub fn new(count: u8, hold: Duration) -> Self {
        let mut api = Self {
            lease: None,
            reads: 0,
            writes: 0,
            next_uid: 1,
            next_version: 1,
        };
        api.create(Self::empty_seats(count), Epoch(0), hold);
        api.free();
        api
    }

    /// Nobody sits yet.
    pub fn empty_seats(count: u8) -> Seats {
        Seats {
            count,
            occupants: [None; MAX_NODES],
            requested: [false; MAX_NODES],
        }
    }

    /// A Lease with another UID: a pseudo-holder that has to be observed.
    pub fn create(&mut self, seats: Seats, epoch: Epoch, hold: Duration) {
        let content = LeaseContent {
            holder: Holder::Created,
            epoch,
            hold,
            seats,
        };
        self.lease = Some(LeaseView {
            uid: self.next_uid,
            version: self.next_version,
            content,
        });
        self.next_uid += 1;
        self.next_version += 1;
    }

    /// One call.
    pub fn apply(&mut self, call: &ApiCall) -> ApiAnswer {
        let Some(lease) = &mut self.lease else {
            return ApiAnswer::Missing;
        };
        match call {
            ApiCall::Read => {
                self.reads += 1;
                ApiAnswer::Lease(*lease)
            }
            ApiCall::Write(write) if (write.uid, write.version) == (lease.uid, lease.version) => {
                self.writes += 1;
                assert!(
                    write.content.epoch >= lease.content.epoch,
                    "I2: epochs in the Lease grow"
                );
                lease.version = self.next_version;
                self.next_version += 1;
                lease.content = write.content;
                ApiAnswer::Lease(*lease)
            }
            ApiCall::Write(_) => ApiAnswer::Conflict,
        }
    }

    /// The operator empties the seat of an occupant that is certainly dead (R13 2c); the holder is kept.
    pub fn vacate(&mut self, seat: usize, occupant: Occupant) {
        if let Some(lease) = &mut self.lease {
            assert_eq!(lease.content.seats.occupants[seat], Some(occupant));
            lease.content.seats.occupants[seat] = None;
            lease.content.seats.requested[seat] = false;
            lease.version = self.next_version;
            self.next_version += 1;
        }
    }

    /// Nobody can count on an earlier one.
    pub fn free(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.content.holder = Holder::Nobody;
        }
    }

    /// The operator changes the number of seats (R13).
    pub fn set_count(&mut self, count: u8) {
        if let Some(lease) = &mut self.lease {
            if count > lease.content.seats.count {
                lease.content.holder = Holder::Nobody;
            }
            lease.content.seats.count = count;
            for occupant in &mut lease.content.seats.occupants[usize::from(count)..] {
                *occupant = None;
            }
            lease.version = self.next_version;
            self.next_version += 1;
        }
    }

    /// Whether a node holds the witness.
    pub fn is_held(&self) -> bool {
        self.lease
            .is_some_and(|lease| matches!(lease.content.holder, Holder::Node { .. }))
    }
}
