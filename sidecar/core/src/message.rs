//! What travels between nodes. The shell encrypts and authenticates it (I6); the core trusts what it is given.

use serde::{Deserialize, Serialize};

use crate::{BootTime, Cause, Epoch, Incarnation, Occupant, Seat};

/// One datagram between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's seat.
    pub from: Seat,
    /// Who sits there: a message of somebody who is not in the seat map counts for nothing (R13).
    pub occupant: Occupant,
    /// The receiver's seat.
    pub to: Seat,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The receiver's life as the sender knows it; zero when it knows none.
    pub to_incarnation: Incarnation,
    /// The sender's bid, or the highest epoch it has seen.
    pub epoch: Epoch,
    /// The sender's clock when this left (R2).
    pub sent_at: BootTime,
    /// What the receiver needs to choose an heir.
    pub condition: PeerCondition,
    /// What it says.
    pub body: Body,
}

/// What a node says of itself with every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerCondition {
    /// Asterisk is fully booted and could serve now.
    pub is_ready: bool,
    /// The node could write the Lease and move the traffic now.
    pub is_api_reachable: bool,
    /// Lower is better; compared before the seat.
    pub rank: u8,
}

/// The kinds of message (DESIGN section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// I live, and bid for nothing.
    Hello,
    /// I bid for, or hold, this epoch.
    Beat {
        /// I serve.
        is_active: bool,
    },
    /// I granted the beat that was sent then.
    Ack {
        /// `sent_at` of the beat, the candidate's own clock.
        beat_sent_at: BootTime,
    },
    /// I refuse; `epoch` is the highest that I have seen (R10), or my bid's when I serve.
    Nack {
        /// Why: it decides whether a higher epoch helps.
        because: Refusal,
    },
    /// You are the heir; I am stopped, and my vote is yours (R5).
    Handover {
        /// The heir's own stamp that I heard last: what the vote counts from.
        echo: BootTime,
        /// Why.
        cause: Cause,
        /// How long the cause lay back when this was sent.
        detected_after_us: u32,
    },
    /// My bid for this epoch, or my acceptance of it, is withdrawn.
    Release,
    /// I leave for good: rest your deadline on other votes than mine (R13).
    Leave,
    /// My deadline rests on other votes than yours: you that leave may go.
    Dismiss,
}

/// Why a vote is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The epoch is too low: above mine, you may have my vote, or keep it.
    EpochTooLow,
    /// My vote is another's, or I bid myself: what you may have counted of mine is over (R15).
    Committed,
    /// I serve.
    Serving,
}
