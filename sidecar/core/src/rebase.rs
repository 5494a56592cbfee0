//! For the model checker alone (feature `model`): the same node, seen from another moment.
//!
//! Two nodes that differ only in how long ago everything happened behave alike. So the checker keeps every node's clock
//! at one value, and moves all stamps back when time passes. What lies so far back that no rule asks for it is set to
//! one value, what only the history is told is forgotten, calls are numbered anew: then the space of states is finite.

use std::time::Duration;

use crate::node::Node;
use crate::{BootTime, CallId, Cause, MAX_NODES, Timing};

/// From where the node is to be seen.
pub struct Rebase<'a> {
    /// The node's clock, as it will show.
    pub now: BootTime,
    /// How far its own stamps go back.
    pub by: Duration,
    /// How far the stamps of the peer in each seat go back: their clocks may run at other rates.
    pub peers_by: [Duration; MAX_NODES],
    /// New numbers for the Lease's versions, in the same order.
    pub version: &'a dyn Fn(u64) -> u64,
}

impl Rebase<'_> {
    /// A stamp of the node's own; all that is at least `horizon` old is alike.
    pub(crate) fn own(&self, at: BootTime, horizon: Duration) -> BootTime {
        moved(at, self.by).max(self.now.before(horizon))
    }

    fn due(&self, at: BootTime) -> BootTime {
        self.own(at, Duration::ZERO)
    }
}

/// A stamp that much earlier; never stays never.
pub fn moved(at: BootTime, by: Duration) -> BootTime {
    if at == BootTime::FAR_FUTURE {
        at
    } else {
        at.before(by)
    }
}

/// How long silence of the API, a restart and an API backoff matter.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3);
/// The backoff of calls grows no further.
const MOST_FAILURES: u32 = 6;

impl Node {
    /// The open call to the API, by its number.
    pub fn open_call(&self) -> Option<CallId> {
        self.witness.call.map(|call| call.id)
    }

    /// The version of the Lease that it saw last.
    pub fn seen_version(&self) -> Option<u64> {
        self.witness.seen.map(|seen| seen.lease.version)
    }

    /// Moves all its stamps. The number of an open call becomes 1.
    pub fn rebase(&mut self, rebase: &Rebase<'_>) {
        let timing = self.settings.timing;
        self.stepped_at = rebase.now;
        self.booted_at = rebase.own(self.booted_at, timing.quarantine());
        self.last_granted_at = rebase.own(self.last_granted_at, timing.quarantine());
        let deferral = timing.rank_delay * MAX_NODES as u32;
        self.quarantine_until = rebase.own(self.quarantine_until, deferral);
        self.may_bid_at = rebase.own(self.may_bid_at, deferral);
        self.next_beat_at = rebase.due(self.next_beat_at);
        self.vacancy.cause = Cause::Startup;
        self.vacancy.from = None;
        self.vacancy.since = rebase.now;
        self.known_active = None;
        self.rebase_votes(rebase, &timing);
        self.rebase_peers(rebase, &timing);
        self.rebase_witness(rebase, &timing);
        self.asterisk
            .rebase(rebase, timing.kill_margin * 2, LONGEST_PATIENCE);
        if let Some(leaving) = &mut self.leaving {
            leaving.rebase(rebase, timing.deadtime * 5 + LONGEST_PATIENCE);
        }
    }

    fn rebase_votes(&mut self, rebase: &Rebase<'_>, timing: &Timing) {
        let vote = |at: BootTime| rebase.own(at, timing.kill_margin);
        if let Some(grant) = &mut self.grant {
            grant.expires_at = vote(grant.expires_at);
        }
        if let Some(heir) = &mut self.heir {
            heir.rebase(rebase);
        }
        if let Some(bid) = &mut self.bid {
            bid.fruitful_at = rebase.own(bid.fruitful_at, timing.deadtime);
            bid.counted = bid.counted.map(vote);
            bid.witness_until = vote(bid.witness_until);
            bid.origin.cause = Cause::Startup;
            bid.origin.from = None;
            bid.origin.detection = Duration::ZERO;
            bid.origin.decided_at = rebase.own(bid.origin.decided_at, timing.warntime);
            bid.raise_at = bid.raise_at.map(|at| rebase.due(at));
            bid.promoted_at = bid.promoted_at.map(|_| rebase.now);
        }
    }

    fn rebase_peers(&mut self, rebase: &Rebase<'_>, timing: &Timing) {
        let silence = timing.silence().max(timing.keepalive * 3);
        for (peer, by) in self.peers.iter_mut().zip(rebase.peers_by) {
            peer.heard_at = peer.heard_at.map(|at| rebase.own(at, silence));
            // Beyond the latest hello.
            peer.told_at = rebase.own(peer.told_at, timing.keepalive * 4);
            peer.last_sent_at =
                moved(peer.last_sent_at, by).max(rebase.now.before(timing.deadtime));
            peer.ready_since = None;
        }
    }

    fn rebase_witness(&mut self, rebase: &Rebase<'_>, timing: &Timing) {
        let witness = &mut self.witness;
        let longest_hold = timing.observed_hold(timing.witness_hold_alone * 2);
        witness.next_id = CallId(1);
        if let Some(call) = &mut witness.call {
            call.id = CallId(1);
            call.sent_at = rebase.own(call.sent_at, timing.deadtime);
            witness.next_id = CallId(2);
        }
        if let Some(seen) = &mut witness.seen {
            seen.since = rebase.own(seen.since, longest_hold);
            seen.lease.version = (rebase.version)(seen.lease.version);
        }
        witness.next_call_at = rebase.due(witness.next_call_at);
        witness.next_poll_at = rebase.due(witness.next_poll_at);
        witness.next_hint_at = rebase.due(witness.next_hint_at);
        let patience = timing.deadtime * 5;
        witness.renewed_at = witness
            .renewed_at
            .map(|at| rebase.own(at, timing.witness_hold_alone));
        witness.wanted_since = witness.wanted_since.map(|at| rebase.own(at, patience));
        witness.answered_at = witness
            .answered_at
            .map(|at| rebase.own(at, LONGEST_PATIENCE));
        witness.failures = witness.failures.min(MOST_FAILURES);
    }
}
