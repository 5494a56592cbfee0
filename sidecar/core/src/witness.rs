//! The Lease: when it is read, taken, renewed and freed (R8, R9, R14, the lone active).
//!
//! One call at a time. What a call says about seats is seats.rs's business; here it only rides along.

use std::time::Duration;

use crate::node::Node;
use crate::observation::Observation;
use crate::rule::{Rule, holds};
use crate::{
    ApiAnswer, ApiCall, BootTime, CallId, Effect, Epoch, Holder, LeaseContent, LeaseView,
    LeaseWrite,
};

/// What a node knows of the Lease, and the call that is on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    pub(crate) seen: Option<Observation>,
    call: Option<OpenCall>,
    next_id: CallId,
    next_call_at: BootTime,
    next_poll_at: BootTime,
    poll_interval: Duration,
    /// The Lease may name this life: it is freed, or found to name another, before it is forgotten.
    pub(crate) may_own: bool,
    /// When the hold that counts was sent.
    renewed_at: Option<BootTime>,
    /// Since when the votes of the nodes do not suffice.
    wanted_since: Option<BootTime>,
    answered_at: Option<BootTime>,
    failures: u32,
    /// Somebody unknown speaks from a seat: the map is read again, but not at the stranger's pace (I6).
    hinted: bool,
    next_hint_at: BootTime,
    hint_interval: Duration,
}

#[derive(Clone, Copy, Debug)]
struct OpenCall {
    id: CallId,
    purpose: Purpose,
    sent_at: BootTime,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Read,
    /// Take or renew.
    Take {
        epoch: Epoch,
        hold: Duration,
    },
    Free,
    /// Fill, request or vacate the own seat.
    Seat,
}

const SHORTEST_POLL: Duration = Duration::from_millis(150);
const LONGEST_POLL: Duration = Duration::from_secs(1);
const SHORTEST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_HINT: Duration = Duration::from_secs(2);
/// No answer for longer than two of the longest polls: the API counts as not heard.
const API_SILENCE: Duration = Duration::from_millis(2500);

impl Witness {
    pub(crate) fn new(now: BootTime) -> Self {
        Self {
            seen: None,
            call: None,
            next_id: CallId(1),
            next_call_at: now,
            next_poll_at: now,
            poll_interval: SHORTEST_POLL,
            may_own: false,
            renewed_at: None,
            wanted_since: None,
            answered_at: None,
            failures: 0,
            hinted: false,
            next_hint_at: now,
            hint_interval: SHORTEST_POLL,
        }
    }

    /// What the Lease said last.
    pub(crate) fn content(&self) -> Option<LeaseContent> {
        self.seen.map(|seen| seen.lease.content)
    }

    /// Things have changed: polls begin anew, quickly.
    pub(crate) fn poll_soon(&mut self, now: BootTime) {
        self.poll_interval = SHORTEST_POLL;
        self.next_poll_at = self.next_poll_at.min(now);
    }

    /// The seat map seems to have changed.
    pub(crate) fn hint(&mut self, now: BootTime) {
        self.hinted |= now >= self.next_hint_at;
    }

    /// A change was found: the next one may be looked for at once.
    pub(crate) fn reset_hint(&mut self) {
        self.hint_interval = SHORTEST_POLL;
    }

    fn fresh(&self) -> Option<&Observation> {
        self.seen.as_ref().filter(|seen| seen.is_fresh)
    }

    fn note_answer(&mut self, now: BootTime) {
        self.answered_at = Some(now);
        self.failures = 0;
        self.next_call_at = now;
    }

    fn back_off(&mut self, now: BootTime, longest: Duration) {
        let retry = SHORTEST_RETRY * (1 << self.failures.min(6));
        self.failures += 1;
        self.next_call_at = now.after(retry.min(longest));
        if let Some(seen) = &mut self.seen {
            seen.is_fresh = false;
        }
    }

    fn note_read(&mut self, now: BootTime) {
        self.next_poll_at = now.after(self.poll_interval);
        self.poll_interval = (self.poll_interval * 3 / 2).min(LONGEST_POLL);
        if self.hinted {
            self.hinted = false;
            self.next_hint_at = now.after(self.hint_interval);
            self.hint_interval = (self.hint_interval * 2).min(LONGEST_HINT);
        }
    }
}

