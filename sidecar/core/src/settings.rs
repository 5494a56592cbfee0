//! What a node is given once: its place, its timing, and what it finds when it starts.

use serde::{Deserialize, Serialize};

use crate::{BootTime, Incarnation, Occupant, Record, Seat, Seats, Timing};

/// What does not change while the sidecar runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// This node's place.
    pub seat: Seat,
    /// Who this node is.
    pub occupant: Occupant,
    /// The configured number of nodes, 2 to 5. The number in the Lease wins over it.
    pub nodes: u8,
    /// All durations; the shell has refused what [`Timing::problems`] names.
    pub timing: Timing,
    /// Pod mode: who cannot reach the API could not move the traffic, and is no heir.
    pub traffic_needs_api: bool,
    /// The node that takes the role back when it is ready again; `None`: no failback.
    pub preferred_seat: Option<Seat>,
    /// What the active does when its votes end.
    pub on_quorum_loss: OnQuorumLoss,
    /// Bare hosts without an API server: the seats are configured, no Lease is read or written.
    /// Needs an odd number of nodes, since there is no witness.
    pub fixed_seats: Option<Seats>,
}

/// What the active does when it has no quorum any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnQuorumLoss {
    /// It stops in time: at most one serves, whatever fails.
    #[default]
    Demote,
    /// It goes on, by its own decision: two can serve, until they hear each other (R15).
    Continue,
}

/// What a sidecar finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Start {
    /// The node's clock.
    pub now: BootTime,
    /// The life to begin if there is no record: nanoseconds of the wall clock, so that it is new.
    pub incarnation: Incarnation,
    /// The record of the same boot, if any (R7).
    pub record: Option<Record>,
    /// What the guard says.
    pub guard: FoundAtStart,
}

/// What the guard says to a sidecar that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FoundAtStart {
    /// Asterisk does not run.
    Nothing,
    /// Asterisk runs.
    Running {
        /// The kernel's deadline; `None`: slack, a standby's.
        deadline: Option<BootTime>,
    },
}
