//! The safety rules that a test can drop, to see that the simulation notices (feature `mutation`).
//!
//! Without the feature every rule holds, as a constant: nothing of this is left in the product.

/// A safety rule, named where it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R1: what a candidate counts on is shorter than what a voter keeps; what one waits for is longer.
    DriftMargin,
    /// R2: votes count from the send time of what was answered.
    SendTime,
    /// R4: Asterisk is confirmed stopped before anything is given up.
    StopFirst,
    /// R6: a live grant is not given to another.
    OneGrant,
    /// R7: who booted without a record waits.
    Quarantine,
    /// R8: the witness is freed only when the deadline rests on other votes.
    FreeCovered,
    /// R9: another's hold is observed before it is taken.
    WatchHold,
    /// R13: the old occupant is struck before its seat is emptied.
    StrikeFirst,
    /// R15: who hears one that serves under a higher epoch, or that its votes are another's, stops at once.
    HeedRivals,
}

#[cfg(not(feature = "mutation"))]
pub(crate) const fn holds(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "mutation")]
pub use mutation::drop_rule;
#[cfg(feature = "mutation")]
pub(crate) use mutation::{all_hold, holds};

/// Whether no rule is dropped: only then do the invariants have to hold.
#[cfg(not(feature = "mutation"))]
pub(crate) const fn all_hold() -> bool {
    true
}

#[cfg(feature = "mutation")]
mod mutation {
    use std::cell::Cell;

    use super::Rule;

    thread_local!(static DROPPED: Cell<Option<Rule>> = const { Cell::new(None) });

    /// Drops one rule, or none, for all nodes of this thread.
    pub fn drop_rule(rule: Option<Rule>) {
        DROPPED.set(rule);
    }

    pub(crate) fn holds(rule: Rule) -> bool {
        DROPPED.get() != Some(rule)
    }

    pub(crate) fn all_hold() -> bool {
        DROPPED.get().is_none()
    }
}
