//! The node: its state, the step that applies one input, and when the next one is due.
//!
//! The rules themselves stand in the files of their groups; here is only what ties them together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::asterisk::Asterisk;
use crate::bid::{Bid, Vacancy};
use crate::grant::Grant;
use crate::handover::Heir;
use crate::lease_calls::Witness;
use crate::leave::Leaving;
use crate::peer::Peer;
use crate::rule::{Rule, holds};
use crate::seats::Membership;
use crate::settings::{FoundAtStart, Settings, Start};
use crate::{
    BootTime, Cause, Command, Condition, Effect, Epoch, Incarnation, Input, MAX_NODES, Notice,
    Record, Seat,
};

/// One voter and candidate of the quorum lease.
///
/// - [`Node::step`] applies one input, in no time, and appends what has to be done to `effects`; the shell carries
///   out all of it, in order, before the next step, and clears the buffer.
/// - [`Node::next_deadline`] says when the next [`Input::Tick`] is due; it changes with every step.
/// - [`Node::view`] is what the rest of the sidecar may see.
///
/// Time is an argument: the node's own `CLOCK_BOOTTIME`. A step never goes back behind an earlier one.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
pub struct Node {
    pub(crate) settings: Settings,
    pub(crate) incarnation: Incarnation,
    /// What this very life was called before it rose above a former one: the Lease may still say so.
    pub(crate) former_incarnation: Option<Incarnation>,
    pub(crate) booted_at: BootTime,
    pub(crate) quarantine_until: BootTime,
    pub(crate) stepped_at: BootTime,
    pub(crate) highest_epoch: Epoch,
    /// Who bid for `highest_epoch`: no other gets a vote for the same one, so that each names one active.
    pub(crate) highest_epoch_of: Option<(Seat, Incarnation)>,
    pub(crate) grant: Option<Grant>,
    pub(crate) last_granted_at: BootTime,
    pub(crate) bid: Option<Bid>,
    pub(crate) may_bid_at: BootTime,
    pub(crate) vacancy: Vacancy,
    pub(crate) heir: Option<Heir>,
    pub(crate) asterisk: Asterisk,
    pub(crate) condition: Condition,
    pub(crate) known_active: Option<(Seat, Epoch)>,
    pub(crate) peers: [Peer; MAX_NODES],
    pub(crate) next_beat_at: BootTime,
    pub(crate) witness: Witness,
    pub(crate) membership: Membership,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) recorded: Option<Record>,
}

impl Node {
    /// A node that starts, with what it is to do at once in `effects`.
    ///
    /// With a record of this occupant it goes on in its former life (R7); otherwise it begins a new one in
    /// quarantine, and stops an Asterisk whose authority it cannot know (R4).
    pub fn new(settings: Settings, start: Start, effects: &mut Vec<Effect>) -> Self {
        assert!(
            (2..=MAX_NODES as u8).contains(&settings.nodes),
            "2 to 5 nodes are configured"
        );
        let mut node = Self::newborn(&settings, &start);
        match start
            .record
            .filter(|record| record.occupant == settings.occupant)
        {
            Some(record) => node.resume(start.now, &record, start.guard, effects),
            None => node.adopt_stranger(start.now, start.guard, effects),
        }
        node.check_invariants();
        node
    }

    /// Applies one input at `now`.
    pub fn step(&mut self, now: BootTime, input: Input, effects: &mut Vec<Effect>) {
        if self.is_gone() {
            return;
        }
        let now = now.max(self.stepped_at);
        self.stepped_at = now;
        self.expire_grant(now);
        self.apply(now, &input, effects);
        self.tend(now, effects);
        self.check_invariants();
    }

    /// When the next tick is due, at the latest; the far future for a node that has left.
    pub fn next_deadline(&self) -> BootTime {
        if self.is_gone() {
            return BootTime::FAR_FUTURE;
        }
        let mut earliest = BootTime::FAR_FUTURE;
        // What was due at the last step is done, or waits for something else than time.
        let mut consider = |at: BootTime| {
            if at > self.stepped_at && at < earliest {
                earliest = at;
            }
        };
        consider(self.next_beat_at);
        self.consider_votes(&mut consider);
        self.consider_asterisk(&mut consider);
        self.consider_witness(&mut consider);
        self.consider_leaving(&mut consider);
        earliest
    }

    fn newborn(settings: &Settings, start: &Start) -> Self {
        let now = start.now;
        let mut node = Self {
            settings: *settings,
            incarnation: start.incarnation,
            former_incarnation: None,
            booted_at: now,
            quarantine_until: now.after(settings.timing.quarantine()),
            stepped_at: now,
            highest_epoch: Epoch(0),
            highest_epoch_of: None,
            grant: None,
            last_granted_at: now,
            bid: None,
            may_bid_at: now,
            vacancy: Vacancy {
                cause: Cause::Startup,
                from: None,
                since: now,
            },
            heir: None,
            asterisk: Asterisk::default(),
            condition: Condition::default(),
            known_active: None,
            peers: [Peer::default(); MAX_NODES],
            next_beat_at: now,
            witness: Witness::new(now),
            membership: Membership::new(settings),
            leaving: None,
            recorded: None,
        };
        if !holds(Rule::Quarantine) {
            node.quarantine_until = now;
        }
        node
    }

