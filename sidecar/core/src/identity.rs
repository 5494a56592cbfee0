//! Who is who: seats, their occupants, lives of an occupant, and the order of active ones.

use serde::{Deserialize, Serialize};

/// The most nodes a cluster can have.
pub const MAX_NODES: usize = 5;

/// A place in the cluster, `0..nodes`: the ordinal of the pod, the position in a bare host's node list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat(pub u8);

/// Who sits in a seat: the UID of the pod, or of the installation on a bare host (R13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Occupant(pub u128);

/// One life of an occupant's sidecar without its record. Grows; chosen by the shell from the wall clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// Orders the actives of a cluster: grows with every promotion, and names one seat (I2). Each seat has numbers of its own (the seat is
/// the remainder by [`MAX_NODES`]), as the ballots of Paxos have: two that know nothing of each other never choose the same.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next one of a seat.
    #[must_use]
    pub fn next_of(self, seat: Seat) -> Self {
        let seats = MAX_NODES as u64;
        let ahead = (u64::from(seat.0) + seats - self.0 % seats) % seats;
        Self(self.0 + if ahead == 0 { seats } else { ahead })
    }
}
