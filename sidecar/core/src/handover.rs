//! The handover: the vote goes to the heir in one packet (R5, R12), and the heir's side of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::asterisk::AfterStop;
use crate::bid::{Origin, Vacancy};
use crate::node::Node;
use crate::rule::{Rule, holds};
use crate::{Body, BootTime, Cause, Effect, Epoch, Message, Notice, Seat, Suppression};

/// Whom the vote was handed to, until it beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Heir {
    pub(crate) seat: Seat,
    pub(crate) epoch: Epoch,
    pub(crate) next_send_at: BootTime,
    cause: Cause,
    since: BootTime,
}

#[cfg(feature = "model")]
impl Heir {
    pub(crate) fn rebase(&mut self, rebase: &crate::Rebase<'_>) {
        self.next_send_at = rebase.own(self.next_send_at, Duration::ZERO);
        self.cause = Cause::Startup;
        self.since = rebase.now;
    }
}

impl Node {
    /// A person, or a part of the sidecar, wants another to be active.
    pub(crate) fn on_switchover(
        &mut self,
        now: BootTime,
        to: Option<Seat>,
        cause: Cause,
        effects: &mut Vec<Effect>,
    ) {
        let is_serving = self.bid.is_some_and(|bid| bid.promoted_at.is_some());
        if !is_serving || self.asterisk.is_stopping() {
            let reason = Suppression::NotActive;
            return effects.push(Effect::Notice(Notice::SwitchoverRefused { reason }));
        }
        match self.choose_heir_for(cause, now, to) {
            // A hung Asterisk serves nobody: without an heir it is started again in place.
            Err(reason) if cause != Cause::AsteriskHung => {
                effects.push(Effect::Notice(Notice::SwitchoverRefused { reason }));
            }
            _ => self.begin_stop(now, AfterStop::HandOver(to), cause, effects),
        }
    }

    /// The shell could not move the traffic here: the role goes back.
    pub(crate) fn on_traffic_failed(
        &mut self,
        now: BootTime,
        epoch: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        if self.bid.is_some_and(|bid| bid.epoch == epoch) {
            self.on_switchover(now, None, Cause::TrafficFailed, effects);
        }
    }

    /// R12: the best of those that acked lately; else why there is none.
    pub(crate) fn choose_heir(&self, now: BootTime, to: Option<Seat>) -> Result<Seat, Suppression> {
        let mut best = Err(Suppression::NoHeir);
        for seat in self
            .peer_seats()
            .filter(|seat| to.is_none_or(|to| to == *seat))
        {
            if self.is_within_reach(now, seat) {
                best = self.better_of(best, seat);
            }
        }
        best
    }

    /// The same for a move of this cause: none unplanned while such moves are held back, and for the sake of health only to a
    /// healthier node.
    pub(crate) fn choose_heir_for(
        &self,
        cause: Cause,
        now: BootTime,
        to: Option<Seat>,
    ) -> Result<Seat, Suppression> {
        if self.condition.is_held_back && !cause.is_planned() {
            return Err(Suppression::HeldBack);
        }
        let heir = self.choose_heir(now, to)?;
        let is_for_health = matches!(cause, Cause::AsteriskHung | Cause::HealthFailed);
        if is_for_health && self.peer(heir).condition.rank >= self.condition.rank {
            return Err(Suppression::HeirSicker);
        }
        Ok(heir)
    }

