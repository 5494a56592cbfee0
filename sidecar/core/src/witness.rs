//! The witness: when the Lease is read, taken, renewed and freed (R8, R9, the lone active).
//!
//! Only decisions; the calls themselves are in `lease_calls`.

use std::time::Duration;

use crate::lease_calls::Purpose;
use crate::node::Node;
use crate::observation::Observation;
use crate::rule::{Rule, holds};
use crate::{BootTime, Holder, LeaseContent};

impl Node {
    /// Alone for so long that the witness is held for longer: after 5 T, or at once where nobody sits in another seat.
    /// Then nobody could take over sooner (a newcomer fills a seat and waits out its quarantine first), and the API server
    /// is at its busiest: the time of a rollout.
    pub(crate) fn is_alone(&self, now: BootTime) -> bool {
        let patience = if self.is_only_occupant() {
            Duration::ZERO
        } else {
            self.settings.timing.deadtime * 5
        };
        self.witness
            .wanted_since
            .is_some_and(|since| now >= since.after(patience))
    }

    fn is_only_occupant(&self) -> bool {
        self.membership.seats.is_some_and(|seats| {
            self.peer_seats()
                .all(|seat| seats.occupants[usize::from(seat.0)].is_none())
        })
    }

    /// When a call is due, or its deadline.
    pub(crate) fn consider_witness(&self, consider: &mut impl FnMut(BootTime)) {
        let timing = &self.settings.timing;
        if let Some(call) = self.witness.call {
            consider(call.sent_at.after(timing.api_deadline));
        }
        consider(self.witness.next_call_at);
        consider(self.witness.next_poll_at);
        if let Some(seen) = &self.witness.seen {
            consider(
                seen.since
                    .after(timing.observed_hold(seen.lease.content.hold)),
            );
        }
        if let Some(bid) = &self.bid {
            let votes = self.authority_without_witness(self.stepped_at);
            consider(votes.before(self.counted_grant()).after(timing.warntime));
            consider(bid.origin.decided_at.after(timing.rank_delay));
            if let Some(renewed_at) = self.witness.renewed_at {
                consider(renewed_at.after(self.renewal_interval()));
            }
        }
    }

    pub(crate) fn wanted_call(&self, now: BootTime) -> Option<(Purpose, Option<LeaseContent>)> {
        let Some(seen) = self.witness.fresh() else {
            return self.wants_to_read(now).then_some((Purpose::Read, None));
        };
        let content = seen.lease.content;
        if self.has_departed() {
            self.vacation(now, &content)
        } else if !self.is_seated() {
            self.admission(now, seen)
        } else {
            self.wanted_witness_call(now, seen)
        }
    }

    /// Without knowledge of the Lease: whether anything needs it now.
    fn wants_to_read(&self, now: BootTime) -> bool {
        let is_polling = now >= self.witness.next_poll_at;
        let owns = self.has_witness() && self.witness.may_own;
        if self.has_departed() {
            return is_polling && self.may_vacate_own_seat(now);
        }
        let is_new = self
            .witness
            .content()
            .is_some_and(|read| self.is_new_lease(&read));
        self.is_wanting(now)
            || owns
            || (is_polling && is_new)
            || (is_polling && (!self.is_seated() || self.is_looking(now)))
            || self.witness.hinted
    }

    fn wanted_witness_call(
        &self,
        now: BootTime,
        seen: &Observation,
    ) -> Option<(Purpose, Option<LeaseContent>)> {
        let content = seen.lease.content;
        let read = Some((Purpose::Read, None));
        let is_polling = now >= self.witness.next_poll_at;
        if self.witness.hinted {
            read
        } else if self.is_wanting(now) {
            if self.may_take(now, seen) {
                return self
                    .is_take_due(now, &content)
                    .then(|| self.take(now, &content));
            }
            read.filter(|_| is_polling)
        } else if self.has_witness() && self.is_own(&content) {
            self.may_free(now)
                .then(|| (Purpose::Free, Some(self.freed(&content))))
        } else if self.is_new_lease(&content) {
            let is_free_to_go = self.may_take(now, seen) && self.may_free(now);
            is_free_to_go.then(|| (Purpose::Free, Some(self.freed(&content))))
        } else {
            read.filter(|_| is_polling && self.is_looking(now))
        }
    }

    /// The votes of the nodes are older than warntime: the witness is wanted. Who has just begun to bid, and hears
    /// peers that could vote, gives them a moment.
    fn is_wanting(&self, now: BootTime) -> bool {
        let timing = &self.settings.timing;
        let Some(bid) = &self.bid else { return false };
        let fresh = now.after(self.counted_grant()).before(timing.warntime);
        let hears_voters = || {
            let within = timing.keepalive * 2;
            self.peer_seats().any(|seat| {
                let peer = self.peer(seat);
                peer.is_heard_within(now, within) && !peer.is_leaving && !self.is_struck(seat)
            })
        };
        let is_new = now < bid.origin.decided_at.after(timing.rank_delay);
        self.has_witness()
            && self.authority_without_witness(now) < fresh
            && !(is_new && hears_voters())
    }

