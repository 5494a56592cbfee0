//! The calls about the Lease: one at a time, each with a deadline, and what their answers change (R2, R9, R14).
//!
//! Which call is wanted is decided in `witness` and `seats`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::observation::Observation;
use crate::rule::{Rule, holds};
use crate::{
    ApiAnswer, ApiCall, BootTime, CallId, Effect, Epoch, LeaseContent, LeaseView, LeaseWrite,
};

/// What a node knows of the Lease, and the call that is on its way.
#[derive(Clone, Copy, Debug, Hash, Serialize, Deserialize)]
pub(crate) struct Witness {
    pub(crate) seen: Option<Observation>,
    pub(crate) call: Option<OpenCall>,
    pub(crate) next_id: CallId,
    pub(crate) next_call_at: BootTime,
    pub(crate) next_poll_at: BootTime,
    pub(crate) poll_interval: Duration,
    /// The Lease may name this life: it is freed, or found to name another, before it is forgotten.
    pub(crate) may_own: bool,
    /// When the hold that counts was sent.
    pub(crate) renewed_at: Option<BootTime>,
    /// Since when the votes of the nodes do not suffice.
    pub(crate) wanted_since: Option<BootTime>,
    pub(crate) answered_at: Option<BootTime>,
    pub(crate) failures: u32,
    /// Somebody unknown speaks from a seat: the map is read again, but not at the stranger's pace (I6).
    pub(crate) hinted: bool,
    pub(crate) next_hint_at: BootTime,
    pub(crate) hint_interval: Duration,
}

#[derive(Clone, Copy, Debug, Hash, Serialize, Deserialize)]
pub(crate) struct OpenCall {
    pub(crate) id: CallId,
    pub(crate) purpose: Purpose,
    pub(crate) sent_at: BootTime,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Purpose {
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

    pub(crate) fn fresh(&self) -> Option<&Observation> {
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
        if let Some(read) = self.witness.content() {
            self.heed_holder(now, &read, effects);
        }
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
        if self.asterisk.is_giving_way() {
            // It claims none any more; its next bid goes above this one all the same.
            return self.raise_highest(content.epoch, None);
        }
        self.on_epoch_in_api(now, content.epoch, effects);
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

    pub(crate) fn uncount_witness(&mut self) {
        self.witness.renewed_at = None;
        if let Some(bid) = &mut self.bid {
            bid.witness_until = BootTime::default();
        }
    }

    /// Two that collide do not collide again.
    fn conflict_delay(&self) -> Duration {
        Duration::from_millis(10) * u32::from(self.settings.seat.0 % 5)
    }
}
