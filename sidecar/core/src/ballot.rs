//! The votes of a node at one moment, in full: what the flight recorder needs to say why. No decision is made from it.

use std::time::Duration;

use crate::node::Node;
use crate::{BootTime, Cause, Epoch, MAX_NODES, Seat};

/// What a node bids, has granted and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Its own bid.
    pub bid: Option<BidView>,
    /// The vote it has given to a peer: to whom, for which epoch, until when.
    pub grant: Option<(Seat, Epoch, BootTime)>,
    /// Whom it handed the role to, until that one beats.
    pub heir: Option<(Seat, Epoch)>,
    /// The latest deadline that the guard was told.
    pub ordered_deadline: Option<BootTime>,
    /// The latest deadline that the kernel is known to keep.
    pub confirmed_deadline: Option<BootTime>,
    /// Votes that make a majority.
    pub quorum: usize,
    /// Votes that there are, the witness's included.
    pub voters: usize,
    /// Silence of a peer that is worth acting on.
    pub warntime: Duration,
}

/// A bid, and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BidView {
    /// What it bids for.
    pub epoch: Epoch,
    /// Why.
    pub cause: Cause,
    /// Who was active before, as far as it knows.
    pub from: Option<Seat>,
    /// From the cause to the decision.
    pub detection: Duration,
    /// Until when each peer's vote counts; past or zero: it does not.
    pub counted: [BootTime; MAX_NODES],
    /// Until when the witness counts.
    pub witness_until: BootTime,
}

impl Node {
    /// When it made its last step.
    pub fn stepped_at(&self) -> BootTime {
        self.stepped_at
    }

    /// The votes as they stand.
    pub fn ballot(&self) -> Ballot {
        let bid = self.bid.as_ref();
        Ballot {
            bid: bid.map(|bid| BidView {
                epoch: bid.epoch,
                cause: bid.origin.cause,
                from: bid.origin.from,
                detection: bid.origin.detection,
                counted: bid.counted,
                witness_until: bid.witness_until,
            }),
            grant: self
                .grant
                .map(|grant| (grant.candidate, grant.epoch, grant.expires_at)),
            heir: self.heir.map(|heir| (heir.seat, heir.epoch)),
            ordered_deadline: self.asterisk.latest_deadline(),
            confirmed_deadline: self.asterisk.confirmed_deadline(),
            quorum: self.quorum(),
            voters: self.voters(),
            warntime: self.settings.timing.warntime,
        }
    }
}
