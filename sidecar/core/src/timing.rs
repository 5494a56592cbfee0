//! The timing rules, and the margins that R1 derives from them.

use std::time::Duration;

/// All durations of the protocol. Made once, checked by [`Timing::problems`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A beat leaves this often.
    pub keepalive: Duration,
    /// Silence of a peer that is worth acting on: the witness is looked at, the heir is not chosen.
    pub warntime: Duration,
    /// T: how long a voter keeps a grant after the last beat.
    pub deadtime: Duration,
    /// T_w: how long a hold of the witness counts.
    pub witness_hold: Duration,
    /// T_w': the same for an active that is alone.
    pub witness_hold_alone: Duration,
    /// A call to the API fails after it.
    pub api_deadline: Duration,
    /// Above the longest time from the kernel's timer to a dead Asterisk.
    pub kill_margin: Duration,
    /// When an orderly stop begins before the authority ends; above `kill_margin`.
    pub stop_margin: Duration,
    /// By how much a lesser candidate defers, per rank; above a round trip.
    pub rank_delay: Duration,
    /// Bound on the rate of a node's clock, in parts per million (rho).
    pub clock_drift_ppm: u32,
}
