//! What happens all the time: such steps are counted, not told one by one.

use pbx_core::{ApiAnswer, ApiCall, Body, Effect, GuardEvent, Input, Message};

use super::Told;
use super::words::Words;
use crate::recorder::entry::Mark;

/// Steps without news, in a row.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Vec<(String, usize)>,
}

impl Tally {
    pub(crate) fn add(&mut self, told: &Told) {
        let Some(label) = &told.usual else { return };
        match self.counts.iter_mut().find(|(known, _)| known == label) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((label.clone(), 1)),
        }
    }

    /// Empties it into words; `None`: nothing was counted.
    pub(crate) fn take(&mut self) -> Option<String> {
        let counts = std::mem::take(&mut self.counts);
        let words: Vec<_> = counts
            .iter()
            .map(|(label, count)| format!("{count} {label}"))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// What to count a step as that changed nothing; `None`: it is to be told by itself.
pub(crate) fn usual(words: &Words<'_>, input: &Input, effects: &[Effect]) -> Option<String> {
    if !effects.iter().all(is_usual) {
        return None;
    }
    match input {
        Input::Tick if effects.iter().any(|effect| is_sent(effect, is_beat)) => {
            Some("rounds of beats".into())
        }
        Input::Tick if !effects.is_empty() => Some("rounds of signs of life".into()),
        Input::Tick => Some("ticks".into()),
        Input::Message(message) => usual_message(words, message, effects),
        Input::Guard(GuardEvent::Armed { .. }) => Some("deadlines confirmed".into()),
        Input::Api {
            answer: ApiAnswer::Lease(_),
            ..
        } => Some("answers about the Lease".into()),
        Input::Api { .. } | Input::Guard(_) | Input::Condition(_) | Input::Command(_) => None,
    }
}

/// The Lease is looked at all the time; what an answer changed is told with its step.
pub(crate) fn usual_mark(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::LeaseAsked(_) => Some("calls sent"),
        Mark::LeaseAnswered(_) => Some("calls answered"),
        Mark::EndSeen
        | Mark::AsteriskGone
        | Mark::HandoverSent { .. }
        | Mark::TrafficAsked(_)
        | Mark::TrafficWritten(_)
        | Mark::AsteriskStarted
        | Mark::AsteriskBooted => None,
    }
}

fn usual_message(words: &Words<'_>, message: &Message, effects: &[Effect]) -> Option<String> {
    let name = words.name(message.from);
    match message.body {
        Body::Beat { .. } => effects
            .iter()
            .any(|effect| is_sent(effect, is_ack))
            .then(|| format!("beats of {name} acknowledged")),
        Body::Ack { .. } => Some(format!("acknowledgements of {name}")),
        Body::Hello => Some(format!("signs of life of {name}")),
        Body::Nack { .. } | Body::Handover { .. } | Body::Release | Body::Leave | Body::Dismiss => {
            None
        }
    }
}

fn is_usual(effect: &Effect) -> bool {
    match effect {
        Effect::Send(message) => {
            matches!(message.body, Body::Hello) || is_beat(message) || is_ack(message)
        }
        Effect::Call { call, .. } => matches!(call, ApiCall::Read),
        Effect::Arm { .. } => true,
        Effect::Record(_) | Effect::Stop | Effect::RestartInPlace { .. } | Effect::Notice(_) => {
            false
        }
    }
}

fn is_sent(effect: &Effect, is_kind: fn(&Message) -> bool) -> bool {
    matches!(effect, Effect::Send(message) if is_kind(message))
}

fn is_beat(message: &Message) -> bool {
    matches!(message.body, Body::Beat { .. })
}

fn is_ack(message: &Message) -> bool {
    matches!(message.body, Body::Ack { .. })
}