impl Node {
    /// The answer to the open call; any other is late and discarded (R14).
    pub(crate) fn on_api(
        &mut self,
        now: BootTime,
        id: CallId,
        answer: &ApiAnswer,
        effects: &mut Vec<Effect>,
    ) {
        let Some(call) = self.witness.call.filter(|call| call.id == id) else {
            return;
        };
        self.witness.call = None;
        match answer {
            ApiAnswer::Lease(lease) => self.on_lease(now, call, lease, effects),
            ApiAnswer::Missing => {
                self.witness.note_answer(now);
                self.witness.seen = None;
                self.witness.note_read(now);
                self.witness.next_call_at = self.witness.next_poll_at;
            }
            ApiAnswer::Conflict => {
                self.witness.note_answer(now);
                self.witness.back_off(now, self.conflict_delay());
                self.witness.failures = 0;
            }
            ApiAnswer::Failed => self.on_call_failed(now, call),
        }
    }

    /// Whether the API has answered lately.
    pub(crate) fn hears_api(&self, now: BootTime) -> bool {
        self.witness
            .answered_at
            .is_some_and(|at| now.since(at) < API_SILENCE)
    }

    /// Alone for so long that the witness is held for longer.
    pub(crate) fn is_alone(&self, now: BootTime) -> bool {
        let patience = self.settings.timing.deadtime * 5;
        self.witness
            .wanted_since
            .is_some_and(|since| now >= since.after(patience))
    }

