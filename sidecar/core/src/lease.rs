//! The Kubernetes Lease as the core sees it: the witness, and the seat map (R9, R13).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Incarnation, MAX_NODES, Occupant, Seat};

/// The Lease as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The object's UID: a Lease made anew is another Lease (R9).
    pub uid: u128,
    /// Its resourceVersion.
    pub version: u64,
    /// What it says.
    pub content: LeaseContent,
}

/// A write, valid only on the version it is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseWrite {
    /// UID of the object read.
    pub uid: u128,
    /// resourceVersion read.
    pub version: u64,
    /// The new content.
    pub content: LeaseContent,
}

/// What the Lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseContent {
    /// Who holds the witness.
    pub holder: Holder,
    /// The highest epoch that was written.
    pub epoch: Epoch,
    /// How long the holder counts on it from its send time; others observe it `r` times as long.
    pub hold: Duration,
    /// The seats: the configured number of them, never the live one.
    pub seats: Seats,
}

/// Who holds the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// Free: whoever bids may take it.
    Nobody,
    /// The operator made the Lease anew: observe it for `hold * r` (R9).
    Created,
    /// A node, in one life.
    Node {
        /// Its seat.
        seat: Seat,
        /// Its identity.
        occupant: Occupant,
        /// Its life.
        incarnation: Incarnation,
    },
}

/// Who sits where, and who is asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seats {
    /// The configured number of nodes.
    pub count: u8,
    /// The occupant of each seat; `None`: empty, to be filled by a plain CAS.
    pub occupants: [Option<Occupant>; MAX_NODES],
    /// Seats whose occupant is requested to vacate: it is barred from the witness, and leaves for good on reading this.
    pub requested: [bool; MAX_NODES],
}
