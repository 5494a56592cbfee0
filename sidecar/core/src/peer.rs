//! What a node knows of the others, and what it takes from a datagram before any rule looks at it.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::rivals::Claim;
use crate::{Body, BootTime, Effect, Incarnation, Message, Occupant, PeerCondition, Refusal, Seat};

/// A peer, by seat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) occupant: Option<Occupant>,
    pub(crate) incarnation: Incarnation,
    /// Its newest stamp: what a handover echoes (R5).
    pub(crate) last_sent_at: BootTime,
    pub(crate) heard_at: Option<BootTime>,
    /// When this node said anything to it last.
    pub(crate) told_at: BootTime,
    pub(crate) condition: PeerCondition,
    /// Since when it has said without a break that it is ready.
    pub(crate) ready_since: Option<BootTime>,
    pub(crate) is_leaving: bool,
}

impl Peer {
    /// Whether it was heard less than `duration` ago.
    pub(crate) fn is_heard_within(&self, now: BootTime, duration: Duration) -> bool {
        self.heard_at
            .is_some_and(|heard_at| now.since(heard_at) < duration)
    }

    /// How it compares with the newest that was heard of it before: only what is not older says what is so now.
    fn age_of(&self, message: &Message) -> Ordering {
        if self.is_same_life(message) {
            message.sent_at.cmp(&self.last_sent_at)
        } else {
            Ordering::Greater
        }
    }

    fn is_same_life(&self, message: &Message) -> bool {
        self.occupant == Some(message.occupant) && self.incarnation == message.incarnation
    }

    /// How much longer than the newest before it a message of the life that is known was on its way, at least: both clocks may be as far
    /// off their rate as is allowed.
    fn delay_of(&self, now: BootTime, message: &Message, clock_drift_ppm: u32) -> Duration {
        let Some(heard_at) = self.heard_at else {
            return Duration::ZERO;
        };
        let sent_after = message.sent_at.since(self.last_sent_at);
        let drift = sent_after * 2 / 1_000_000 * clock_drift_ppm;
        now.since(heard_at).saturating_sub(sent_after + drift)
    }

    fn note(&mut self, now: BootTime, message: &Message) {
        if self.occupant != Some(message.occupant) || message.incarnation > self.incarnation {
            *self = Self {
                last_sent_at: message.sent_at,
                ..Self::default()
            };
        }
        self.occupant = Some(message.occupant);
        self.incarnation = message.incarnation;
        self.heard_at = Some(now);
        if message.sent_at < self.last_sent_at {
            return;
        }
        self.last_sent_at = message.sent_at;
        self.condition = message.condition;
        let is_ready = message.condition.is_ready;
        self.ready_since = is_ready.then_some(self.ready_since.unwrap_or(now));
    }
}

impl Node {
    /// A datagram: noted, and obeyed only if it was written to this very life, out of quarantine, by a member.
    pub(crate) fn on_message(
        &mut self,
        now: BootTime,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        let is_for_us = message.to == self.settings.seat && message.from != self.settings.seat;
        if !is_for_us {
            return;
        }
        if message.from.0 >= self.node_count() || !self.is_member(message) {
            return self.witness.hint(now);
        }
        self.rise_above_former_life(now, message, effects);
        let peer = &mut self.peers[usize::from(message.from.0)];
        if peer.occupant == Some(message.occupant) && message.incarnation < peer.incarnation {
            return;
        }
        let age = peer.age_of(message);
        let timing = &self.settings.timing;
        let is_known_life = peer.is_same_life(message);
        let is_overdue = peer.delay_of(now, message, timing.clock_drift_ppm) > timing.deadtime;
        let claim = Claim {
            serves: false,
            // A life begins with a quarantine of hellos. What comes out of the blue may be late, of one that has ended.
            is_newest: is_known_life && age == Ordering::Greater,
            is_doubtful: !is_known_life || is_overdue,
        };
        peer.note(now, message);
        if message.to_incarnation != self.incarnation {
            // Who was struck hears it nowhere else: to others, another sits in this seat, or nobody.
            return self.witness.hint(now);
        }
        if self.can_vote(now) {
            if age != Ordering::Less {
                self.heed(now, message, claim, effects);
            }
            self.obey(now, message, effects);
        }
    }

    /// The peer in a seat.
    pub(crate) fn peer(&self, seat: Seat) -> &Peer {
        &self.peers[usize::from(seat.0)]
    }

    /// The seats of the others.
    pub(crate) fn peer_seats(&self) -> impl Iterator<Item = Seat> + use<> {
        let own = self.settings.seat;
        (0..self.node_count())
            .map(Seat)
            .filter(move |seat| *seat != own)
    }

    /// Whether a peer would serve better than this node.
    pub(crate) fn is_better(&self, seat: Seat) -> bool {
        let peer = self.peer(seat).condition;
        self.standing(peer, seat) < self.standing(self.own_condition(), self.settings.seat)
    }

    /// How well a node could serve; less is better.
    pub(crate) fn standing(
        &self,
        condition: PeerCondition,
        seat: Seat,
    ) -> (bool, bool, u8, bool, Seat) {
        let lacks_api = self.settings.traffic_needs_api && !condition.is_api_reachable;
        let is_preferred = self.settings.preferred_seat == Some(seat);
        (
            !condition.is_ready,
            lacks_api,
            condition.rank,
            !is_preferred,
            seat,
        )
    }

    /// R15, before any other rule: what it says of its vote.
    fn heed(&mut self, now: BootTime, message: &Message, claim: Claim, effects: &mut Vec<Effect>) {
        let serves = match message.body {
            Body::Beat { is_active } => is_active,
            Body::Nack { because } if because != Refusal::EpochTooLow => {
                because == Refusal::Serving
            }
            _ => return,
        };
        self.heed_rival(now, message, Claim { serves, ..claim }, effects);
    }

    fn obey(&mut self, now: BootTime, message: &Message, effects: &mut Vec<Effect>) {
        match message.body {
            Body::Beat { is_active } if !self.is_struck(message.from) => {
                self.on_beat(now, message, is_active, effects);
            }
            Body::Hello | Body::Beat { .. } => {}
            Body::Ack { beat_sent_at } => self.on_ack(now, message, beat_sent_at),
            Body::Nack { because } => self.on_nack(now, message, because, effects),
            Body::Handover {
                echo,
                cause,
                detected_after_us,
            } => {
                let detected_after = Duration::from_micros(detected_after_us.into());
                self.on_handover(now, message, echo, (cause, detected_after), effects);
            }
            Body::Release => self.on_release(now, message),
            Body::Leave => self.on_leave(now, message, effects),
            Body::Dismiss => self.on_dismiss(message),
        }
    }

    /// R13: a life goes above any that its seat is addressed with, or peers would never listen to it (the wall clock
    /// may have gone back). It forgets nothing by that, so its votes stay given and its own bid keeps what it counts;
    /// voters take its new name for another candidate, until what they gave to the old one lapses.
    fn rise_above_former_life(
        &mut self,
        now: BootTime,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        if message.to_incarnation <= self.incarnation {
            return;
        }
        self.former_incarnation = Some(self.incarnation);
        self.incarnation = Incarnation(message.to_incarnation.0 + 1);
        if self.bid.is_some() {
            self.raise_epoch(now, effects);
        }
    }

    /// R13: who is not in the seat map counts for nothing. Before the map is read, nobody is known.
    fn is_member(&self, message: &Message) -> bool {
        match &self.membership.seats {
            Some(seats) => seats.occupants[usize::from(message.from.0)] == Some(message.occupant),
            None => true,
        }
    }
}