    /// Sends the call that is wanted now, if any.
    pub(crate) fn tend_witness(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        self.note_wanting(now);
        if let Some(call) = self.witness.call {
            if now < call.sent_at.after(self.settings.timing.api_deadline) {
                return;
            }
            self.witness.call = None;
            self.on_call_failed(now, call);
        }
        if now < self.witness.next_call_at || self.settings.fixed_seats.is_some() {
            return;
        }
        if let Some((purpose, content)) = self.wanted_call(now) {
            self.send_call(now, purpose, content, effects);
        }
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

    fn on_lease(
        &mut self,
        now: BootTime,
        call: OpenCall,
        lease: &LeaseView,
        effects: &mut Vec<Effect>,
    ) {
        self.witness.note_answer(now);
        self.observe(now, lease);
        match call.purpose {
            Purpose::Read => self.witness.note_read(now),
            Purpose::Take { epoch, hold } => self.count_hold(call.sent_at, epoch, hold),
            Purpose::Free | Purpose::Seat => {}
        }
        let content = lease.content;
        self.witness.may_own = self.is_own(&content);
        self.follow_epoch(now, &content, effects);
    }

    /// "Unchanged" counts from the answer of the first read (R9).
    fn observe(&mut self, now: BootTime, lease: &LeaseView) {
        match &mut self.witness.seen {
            Some(seen) => seen.update(now, lease),
            None => self.witness.seen = Some(Observation::new(now, lease)),
        }
    }

    /// R2: a hold counts from the send time, and only for the bid that it was taken for.
    fn count_hold(&mut self, sent_at: BootTime, epoch: Epoch, hold: Duration) {
        let counted_from = if holds(Rule::SendTime) {
            sent_at
        } else {
            self.stepped_at
        };
        if let Some(bid) = self.bid.as_mut().filter(|bid| bid.epoch == epoch) {
            bid.witness_until = bid.witness_until.max(counted_from.after(hold));
            self.witness.renewed_at = Some(sent_at);
        }
    }

    /// R10: a newer epoch in the Lease. A candidate goes above an equal one too, so that each names one active.
    fn follow_epoch(&mut self, now: BootTime, content: &LeaseContent, effects: &mut Vec<Effect>) {
        self.on_epoch_seen(now, content.epoch, effects);
        let is_anothers = |epoch: Epoch| epoch == content.epoch && !self.is_own(content);
        let is_candidate = |bid: &crate::bid::Bid| bid.promoted_at.is_none();
        if self
            .bid
            .is_some_and(|bid| is_candidate(&bid) && is_anothers(bid.epoch))
        {
            self.raise_epoch(now, effects);
        }
    }

    fn on_call_failed(&mut self, now: BootTime, call: OpenCall) {
        let longest = if self.bid.is_some() {
            self.settings.timing.api_deadline
        } else {
            LONGEST_POLL
        };
        if call.purpose == Purpose::Read {
            self.witness.note_read(now);
        }
        self.witness.back_off(now, longest);
    }

    fn send_call(
        &mut self,
        now: BootTime,
        purpose: Purpose,
        content: Option<LeaseContent>,
        effects: &mut Vec<Effect>,
    ) {
        match purpose {
            Purpose::Take { .. } => self.witness.may_own = true,
            // R8: not counted from before the write leaves.
            Purpose::Free => self.uncount_witness(),
            Purpose::Read | Purpose::Seat => {}
        }
        let call = match (content, self.witness.fresh()) {
            (Some(content), Some(seen)) => ApiCall::Write(LeaseWrite {
                uid: seen.lease.uid,
                version: seen.lease.version,
                content,
            }),
            _ => ApiCall::Read,
        };
        let id = self.witness.next_id;
        self.witness.next_id = CallId(id.0 + 1);
        self.witness.call = Some(OpenCall {
            id,
            purpose,
            sent_at: now,
        });
        self.save(effects);
        effects.push(Effect::Call { id, call });
    }

    fn uncount_witness(&mut self) {
        self.witness.renewed_at = None;
        if let Some(bid) = &mut self.bid {
            bid.witness_until = BootTime::default();
        }
    }

    fn wanted_call(&self, now: BootTime) -> Option<(Purpose, Option<LeaseContent>)> {
        let Some(seen) = self.witness.fresh() else {
            return self.wants_to_read(now).then_some((Purpose::Read, None));
        };
        let content = seen.lease.content;
        if self.has_departed() {
            self.vacation(now, &content)
        } else if !self.is_seated() {
            self.admission(now, &content)
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
        let is_watched = now
            >= seen
                .since
                .after(self.settings.timing.observed_hold(content.hold));
        let counts_still = self.bid.is_some_and(|bid| bid.witness_until > now);
        let is_takeable = match content.holder {
            Holder::Nobody => true,
            Holder::Created => is_watched || counts_still,
            Holder::Node { .. } => self.is_own(content) || is_watched || !holds(Rule::WatchHold),
        };
        !is_barred && is_takeable
    }

    /// R9: a Lease made anew has to be watched before it is taken. An active that does so in good time frees it (takes
    /// and frees in one write), so that the first failover after it does not have to.
    fn is_new_lease(&self, content: &LeaseContent) -> bool {
        self.has_witness() && self.bid.is_some() && content.holder == Holder::Created
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

    fn renewal_interval(&self) -> Duration {
        let hold = self
            .witness
            .content()
            .filter(|content| self.is_own(content));
        hold.map_or(self.settings.timing.witness_hold, |content| content.hold) / 3
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

    fn freed(&self, content: &LeaseContent) -> LeaseContent {
        LeaseContent {
            holder: Holder::Nobody,
            epoch: self.highest_epoch.max(content.epoch),
            hold: self.settings.timing.witness_hold,
            ..*content
        }
    }

    /// R13: an empty seat is filled, an occupied one requested, by a plain write that keeps the holder.
    fn admission(
        &self,
        now: BootTime,
        content: &LeaseContent,
    ) -> Option<(Purpose, Option<LeaseContent>)> {
        let own = self.own_index();
        let mut written = *content;
        let is_outside = self.settings.seat.0 >= content.seats.count;
        match content.seats.occupants[own] {
            _ if is_outside || self.is_leaving() || self.membership.seats.is_some() => {}
            None => {
                written.seats.occupants[own] = Some(self.settings.occupant);
                written.seats.requested[own] = false;
                return Some((Purpose::Seat, Some(written)));
            }
            Some(other) if other != self.settings.occupant && !content.seats.requested[own] => {
                written.seats.requested[own] = true;
                return Some((Purpose::Seat, Some(written)));
            }
            Some(_) => {}
        }
        (now >= self.witness.next_poll_at).then_some((Purpose::Read, None))
    }

    /// R13 2b: the leaver empties its own seat.
    fn vacation(
        &self,
        now: BootTime,
        content: &LeaseContent,
    ) -> Option<(Purpose, Option<LeaseContent>)> {
        if !self.may_vacate_own_seat(now) || !self.sits_in(&content.seats) {
            return None;
        }
        let mut written = if self.is_own(content) {
            self.freed(content)
        } else {
            *content
        };
        written.seats.occupants[self.own_index()] = None;
        written.seats.requested[self.own_index()] = false;
        Some((Purpose::Seat, Some(written)))
    }

    fn note_wanting(&mut self, now: BootTime) {
        if !self.is_wanting(now) {
            self.witness.wanted_since = None;
        } else if self.witness.wanted_since.is_none() {
            self.witness.wanted_since = Some(now);
        }
    }

    fn is_own(&self, content: &LeaseContent) -> bool {
        content.holder
            == Holder::Node {
                seat: self.settings.seat,
                occupant: self.settings.occupant,
                incarnation: self.incarnation,
            }
    }

    /// Two that collide do not collide again.
    fn conflict_delay(&self) -> Duration {
        Duration::from_millis(10) * u32::from(self.settings.seat.0 % 5)
    }
}
