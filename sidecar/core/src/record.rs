//! What a node must remember across a restart of its sidecar (R4, R7).

use serde::{Deserialize, Serialize};

use crate::{Epoch, Incarnation, MAX_NODES, Occupant, Seat, Seats};

/// Written to tmpfs before the grant that it tells of leaves. Holds no times: a grant that is found counts a whole T from the restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Whose record: another occupant's is ignored.
    pub occupant: Occupant,
    /// The life that goes on.
    pub incarnation: Incarnation,
    /// The highest epoch seen.
    pub highest_epoch: Epoch,
    /// The vote given to a peer.
    pub grant: Option<(Seat, Occupant, Incarnation, Epoch)>,
    /// The own bid.
    pub bid: Option<Epoch>,
    /// The seat map as last recorded, and the seats that were struck.
    pub seats: Option<Seats>,
    /// Struck seats (R13 2a).
    pub struck: [bool; MAX_NODES],
    /// Who sat in each seat last and was replaced: never let in again, whatever an older Lease says (R9).
    pub former: [Option<Occupant>; MAX_NODES],
    /// Stopped, never to vote again (R13 2b).
    pub has_left: bool,
}
