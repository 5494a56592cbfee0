//! What leaves the core, in the order in which it must happen.

use serde::{Deserialize, Serialize};

use crate::{BootTime, CallId, Cause, Epoch, LeaseWrite, Message, Record, Seat};

/// One thing for the shell to do. The shell carries out all effects of a step, in order, before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// Write the record (tmpfs) before anything that follows (R7).
    Record(Record),
    /// Send a datagram to the seat in `message.to`.
    Send(Message),
    /// Call the API; the answer comes back as [`crate::Input::Api`].
    Call {
        /// Names the answer.
        id: CallId,
        /// What to do.
        call: ApiCall,
    },
    /// Arm the leash: Asterisk may serve until then and no longer. Confirmed by [`crate::GuardEvent::Armed`].
    /// It also extends a [`Effect::RestartInPlace`] that the shell has not carried out yet. A shell that
    /// reports a stopped Asterisk as ready (a cold standby) starts it, armed.
    Arm {
        /// Absolute.
        deadline: BootTime,
    },
    /// Kill Asterisk. Confirmed by [`crate::GuardEvent::Stopped`].
    Stop,
    /// Start Asterisk again here, already armed: the authority lasts, and no heir could do better.
    RestartInPlace {
        /// The start is refused after it (R3).
        deadline: BootTime,
    },
    /// Something the rest of the sidecar acts on.
    Notice(Notice),
}

/// A call to the API server.
#[allow(clippy::large_enum_variant, reason = "the core does not allocate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ApiCall {
    /// GET of the Lease without a resourceVersion (R14).
    Read,
    /// A write of the Lease, bound to the resourceVersion that it was read with.
    Write(LeaseWrite),
}

/// What happened, for traffic, trunks, history and doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Notice {
    /// This node serves: authority held and the kernel's deadline confirmed.
    Promoted {
        /// The epoch it serves under.
        epoch: Epoch,
        /// Who was active before, as far as this node knows.
        from: Option<Seat>,
        /// Why.
        cause: Cause,
        /// From the cause (or its last sign of life) to the decision, microseconds.
        detection_us: u64,
        /// From the decision to the confirmed deadline, microseconds.
        promotion_us: u64,
    },
    /// This node serves no longer.
    Demoted {
        /// The epoch it served under.
        epoch: Epoch,
        /// Why.
        cause: Cause,
    },
    /// The active raised its own epoch and kept its votes (R10): not a failover.
    EpochRaised {
        /// The new one.
        epoch: Epoch,
    },
    /// Asterisk is started again in place, under the same authority.
    RestartedInPlace {
        /// The epoch that goes on.
        epoch: Epoch,
        /// Why there was no handover.
        reason: Suppression,
    },
    /// The sidecar came back to an active that it knows from its record: it goes on serving under this
    /// epoch. The shell makes sure that the traffic points here.
    Resumed {
        /// The epoch that goes on.
        epoch: Epoch,
    },
    /// A switchover that was asked for does not happen; the active goes on.
    SwitchoverRefused {
        /// Why.
        reason: Suppression,
    },
    /// Somebody sits in a seat anew, or a seat was emptied.
    SeatsChanged,
    /// This node has left: stopped, its seat given up or its leave told; the sidecar may end.
    Left,
}

/// Why a move that could have happened did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Suppression {
    /// No peer answered within warntime.
    NoHeir,
    /// The only heirs are not ready.
    HeirNotReady,
    /// The heir could not move the traffic.
    HeirWithoutApi,
    /// This node is not the active, or is already giving the role up.
    NotActive,
    /// The heir is not healthier than this node.
    HeirSicker,
    /// Unplanned moves are held back.
    HeldBack,
}