    /// Gives the vote, and with it the role, to the heir. Asterisk is stopped (R4).
    pub(crate) fn hand_over(
        &mut self,
        now: BootTime,
        heir: Seat,
        cause: Cause,
        since: BootTime,
        effects: &mut Vec<Effect>,
    ) {
        let bid = self.bid.take().expect("only a bid is handed over");
        let epoch = self.highest_epoch.next_of(heir);
        let peer = *self.peer(heir);
        let occupant = peer.occupant.expect("an heir was heard");
        self.give_vote(now, heir, occupant, peer.incarnation, epoch);
        let next_send_at = now;
        self.heir = Some(Heir {
            seat: heir,
            epoch,
            next_send_at,
            cause,
            since,
        });
        self.may_bid_at = now.after(self.settings.timing.deadtime);
        self.vacancy = Vacancy {
            cause,
            from: Some(self.settings.seat),
            since,
        };
        self.tend_heir(now, effects);
        self.send_to_others(now, Some(heir), bid.epoch, Body::Release, effects);
        if bid.promoted_at.is_some() {
            effects.push(Effect::Notice(Notice::Demoted {
                epoch: bid.epoch,
                cause,
            }));
        }
        self.next_beat_at = now.after(self.settings.timing.keepalive);
    }

    /// Asterisk has stopped: to the heir; without one, again in place while the authority lasts; else no more.
    pub(crate) fn hand_over_or_restart(
        &mut self,
        now: BootTime,
        to: Option<Seat>,
        (cause, since): (Cause, BootTime),
        effects: &mut Vec<Effect>,
    ) {
        let heir = self
            .choose_heir_for(cause, now, to)
            .or_else(|_| self.choose_heir_for(cause, now, None));
        match heir {
            Ok(heir) => self.hand_over(now, heir, cause, since, effects),
            Err(reason) if !self.is_leaving() && self.has_time_to_serve(now) => {
                self.restart_in_place(now, reason, effects);
            }
            Err(_) => self.demote_and_keep_bid(now, cause, effects),
        }
    }

    /// Serves no longer, and bids on: under a new epoch, so that each promotion has its own.
    pub(crate) fn demote_and_keep_bid(
        &mut self,
        now: BootTime,
        cause: Cause,
        effects: &mut Vec<Effect>,
    ) {
        let seat = self.settings.seat;
        self.vacancy = Vacancy {
            cause,
            from: Some(seat),
            since: now,
        };
        let bid = self.bid.as_mut().expect("a stop for the bid's sake");
        bid.has_served = true;
        let from = Some(seat);
        bid.origin = Origin {
            cause,
            from,
            detection: Duration::ZERO,
            decided_at: now,
        };
        if bid.promoted_at.take().is_some() {
            effects.push(Effect::Notice(Notice::Demoted {
                epoch: bid.epoch,
                cause,
            }));
        }
        self.raise_epoch(now, effects);
    }

    /// Repeats the handover until the heir beats, declines, falls silent, or begins another life: that one
    /// knows nothing of it, and would be refused as long as the vote is renewed for the former.
    pub(crate) fn tend_heir(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(mut heir) = self.heir else { return };
        if now < heir.next_send_at {
            return;
        }
        let timing = self.settings.timing;
        let peer = *self.peer(heir.seat);
        let grant = self.grant.as_mut().expect("an heir holds the vote");
        let is_same_life = peer.incarnation == grant.incarnation;
        if !is_same_life || !peer.is_heard_within(now, timing.silence()) {
            return self.forget_heir(now, heir);
        }
        grant.expires_at = now.after(timing.deadtime);
        self.last_granted_at = now;
        heir.next_send_at = now.after(timing.handover_repeat());
        self.heir = Some(heir);
        let detected_after_us = now.since(heir.since).as_micros().min(u128::from(u32::MAX)) as u32;
        let (echo, cause) = (peer.last_sent_at, heir.cause);
        let body = Body::Handover {
            echo,
            cause,
            detected_after_us,
        };
        self.send(now, heir.seat, heir.epoch, body, effects);
    }

    /// It beats, or will not. The vote stays given. If it falls silent now, that is no planned move any more.
    pub(crate) fn forget_heir(&mut self, now: BootTime, heir: Heir) {
        self.heir = None;
        if heir.cause.is_planned() {
            self.vacancy = Vacancy {
                cause: Cause::NodeSilent,
                from: Some(heir.seat),
                since: self.peer(heir.seat).heard_at.unwrap_or(now),
            };
        }
    }

