//! What the rest of the sidecar sees of a node: a copy, taken after a step.

use serde::{Deserialize, Serialize};

use crate::{BootTime, Epoch, Incarnation, MAX_NODES, PeerCondition, Seat, Seats};

/// What a node is.
///
/// ```text
///              quarantine over, seat held        grant free, ready
///  Quarantined ─────────────────────────► Standby ───────────────► Bidding
///                                          ▲ ▲ │ ▲     handover      │ │
///                        yields, no quorum │ │ └─────────────────────┘ │ quorum, and the
///                          └───────────────┘ │                         ▼ deadline is confirmed
///                                            └── Stopping ◄───────── Active
///                       handed over, released                (stops Asterisk before giving up)
///  any ── Leave, or its seat was given away ──► Leaving ──► Left
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Neither votes nor bids: booted within the quarantine, or its seat is not yet its own.
    Quarantined,
    /// Votes; serves nothing.
    Standby,
    /// Asks for votes, or for the deadline that lets it serve.
    Bidding,
    /// Serves, under a confirmed deadline (or starts Asterisk again under the same authority).
    Active,
    /// Has told the guard to stop; gives nothing up before that is confirmed (R4).
    Stopping,
    /// Goes for good; still votes as long as the active needs it.
    Leaving,
    /// Gone: says and grants nothing any more.
    Left,
}

/// A node at one moment.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, told as it is"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What it is.
    pub role: Role,
    /// The epoch of its bid; `None` without one.
    pub epoch: Option<Epoch>,
    /// The highest epoch that it has seen.
    pub highest_epoch: Epoch,
    /// Who serves, as far as it knows.
    pub active: Option<(Seat, Epoch)>,
    /// Until when its votes let it serve; zero without a bid.
    pub authority_until: BootTime,
    /// The kernel's deadline as confirmed.
    pub deadline: Option<BootTime>,
    /// It counts on the witness.
    pub holds_witness: bool,
    /// It serves beyond what its votes carry (`onQuorumLoss: Continue`): another may serve too.
    pub is_without_quorum: bool,
    /// It has lived on the witness alone for so long that it holds it for longer.
    pub is_alone: bool,
    /// The seat map that it goes by; `None`: not read yet.
    pub seats: Option<Seats>,
    /// The number of seats in the Lease is not the configured one.
    pub is_count_mismatched: bool,
    /// Its life.
    pub incarnation: Incarnation,
    /// Until when it is in quarantine.
    pub quarantine_until: BootTime,
    /// The others, by seat.
    pub peers: [PeerView; MAX_NODES],
}

/// A peer at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// When a message of it arrived last.
    pub heard_at: Option<BootTime>,
    /// What it said of itself.
    pub condition: PeerCondition,
    /// Its life; zero when unknown.
    pub incarnation: Incarnation,
    /// This node's vote is given to it.
    pub is_granted: bool,
    /// It has said that it leaves for good.
    pub is_leaving: bool,
}