    /// R7: the former life goes on. A grant found counts a whole T again; counts of votes are gone.
    fn resume(
        &mut self,
        now: BootTime,
        record: &Record,
        guard: FoundAtStart,
        effects: &mut Vec<Effect>,
    ) {
        self.incarnation = record.incarnation;
        let epochs = [record.bid, record.grant.map(|(.., epoch)| epoch)];
        let seen = epochs.into_iter().flatten().max().unwrap_or_default();
        self.highest_epoch = record.highest_epoch.max(seen);
        self.quarantine_until = now;
        self.membership.resume(record);
        self.witness.may_own = true;
        if record.has_left {
            self.resume_leaving(now);
            return self.adopt_stranger(now, guard, effects);
        }
        self.grant = record.grant.map(|grant| self.resumed_grant(now, grant));
        match (record.bid, guard) {
            (None, _) => self.adopt_stranger(now, guard, effects),
            (
                Some(epoch),
                FoundAtStart::Running {
                    deadline: Some(deadline),
                },
            ) => {
                self.resume_bid(now, epoch, true);
                self.asterisk.resume(deadline);
                effects.push(Effect::Notice(Notice::Resumed { epoch }));
            }
            // It may have served under the recorded epoch: the next promotion has its own (I2).
            (Some(_), guard) => {
                self.resume_bid(now, self.next_epoch(), false);
                let bid = self.bid.as_mut().expect("just resumed");
                bid.has_served = guard == FoundAtStart::Nothing;
            }
        }
    }

    /// R4: an armed Asterisk without a bid of ours is stopped; till then there is no vote.
    fn adopt_stranger(&mut self, now: BootTime, guard: FoundAtStart, effects: &mut Vec<Effect>) {
        if let FoundAtStart::Running {
            deadline: Some(deadline),
        } = guard
        {
            self.asterisk.resume(deadline);
            self.stop_stranger(now, effects);
        }
    }

    fn apply(&mut self, now: BootTime, input: &Input, effects: &mut Vec<Effect>) {
        match *input {
            Input::Tick => {}
            Input::Message(ref message) => self.on_message(now, message, effects),
            Input::Api { call, ref answer } => self.on_api(now, call, answer, effects),
            Input::Guard(event) => self.on_guard(now, event, effects),
            Input::Condition(condition) => self.on_condition(now, condition),
            Input::Command(command) => self.on_command(now, command, effects),
        }
    }

    fn on_command(&mut self, now: BootTime, command: Command, effects: &mut Vec<Effect>) {
        match command {
            Command::Switchover { to, cause } => self.on_switchover(now, to, cause, effects),
            Command::Leave => self.on_leave_command(now, effects),
            Command::TrafficFailed { epoch } => self.on_traffic_failed(now, epoch, effects),
            Command::SeenEpoch(epoch) => self.on_epoch_in_api(now, epoch, effects),
            Command::LookAtSeats => self.on_look_at_seats(),
        }
    }

    /// All that time or the last input made due. Changes nothing when called again at the same moment.
    fn tend(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        self.tend_asterisk(now, effects);
        self.tend_seats(now, effects);
        self.tend_leaving(now, effects);
        self.tend_bid(now, effects);
        self.tend_heir(now, effects);
        self.tend_preference(now, effects);
        self.push(now, effects);
        self.tend_beats(now, effects);
        self.tend_witness(now, effects);
    }

    /// R7, R13, R4: out of quarantine, in its own seat, and no Asterisk of a forgotten life.
    pub(crate) fn can_vote(&self, now: BootTime) -> bool {
        now >= self.quarantine_until
            && self.is_seated()
            && !self.has_departed()
            && (self.asterisk.is_idle() || self.bid.is_some())
    }

    /// What a candidate counts on a grant (R1).
    pub(crate) fn counted_grant(&self) -> Duration {
        let timing = &self.settings.timing;
        if holds(Rule::DriftMargin) {
            timing.counted_grant()
        } else {
            timing.deadtime
        }
    }

    /// From the kernel's timer to a dead Asterisk (R3).
    pub(crate) fn kill_margin(&self) -> Duration {
        if holds(Rule::DriftMargin) {
            self.settings.timing.kill_margin
        } else {
            Duration::ZERO
        }
    }

    fn consider_votes(&self, consider: &mut impl FnMut(BootTime)) {
        let timing = &self.settings.timing;
        consider(self.quarantine_until);
        consider(self.bid_due_at());
        if let Some(grant) = &self.grant {
            consider(grant.expires_at);
            consider(grant.given_at(timing).after(timing.warntime));
        }
        if let Some(heir) = &self.heir {
            consider(heir.next_send_at);
        }
        if let Some(bid) = &self.bid {
            consider(bid.fruitless_at(timing));
            consider(bid.raise_at.unwrap_or(BootTime::FAR_FUTURE));
        }
    }
}
