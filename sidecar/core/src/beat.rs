//! What this node sends: beats, and everything that carries its stamp. The record goes first (R7).

use std::time::Duration;

use crate::bid::Bid;
use crate::grant::Grant;
use crate::node::Node;
use crate::{Body, BootTime, Condition, Effect, Epoch, Message, PeerCondition, Record, Seat};

impl Node {
    /// Every keepalive, to every seat: a beat with a bid, else a sign of life.
    pub(crate) fn tend_beats(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        if now < self.next_beat_at {
            return;
        }
        self.next_beat_at = now.after(self.beat_interval(now));
        let (epoch, body) = match &self.bid {
            Some(bid) => (
                bid.epoch,
                Body::Beat {
                    is_active: self.is_serving(),
                },
            ),
            None if self.is_leaving() => (self.highest_epoch, Body::Leave),
            None => (self.highest_epoch, Body::Hello),
        };
        for seat in self.peer_seats() {
            if body != Body::Hello || self.needs_hello(now, seat) {
                self.send(now, seat, epoch, body, effects);
            }
        }
    }

    /// Any message is a sign of life: a standby that acknowledges every beat says hello by that, at half the packets.
    fn needs_hello(&self, now: BootTime, seat: Seat) -> bool {
        now >= self.hello_due_at(seat)
    }

    /// Half a keepalive late, so that the ack of the next beat, and the hellos that go with it, come first. When no beat comes, hellos
    /// leave as often as ever: whose turn it is to take over goes by them.
    fn hello_due_at(&self, seat: Seat) -> BootTime {
        let timing = &self.settings.timing;
        let told_at = self.peer(seat).told_at;
        let is_since_ack = |grant: Grant| told_at <= grant.given_at(timing);
        let interval = if self.grant.is_some_and(is_since_ack) {
            timing.calm_keepalive()
        } else {
            timing.keepalive
        };
        told_at.after(interval + timing.keepalive / 2)
    }

    /// With the ack of a beat, hello to all others who would soon be greeted anyway: one wake-up for both, here and there.
    pub(crate) fn greet_others(&mut self, now: BootTime, acked: Seat, effects: &mut Vec<Effect>) {
        let timing = self.settings.timing;
        let calm = timing.calm_keepalive();
        let soon = calm.saturating_sub(timing.keepalive / 2);
        for seat in self.peer_seats() {
            let is_due = now >= self.peer(seat).told_at.after(soon);
            if seat != acked && is_due && !self.is_leaving() {
                self.send(now, seat, self.highest_epoch, Body::Hello, effects);
            }
        }
    }

    /// Every peer acknowledged the latest beat of who serves: the next one can wait. As soon as one ack is missing, beats leave
    /// every keepalive again, so that a lossy path is asked as often as ever. What comes after the next beat calms nobody.
    pub(crate) fn calm_down(&mut self, beat_sent_at: BootTime) {
        let timing = &self.settings.timing;
        let counts_until = beat_sent_at.after(self.counted_grant());
        let is_calm = |bid: &Bid| {
            let mut seats = self.peer_seats();
            bid.promoted_at.is_some()
                && seats.all(|seat| bid.counted[usize::from(seat.0)] >= counts_until)
        };
        // No beat has left since, and the next was not postponed yet.
        let is_latest = self.next_beat_at > beat_sent_at
            && self.next_beat_at <= beat_sent_at.after(timing.keepalive);
        if is_latest && self.is_serving() && self.bid.as_ref().is_some_and(is_calm) {
            self.next_beat_at = beat_sent_at.after(timing.calm_keepalive());
        }
    }

    /// What this node is has changed: its peers choose the heir by it, so they hear it at once.
    pub(crate) fn on_condition(&mut self, now: BootTime, condition: Condition) {
        if self.condition == condition {
            return;
        }
        self.condition = condition;
        self.next_beat_at = self.next_beat_at.min(now);
        for peer in &mut self.peers {
            peer.told_at = BootTime::default();
        }
    }

