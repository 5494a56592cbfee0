//! What enters the core. Everything else it knows, it was told earlier.

use serde::{Deserialize, Serialize};

use crate::{BootTime, Cause, Epoch, LeaseView, Message, Seat};

/// One event, applied by [`crate::Node::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// Time passed: due at [`crate::Node::next_deadline`], harmless at any other moment.
    Tick,
    /// An authenticated datagram.
    Message(Message),
    /// The answer to a call that an effect asked for.
    Api {
        /// Which call.
        call: CallId,
        /// What came of it.
        answer: ApiAnswer,
    },
    /// The guard reports.
    Guard(GuardEvent),
    /// How this node is now; sent on every change.
    Condition(Condition),
    /// A person or a part of the sidecar wants something.
    Command(Command),
}

/// Numbers the calls to the API; one is outstanding at a time (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// What came of an API call. A call that timed out is never answered later (R14).
#[allow(clippy::large_enum_variant, reason = "the core does not allocate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ApiAnswer {
    /// The Lease as read, or as it stands after our write.
    Lease(LeaseView),
    /// There is no Lease (the operator makes it).
    Missing,
    /// Somebody else wrote in between, or the Lease was made anew.
    Conflict,
    /// No answer within the deadline, or an error: the outcome of a write is unknown.
    Failed,
}

/// What the guard confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardEvent {
    /// The kernel's timer stands at this deadline: Asterisk cannot outlive it.
    Armed {
        /// Absolute.
        deadline: BootTime,
    },
    /// Asterisk ended by itself, or by the kernel at its deadline; certainly gone.
    Exited {
        /// When the guard saw it.
        at: BootTime,
    },
    /// Asterisk is certainly not running, as ordered or as found.
    Stopped,
    /// Asterisk runs, as found when the sidecar came back to it.
    Adopted {
        /// The deadline that stands in the kernel; `None`: a standby's, slack.
        deadline: Option<BootTime>,
    },
}

/// How this node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// Asterisk runs, is fully booted, and may be promoted: the shell has seen that the traffic points elsewhere (Pod mode).
    pub is_ready: bool,
    /// The API server answers.
    pub is_api_reachable: bool,
    /// Lower is better; compared before the seat.
    pub rank: u8,
    /// No unplanned move by this node's own decision: neither from it to an heir, nor to it when another falls silent. A first
    /// start, a return to its own role and a restart in place are none.
    pub is_held_back: bool,
}

/// What people and the shell ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Hand over, to this seat or to the best standby.
    Switchover {
        /// `None`: the best.
        to: Option<Seat>,
        /// What history says.
        cause: Cause,
    },
    /// The pod ends: hand over if active, then leave the cluster for good.
    Leave,
    /// Moving the traffic to this node failed within its deadline: hand the role back.
    TrafficFailed {
        /// The promotion concerned.
        epoch: Epoch,
    },
    /// A newer epoch stands where the traffic is written (I2): raise to it.
    SeenEpoch(Epoch),
    /// The Lease has another seat map than this node: read it.
    LookAtSeats,
}
