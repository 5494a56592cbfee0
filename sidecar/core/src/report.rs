//! The view of a node, for the rest of the sidecar.

use crate::node::Node;
use crate::{BootTime, MAX_NODES, PeerView, Role, Seat, View};

impl Node {
    /// What this node is and knows at `now`.
    pub fn view(&self, now: BootTime) -> View {
        View {
            role: self.role(now),
            epoch: self.bid.map(|bid| bid.epoch),
            highest_epoch: self.highest_epoch,
            active: self.active(),
            authority_until: self.authority(now),
            deadline: self.asterisk.confirmed_deadline(),
            holds_witness: self.bid.is_some_and(|bid| bid.witness_until > now),
            is_without_quorum: self.is_without_quorum(now),
            is_alone: self.is_alone(now),
            seats: self.membership.seats,
            is_count_mismatched: self.is_count_mismatched(),
            incarnation: self.incarnation,
            quarantine_until: self.quarantine_until,
            peers: self.peer_views(),
        }
    }

    fn role(&self, now: BootTime) -> Role {
        if self.is_gone() {
            Role::Left
        } else if self.asterisk.is_stopping() {
            Role::Stopping
        } else if self.bid.is_some_and(|bid| bid.promoted_at.is_some()) {
            Role::Active
        } else if self.is_leaving() {
            Role::Leaving
        } else if self.bid.is_some() {
            Role::Bidding
        } else if self.can_vote(now) {
            Role::Standby
        } else {
            Role::Quarantined
        }
    }

    fn active(&self) -> Option<(Seat, crate::Epoch)> {
        match &self.bid {
            Some(bid) => bid.promoted_at.map(|_| (self.settings.seat, bid.epoch)),
            None => self.known_active,
        }
    }

    fn is_count_mismatched(&self) -> bool {
        let read = self.witness.content().map(|content| content.seats.count);
        let followed = self.membership.seats.map(|seats| seats.count);
        read.or(followed)
            .is_some_and(|count| count != self.settings.nodes)
    }

    fn peer_views(&self) -> [PeerView; MAX_NODES] {
        let mut views = [PeerView::default(); MAX_NODES];
        for seat in self.peer_seats() {
            let peer = self.peer(seat);
            views[usize::from(seat.0)] = PeerView {
                heard_at: peer.heard_at,
                condition: peer.condition,
                incarnation: peer.incarnation,
                is_granted: self.grant.is_some_and(|grant| grant.candidate == seat),
                is_leaving: peer.is_leaving,
            };
        }
        views
    }
}