    /// Looks at the Lease in advance, so that the compare-and-swap needs no read first.
    fn is_looking(&self, now: BootTime) -> bool {
        let timing = &self.settings.timing;
        let is_silent = match &self.grant {
            Some(grant) => now >= grant.given_at(timing).after(timing.warntime),
            None => true,
        };
        self.has_witness()
            && self.bid.is_none()
            && !self.is_leaving()
            && (now < self.quarantine_until || (is_silent && self.condition.is_ready))
    }

    /// R9: free, its own, or watched unchanged for longer than its holder counts it. R13: only from the map.
    fn may_take(&self, now: BootTime, seen: &Observation) -> bool {
        let content = &seen.lease.content;
        let is_barred = !self.sits_in(&content.seats) || content.seats.requested[self.own_index()];
        let is_watched = self.is_watched(now, seen);
        let counts_still = self.bid.is_some_and(|bid| bid.witness_until > now);
        let is_takeable = match content.holder {
            Holder::Nobody => true,
            Holder::Created => is_watched || counts_still,
            Holder::Node { .. } => self.is_own(content) || is_watched || !holds(Rule::WatchHold),
        };
        !is_barred && is_takeable && self.agrees_on_count(&content.seats)
    }

    /// R9: unchanged for longer than its holder counts it.
    pub(crate) fn is_watched(&self, now: BootTime, seen: &Observation) -> bool {
        let hold = seen.lease.content.hold;
        now >= seen.since.after(self.settings.timing.observed_hold(hold))
    }

    /// R9: a Lease made anew has to be watched before it is taken, or before a newcomer sits down in an odd number of seats. An
    /// active that does so in good time frees it (takes and frees in one write), so that nobody has to later.
    fn is_new_lease(&self, content: &LeaseContent) -> bool {
        self.bid.is_some() && content.holder == Holder::Created
    }

    fn is_take_due(&self, now: BootTime, content: &LeaseContent) -> bool {
        let is_renewal_due = match self.witness.renewed_at {
            Some(renewed_at) => now >= renewed_at.after(self.renewal_interval()),
            None => true,
        };
        !self.is_own(content) || is_renewal_due || self.has_to_vacate(&content.seats)
    }

    fn take(&self, now: BootTime, content: &LeaseContent) -> (Purpose, Option<LeaseContent>) {
        let bid = self.bid.as_ref().expect("the witness is wanted for a bid");
        let hold = self.hold_to_write(now, content);
        let Self {
            settings,
            incarnation,
            ..
        } = self;
        let holder = Holder::Node {
            seat: settings.seat,
            occupant: settings.occupant,
            incarnation: *incarnation,
        };
        let epoch = bid.epoch.max(content.epoch);
        let seats = self.seats_to_write(&content.seats);
        let purpose = Purpose::Take {
            epoch: bid.epoch,
            hold,
        };
        (
            purpose,
            Some(LeaseContent {
                holder,
                epoch,
                hold,
                seats,
            }),
        )
    }

    /// Shortening is freeing: a long hold, its own or one that still counts, is renewed long until it is freed.
    fn hold_to_write(&self, now: BootTime, content: &LeaseContent) -> Duration {
        let timing = &self.settings.timing;
        let is_own_long = self.is_own(content) && content.hold > timing.witness_hold;
        let counts_longer = self
            .bid
            .is_some_and(|bid| bid.witness_until > now.after(timing.witness_hold));
        if self.is_alone(now) || is_own_long || counts_longer {
            timing
                .witness_hold_alone
                .max(content.hold.min(timing.witness_hold_alone * 2))
        } else {
            timing.witness_hold
        }
    }

    /// Of what stands in the Lease, or of what counts if that is less: a write whose answer was lost may stand there and counts nothing.
    fn renewal_interval(&self) -> Duration {
        let content = self.witness.content();
        let own = content.filter(|content| self.is_own(content));
        let standing = own.map_or(self.settings.timing.witness_hold, |content| content.hold);
        let counted = self
            .bid
            .as_ref()
            .zip(self.witness.renewed_at)
            .map(|(bid, renewed_at)| bid.witness_until.since(renewed_at));
        counted.map_or(standing, |counted| counted.min(standing)) / 3
    }

    /// R8: the deadline rests on other votes, or nothing runs.
    fn may_free(&self, now: BootTime) -> bool {
        let is_covered = if self.bid.is_some() {
            self.covers_deadline(self.authority_without_witness(now))
        } else {
            self.asterisk.is_idle()
        };
        is_covered || !holds(Rule::FreeCovered)
    }

    pub(crate) fn freed(&self, content: &LeaseContent) -> LeaseContent {
        LeaseContent {
            holder: Holder::Nobody,
            epoch: self.highest_epoch.max(content.epoch),
            hold: self.settings.timing.witness_hold,
            ..*content
        }
    }

    pub(crate) fn note_wanting(&mut self, now: BootTime) {
        if !self.is_wanting(now) {
            self.witness.wanted_since = None;
        } else if self.witness.wanted_since.is_none() {
            self.witness.wanted_since = Some(now);
        }
    }

    pub(crate) fn is_own(&self, content: &LeaseContent) -> bool {
        let Holder::Node {
            seat,
            occupant,
            incarnation,
        } = content.holder
        else {
            return false;
        };
        let is_this_life =
            incarnation == self.incarnation || Some(incarnation) == self.former_incarnation;
        is_this_life && seat == self.settings.seat && occupant == self.settings.occupant
    }
}