    /// Who only says hello need not wake for it while its acks do.
    fn postpone_hello(&mut self) {
        if self.bid.is_none() && !self.is_leaving() {
            let due_at = self.peer_seats().map(|seat| self.hello_due_at(seat)).min();
            self.next_beat_at = due_at.unwrap_or(self.next_beat_at);
        }
    }

    /// A new candidate asks again soon: a voter's grant to the old active may lapse a moment after its own. So does who serves, after
    /// a calm pause.
    fn beat_interval(&self, now: BootTime) -> Duration {
        let timing = &self.settings.timing;
        let is_new = |bid: Bid| now < bid.origin.decided_at.after(timing.warntime);
        if self.bid.is_some_and(is_new) && self.asterisk.is_idle() {
            timing.rank_delay.min(timing.keepalive)
        } else if self.is_serving() && self.was_calm() {
            timing.calm_patience()
        } else {
            timing.keepalive
        }
    }

    /// The beat that is due was postponed. By when it was planned, not by when it leaves: every timer is a little late.
    fn was_calm(&self) -> bool {
        let keepalive = self.settings.timing.keepalive;
        let mut seats = self.peer_seats();
        seats.any(|seat| self.next_beat_at > self.peer(seat).told_at.after(keepalive))
    }

    /// Whether it claims to serve: what makes a candidate yield (R11).
    pub(crate) fn is_serving(&self) -> bool {
        self.bid.is_some() && !self.asterisk.is_idle() && !self.asterisk.is_stopping()
    }

    /// The same to all other seats but one.
    pub(crate) fn send_to_others(
        &mut self,
        now: BootTime,
        except: Option<Seat>,
        epoch: Epoch,
        body: Body,
        effects: &mut Vec<Effect>,
    ) {
        for seat in self.peer_seats() {
            if Some(seat) != except {
                self.send(now, seat, epoch, body, effects);
            }
        }
    }

    /// One datagram, stamped. What the record must know is written before it leaves (R7).
    pub(crate) fn send(
        &mut self,
        now: BootTime,
        to: Seat,
        epoch: Epoch,
        body: Body,
        effects: &mut Vec<Effect>,
    ) {
        self.save(effects);
        self.peers[usize::from(to.0)].told_at = now;
        self.postpone_hello();
        effects.push(Effect::Send(Message {
            from: self.settings.seat,
            occupant: self.settings.occupant,
            to,
            incarnation: self.incarnation,
            to_incarnation: self.peer(to).incarnation,
            epoch,
            sent_at: now,
            condition: self.told_condition(now),
            body,
        }));
    }

    /// Writes the record if it changed since it was written last.
    pub(crate) fn save(&mut self, effects: &mut Vec<Effect>) {
        let record = Record {
            occupant: self.settings.occupant,
            incarnation: self.incarnation,
            highest_epoch: self.highest_epoch,
            grant: self.grant.map(|grant| {
                (
                    grant.candidate,
                    grant.occupant,
                    grant.incarnation,
                    grant.epoch,
                )
            }),
            bid: self.bid.map(|bid| bid.epoch),
            seats: self.membership.seats,
            struck: self.membership.struck,
            former: self.membership.former,
            has_left: self.has_departed(),
        };
        if self.recorded != Some(record) && self.may_record() {
            self.recorded = Some(record);
            effects.push(Effect::Record(record));
        }
    }

    /// What this node is, for comparison with its peers.
    pub(crate) fn own_condition(&self) -> PeerCondition {
        PeerCondition {
            is_ready: self.condition.is_ready,
            is_api_reachable: self.condition.is_api_reachable,
            rank: self.condition.rank,
        }
    }

    /// What it says of itself: who cannot vote, or leaves, is no heir.
    fn told_condition(&self, now: BootTime) -> PeerCondition {
        let is_ready = self.condition.is_ready && !self.is_leaving() && self.can_vote(now);
        PeerCondition {
            is_ready,
            ..self.own_condition()
        }
    }

    /// A record ends the quarantine of the next life: none is written before this one's is over (R7).
    fn may_record(&self) -> bool {
        self.stepped_at >= self.quarantine_until && (self.is_seated() || self.has_departed())
    }
}