    /// R5: the vote of a stopped active. It counts from this node's own stamp, echoed.
    pub(crate) fn on_handover(
        &mut self,
        now: BootTime,
        handover: &Message,
        echo: BootTime,
        (cause, detection): (Cause, Duration),
        effects: &mut Vec<Effect>,
    ) {
        let epoch = handover.epoch;
        if self
            .grant
            .is_some_and(|grant| grant.is_of(handover) && grant.epoch < epoch)
        {
            self.grant = None;
        }
        // With a bid this vote may be counted already: a release would free it under a running Asterisk (R4).
        if self.bid.is_none() && (!self.condition.is_ready || self.is_leaving()) {
            self.raise_highest(epoch, None);
            return self.send(now, handover.from, epoch, Body::Release, effects);
        }
        let counted_from = if holds(Rule::SendTime) { echo } else { now };
        let counts_until = counted_from.after(self.counted_grant());
        let is_credible = echo <= now && counts_until > now && !self.is_struck(handover.from);
        let is_free = self.grant.is_none() && self.bid.is_none() && self.asterisk.is_idle();
        if is_free && is_credible && epoch > self.highest_epoch {
            let from = Some(handover.from);
            self.start_bid(
                now,
                epoch,
                Origin {
                    cause,
                    from,
                    detection,
                    decided_at: now,
                },
            );
        }
        if let Some(bid) = self
            .bid
            .as_mut()
            .filter(|bid| bid.epoch == epoch && is_credible)
        {
            let counted = &mut bid.counted[usize::from(handover.from.0)];
            *counted = counts_until.max(*counted);
        }
    }

    /// Failback, only where a preferred node is named: when it has been ready for long enough.
    pub(crate) fn tend_preference(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Some(preferred) = self.settings.preferred_seat else {
            return;
        };
        if self.condition.is_held_back {
            return;
        }
        let Some(promoted_at) = self.bid.and_then(|bid| bid.promoted_at) else {
            return;
        };
        if preferred == self.settings.seat || self.asterisk.is_stopping() {
            return;
        }
        let patience = self.settings.timing.deadtime * 10;
        let is_long_since = |since: BootTime| now >= since.after(patience);
        let is_proven = self.peer(preferred).ready_since.is_some_and(is_long_since);
        if is_proven && is_long_since(promoted_at) && self.choose_heir(now, Some(preferred)).is_ok()
        {
            self.begin_stop(
                now,
                AfterStop::HandOver(Some(preferred)),
                Cause::Preferred,
                effects,
            );
        }
    }

    /// It is not silent; a member that stays.
    fn is_within_reach(&self, now: BootTime, seat: Seat) -> bool {
        let silence = self.settings.timing.silence();
        let fresh = now.after(self.counted_grant()).before(silence);
        let peer = self.peer(seat);
        let is_staying = !peer.is_leaving && !self.is_struck(seat) && !self.is_requested(seat);
        is_staying
            && peer.is_heard_within(now, silence)
            && self
                .bid
                .is_some_and(|bid| bid.counted[usize::from(seat.0)] > fresh)
    }

    fn better_of(&self, best: Result<Seat, Suppression>, seat: Seat) -> Result<Seat, Suppression> {
        let condition = self.peer(seat).condition;
        let lacks_api = self.settings.traffic_needs_api && !condition.is_api_reachable;
        match best {
            _ if !condition.is_ready => {
                best.map_err(|reason| reason.max(Suppression::HeirNotReady))
            }
            _ if lacks_api => best.map_err(|reason| reason.max(Suppression::HeirWithoutApi)),
            Ok(other)
                if self.standing(self.peer(other).condition, other)
                    < self.standing(condition, seat) =>
            {
                Ok(other)
            }
            _ => Ok(seat),
        }
    }
}
