//! The state that the checker explores: pods, messages on their way, the Lease and the calls about it.

use std::hash::{DefaultHasher, Hash, Hasher};

use pbx_core::{
    ApiAnswer, ApiCall, Body, CallId, LeaseView, MAX_NODES, Message, Node, Role, moved,
};

use super::pod::{Cell, NOW, Pod};
use super::scenario::Scenario;

/// Everything at one moment. All clocks show [`NOW`].
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct State {
    /// Successors in a seat come after those they replace.
    pub pods: Vec<Cell>,
    /// In no order that matters.
    pub letters: Vec<Letter>,
    /// The object in the API.
    pub lease: Option<LeaseView>,
    /// Calls that may still take effect, or be answered.
    pub calls: Vec<Call>,
    /// Faults so far.
    pub used: Used,
    /// A node broke one of its own invariants.
    pub is_broken: bool,
    /// A node went on serving though it heard of one that serves under a higher epoch (R15).
    pub is_deaf: bool,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Letter {
    /// To which pod.
    pub to: usize,
    /// What it says.
    pub message: Message,
}

/// A call on its way.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Call {
    /// Whose.
    pub pod: usize,
    /// 0 once the node has given it up: it may still take effect.
    pub id: CallId,
    /// What it asks.
    pub call: ApiCall,
    /// The answer, held up by a pause.
    pub answer: Option<ApiAnswer>,
}

/// How often each fault has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    /// Machines that stopped.
    pub crashes: u8,
    /// Sidecars that came back with their record.
    pub restarts: u8,
    /// Sidecars that came back without it.
    pub amnesias: u8,
    /// Pods that stood still.
    pub pauses: u8,
    /// Machines that stood still, clock and all.
    pub stops: u8,
    /// Asterisks that died by themselves.
    pub deaths: u8,
    /// Switchovers that were ordered.
    pub switchovers: u8,
    /// Messages that arrived twice.
    pub duplicates: u8,
    /// Pods replaced by force.
    pub replacements: u8,
    /// Leases made anew.
    pub leases: u8,
    /// Pods that were told to leave.
    pub leaves: u8,
    /// Changes of the number of seats.
    pub resizes: u8,
}

impl State {
    /// How many serve, but those whose clock stood still a moment ago, since they cannot know better before they hear it, and
    /// those that do without a quorum by choice.
    pub fn serving(&self) -> usize {
        let has_quorum = |node: &Node| !node.view(NOW).is_without_quorum;
        self.pods
            .iter()
            .filter(|pod| pod.process.is_serving() && pod.behind_for == 0)
            .filter(|pod| pod.node.as_ref().is_none_or(has_quorum))
            .count()
    }

    /// Of two that serve, the letter tells the receiver that it is outranked.
    pub fn tells_of_rival(&self, letter: &Letter) -> bool {
        let Letter { to, message } = letter;
        let is_sender = |pod: &&Cell| pod.occupant == message.occupant && pod.process.is_serving();
        let receiver = &self.pods[*to];
        let view = receiver.node.as_ref().map(|node| node.view(NOW));
        let is_outranked = view.is_some_and(|view| {
            view.role == Role::Active
                && view.epoch < Some(message.epoch)
                && view.incarnation == message.to_incarnation
        });
        matches!(message.body, Body::Beat { is_active: true })
            && is_outranked
            && self.pods.iter().any(|pod| is_sender(&pod))
    }

    /// The pod goes on serving all the same.
    pub fn goes_on(&self, pod: usize) -> bool {
        let role = |node: &Node| node.view(NOW).role;
        self.pods[pod].node.as_ref().map(role) == Some(Role::Active)
    }

    /// Changes one pod.
    pub fn change(&mut self, index: usize, change: impl FnOnce(&mut Pod)) {
        let mut pod = Pod::clone(&self.pods[index]);
        change(&mut pod);
        self.pods[index] = Cell::new(pod);
    }

    /// A message leaves; the oldest on a full link is lost.
    pub fn post(&mut self, scenario: &Scenario, message: &Message) {
        for to in 0..self.pods.len() {
            if self.pods[to].seat == message.to {
                self.letters.push(Letter {
                    to,
                    message: *message,
                });
                self.keep_newest(scenario.letters_per_link, to, message);
            }
        }
    }

    fn keep_newest(&mut self, most: usize, to: usize, message: &Message) {
        let is_same_link =
            |letter: &Letter| letter.to == to && letter.message.occupant == message.occupant;
        while self
            .letters
            .iter()
            .filter(|letter| is_same_link(letter))
            .count()
            > most
        {
            let oldest = self
                .letters
                .iter()
                .enumerate()
                .filter(|(_, letter)| is_same_link(letter))
                .min_by_key(|(index, letter)| (letter.message.sent_at, *index))
                .map(|(index, _)| index);
            self.letters
                .remove(oldest.expect("there is more than none"));
        }
    }

    /// The order in which letters and calls were written down says nothing.
    pub fn tidy(&mut self) {
        let key = |letter: &Letter| {
            let mut hasher = DefaultHasher::new();
            letter.hash(&mut hasher);
            hasher.finish()
        };
        self.letters.sort_by_cached_key(key);
        self.letters.dedup();
    }

    /// Letters grow old with the clocks they speak of; calls keep their order of versions alone.
    pub fn age_letters(&mut self, scenario: &Scenario, ticks: &Ticks) {
        let oldest = NOW.before(scenario.timing.deadtime);
        let pods = &self.pods;
        for Letter { to, message } in &mut self.letters {
            let by_receiver = ticks[usize::from(pods[*to].seat.0)];
            let by_sender = ticks[usize::from(message.from.0)];
            message.sent_at = moved(message.sent_at, by_sender).max(oldest);
            match &mut message.body {
                Body::Ack { beat_sent_at: echo } | Body::Handover { echo, .. } => {
                    *echo = moved(*echo, by_receiver).max(oldest);
                }
                _ => {}
            }
            if let Body::Handover {
                detected_after_us, ..
            } = &mut message.body
            {
                *detected_after_us = 0;
            }
        }
    }

    /// The versions that anybody still refers to, in order.
    pub fn versions(&self) -> Vec<u64> {
        let of_pods = self
            .pods
            .iter()
            .filter_map(|pod| pod.node.as_ref()?.seen_version());
        let of_calls = self.calls.iter().flat_map(|call| {
            let written = match &call.call {
                ApiCall::Write(write) => Some(write.version),
                ApiCall::Read => None,
            };
            let answered = match &call.answer {
                Some(ApiAnswer::Lease(lease)) => Some(lease.version),
                _ => None,
            };
            [written, answered].into_iter().flatten()
        });
        let current = self.lease.iter().map(|lease| lease.version);
        let mut versions: Vec<u64> = of_pods.chain(of_calls).chain(current).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Numbers the versions anew.
    pub fn renumber(&mut self, version: &dyn Fn(u64) -> u64) {
        if let Some(lease) = &mut self.lease {
            lease.version = version(lease.version);
        }
        for call in &mut self.calls {
            if let ApiCall::Write(write) = &mut call.call {
                write.version = version(write.version);
            }
            if let Some(ApiAnswer::Lease(lease)) = &mut call.answer {
                lease.version = version(lease.version);
            }
        }
    }
}

/// As many ticks as seats.
pub type Ticks = [std::time::Duration; MAX_NODES];
