//! Inputs, effects and marks in plain words. Names of nodes come from the recording; moments are told from the step's own.

use std::time::Duration;

use pbx_core::{
    ApiAnswer, ApiCall, Body, BootTime, Command, Effect, FoundAtStart, GuardEvent, Holder, Input,
    LeaseContent, Message, Notice, Refusal, Seat, Start, View,
};

use super::Moment;
use crate::recorder::entry::Mark;

/// The names that sentences need.
pub(crate) struct Words<'a> {
    names: &'a [String],
}

impl<'a> Words<'a> {
    pub(crate) fn new(names: &'a [String]) -> Self {
        Self { names }
    }

    pub(crate) fn name(&self, seat: Seat) -> String {
        let name = self.names.get(usize::from(seat.0));
        name.map_or_else(|| format!("seat {}", seat.0), Clone::clone)
    }

    pub(crate) fn start(start: &Start) -> String {
        let record = match &start.record {
            None => "without a record".into(),
            Some(record) => format!("with its record (epoch {})", record.highest_epoch.0),
        };
        let found = match start.guard {
            FoundAtStart::Nothing => "Asterisk does not run".into(),
            FoundAtStart::Running { deadline: None } => "Asterisk runs, slack".into(),
            FoundAtStart::Running {
                deadline: Some(deadline),
            } => format!("Asterisk runs until {}", ahead(start.now, deadline)),
        };
        format!("the sidecar starts {record}; {found}")
    }

    /// The whole of a node in one line.
    pub(crate) fn state(&self, moment: &Moment) -> String {
        let active = match moment.view.active {
            Some((seat, epoch)) => format!("{} is active (epoch {})", self.name(seat), epoch.0),
            None => "nobody known is active".into(),
        };
        format!(
            "role {:?}, highest epoch {}, {active}",
            moment.view.role, moment.view.highest_epoch.0
        )
    }

    pub(crate) fn input(&self, now: BootTime, input: &Input, view: &View) -> String {
        match input {
            Input::Tick => "time passed".into(),
            Input::Message(message) => {
                let noted = if message.to_incarnation == view.incarnation {
                    ""
                } else {
                    " (to another life of this node: only noted)"
                };
                format!("{}{noted}", self.message(now, message))
            }
            Input::Api { call, answer } => {
                format!("the API, call {}: {}", call.0, self.answer(answer))
            }
            Input::Guard(event) => guard(now, *event),
            Input::Condition(condition) => format!(
                "this node is {}ready, the API {}",
                if condition.is_ready { "" } else { "not " },
                if condition.is_api_reachable {
                    "answers"
                } else {
                    "does not answer"
                },
            ),
            Input::Command(command) => self.command(*command),
        }
    }

    pub(crate) fn effect(&self, now: BootTime, effect: &Effect) -> String {
        match effect {
            Effect::Record(_) => "writes its record".into(),
            Effect::Send(message) => {
                format!("to {}: {}", self.name(message.to), Self::body(message))
            }
            Effect::Call {
                id,
                call: ApiCall::Read,
            } => format!("call {}: reads the Lease", id.0),
            Effect::Call {
                id,
                call: ApiCall::Write(write),
            } => {
                format!(
                    "call {}: writes the Lease: {}",
                    id.0,
                    self.lease(&write.content)
                )
            }
            Effect::Arm { deadline } => format!("orders the deadline {}", ahead(now, *deadline)),
            Effect::Stop => "orders Asterisk's stop".into(),
            Effect::RestartInPlace { deadline } => {
                format!(
                    "orders Asterisk's restart in place, deadline {}",
                    ahead(now, *deadline)
                )
            }
            Effect::Notice(notice) => self.notice(notice),
        }
    }

    pub(crate) fn mark(&self, mark: Mark) -> String {
        match mark {
            Mark::EndSeen => "* the guard saw Asterisk's end".into(),
            Mark::AsteriskGone => "* nothing of Asterisk is left".into(),
            Mark::HandoverSent { to } => {
                format!("* the handover to {} left the socket", self.name(to))
            }
            Mark::LeaseAsked(call) => format!("* call {} left for the API server", call.0),
            Mark::LeaseAnswered(call) => format!("* call {} was answered", call.0),
            Mark::TrafficAsked(epoch) => {
                format!("* the write of the traffic left (epoch {})", epoch.0)
            }
            Mark::TrafficWritten(epoch) => format!("* the traffic points here (epoch {})", epoch.0),
            Mark::AsteriskStarted => "* Asterisk was executed".into(),
            Mark::AsteriskBooted => "* Asterisk is fully booted".into(),
        }
    }

    fn message(&self, now: BootTime, message: &Message) -> String {
        let from = self.name(message.from);
        match message.body {
            // The echo is a stamp of this node's clock; the rest are the sender's, and mean nothing here.
            Body::Ack { beat_sent_at } => format!(
                "{from} acknowledges the beat of {} ago (epoch {})",
                span(now.since(beat_sent_at)),
                message.epoch.0
            ),
            Body::Handover { echo, .. } => format!(
                "from {from}: {}, counted from our stamp of {} ago",
                Self::body(message),
                span(now.since(echo))
            ),
            _ => format!("from {from}: {}", Self::body(message)),
        }
    }

    fn body(message: &Message) -> String {
        let epoch = message.epoch.0;
        match message.body {
            Body::Hello => format!("sign of life (epoch {epoch}{})", readiness(message)),
            Body::Beat { is_active } => format!(
                "beat (epoch {epoch}, {}{})",
                if is_active { "active" } else { "candidate" },
                readiness(message)
            ),
            Body::Ack { .. } => format!("acknowledgement (epoch {epoch})"),
            Body::Nack { because } => match because {
                Refusal::EpochTooLow => format!("refusal, it has seen epoch {epoch}"),
                Refusal::Committed => {
                    format!("refusal, its vote is not free (it has seen epoch {epoch})")
                }
                Refusal::Serving => format!("refusal, it serves under epoch {epoch}"),
            },
            Body::Handover {
                cause,
                detected_after_us,
                ..
            } => format!(
                "handover under epoch {epoch}: {cause:?}, {} before",
                span(Duration::from_micros(detected_after_us.into()))
            ),
            Body::Release => format!("release up to epoch {epoch}"),
            Body::Leave => "it leaves for good".into(),
            Body::Dismiss => "the leaver may go".into(),
        }
    }

    fn answer(&self, answer: &ApiAnswer) -> String {
        match answer {
            ApiAnswer::Lease(lease) => format!(
                "the Lease, version {}: {}",
                lease.version,
                self.lease(&lease.content)
            ),
            ApiAnswer::Missing => "there is no Lease".into(),
            ApiAnswer::Conflict => "somebody wrote in between".into(),
            ApiAnswer::Failed => "no answer".into(),
        }
    }

    fn lease(&self, content: &LeaseContent) -> String {
        let holder = match content.holder {
            Holder::Nobody => "free".into(),
            Holder::Created => "made anew, to be observed".into(),
            Holder::Node { seat, .. } => {
                format!("held by {} for {}", self.name(seat), span(content.hold))
            }
        };
        format!("{holder}, epoch {}", content.epoch.0)
    }

    fn command(&self, command: Command) -> String {
        match command {
            Command::Switchover { to, cause } => format!(
                "asked to hand over to {}: {cause:?}",
                to.map_or_else(|| "the best".into(), |to| self.name(to))
            ),
            Command::Leave => "told to leave for good".into(),
            Command::TrafficFailed { epoch } => {
                format!("the traffic could not be moved (epoch {})", epoch.0)
            }
            Command::LookAtSeats => "the Lease has other seats".into(),
            Command::SeenEpoch(epoch) => {
                format!("epoch {} stands where the traffic is written", epoch.0)
            }
        }
    }

    fn notice(&self, notice: &Notice) -> String {
        match notice {
            Notice::Promoted {
                epoch,
                from,
                cause,
                detection_us,
                promotion_us,
            } => format!(
                "PROMOTED under epoch {}: {cause:?}{}, decided {} after the cause, deadline confirmed {} after the decision",
                epoch.0,
                from.map_or_else(String::new, |from| format!(" of {}", self.name(from))),
                span(Duration::from_micros(*detection_us)),
                span(Duration::from_micros(*promotion_us)),
            ),
            Notice::Demoted { epoch, cause } => {
                format!("DEMOTED from epoch {}: {cause:?}", epoch.0)
            }
            Notice::EpochRaised { epoch } => format!("goes on under epoch {}", epoch.0),
            Notice::RestartedInPlace { epoch, reason } => {
                format!("RESTARTED in place under epoch {}: {reason:?}", epoch.0)
            }
            Notice::Resumed { epoch } => format!("RESUMED epoch {} from its record", epoch.0),
            Notice::SwitchoverRefused { reason } => format!("switchover refused: {reason:?}"),
            Notice::SeatsChanged => "the seats changed".into(),
            Notice::Left => "LEFT for good".into(),
        }
    }
}

/// A duration with three digits.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.1 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.001 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

fn ahead(now: BootTime, deadline: BootTime) -> String {
    if deadline < now {
        return format!("{} ago", span(now.since(deadline)));
    }
    format!("{} ahead", span(deadline.since(now)))
}

fn readiness(message: &Message) -> &'static str {
    if message.condition.is_ready {
        ""
    } else {
        ", not ready"
    }
}

fn guard(now: BootTime, event: GuardEvent) -> String {
    match event {
        GuardEvent::Armed { deadline } => {
            format!("the kernel keeps the deadline {}", ahead(now, deadline))
        }
        GuardEvent::Exited { at } => format!(
            "Asterisk has ended, seen by the guard {} ago",
            span(now.since(at))
        ),
        GuardEvent::Stopped => "Asterisk is certainly stopped".into(),
        GuardEvent::Adopted { deadline: None } => "the guard runs Asterisk, slack".into(),
        GuardEvent::Adopted {
            deadline: Some(deadline),
        } => {
            format!("the guard runs Asterisk, deadline {}", ahead(now, deadline))
        }
    }
}
