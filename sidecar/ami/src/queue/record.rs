//! An action of the queue, from its arrival to its end.

use serde::{Deserialize, Serialize};

use crate::hub::{End, Outcome, first_in};
use crate::wire::{Frame, lines};

/// Where an action is.
///
/// ```text
///  New ──► Ready ──► Sent ──► Done
///            │         ├────► Failed (Asterisk said no)
///            │         └────► Unknown (nobody knows what became of it; it is not repeated)
///            └──────────────► Failed (it was refused, and not sent)
/// ```
/// From `Ready` on each state is on disk before anything follows from it: `Sent` before the first byte leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has come, and is not on disk yet.
    New,
    /// It waits for its turn.
    Ready,
    /// It may have left.
    Sent,
    /// Asterisk did it.
    Done,
    /// It was not done.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl State {
    /// Whether nothing more will happen to it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Unknown)
    }
}

/// An action with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its number, never used again.
    pub id: u64,
    /// Where it is.
    pub state: State,
    /// What is to be done, such as `Originate`.
    pub action: String,
    /// Its lines as on the wire, without those that are the hub's.
    pub lines: Vec<String>,
    /// The classes that its user may use, as a number.
    pub write: u32,
    /// Actions of one lane are done one after the other: the action file that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Wall clock, milliseconds since 1970.
    pub created_ms: u64,
    /// When it came into its state.
    pub changed_ms: u64,
    /// The channel that it concerns or made, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// That channel's unique identifier, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uniqueid: Option<String>,
    /// Every line that Asterisk answered, an empty one between messages.
    #[serde(default)]
    pub answer: Vec<String>,
    /// Why it failed, or why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    /// The action as on the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut text = self.lines.join("\r\n");
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }

    /// A record of an action that has come.
    pub(super) fn new(id: u64, arrival: &Arrival, lane: Option<&str>, now_ms: u64) -> Self {
        let wire = arrival.wire();
        let frame = Frame::parse(&wire).ok();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            id,
            state: State::New,
            action: frame.map(|frame| text(frame.action)).unwrap_or_default(),
            lines: arrival.lines.clone(),
            write: arrival.write,
            lane: lane.map(str::to_owned),
            created_ms: now_ms,
            changed_ms: now_ms,
            channel: frame.and_then(|frame| frame.get("Channel").map(text)),
            uniqueid: None,
            answer: Vec::new(),
            error: None,
        }
    }

    pub(super) fn enter(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.changed_ms = now_ms;
    }

    /// Its end.
    pub(super) fn close(&mut self, outcome: &Outcome, now_ms: u64) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = |name: &str| first_in(&outcome.answer, name).filter(|value| !value.is_empty());
        self.answer = split(&outcome.answer);
        self.uniqueid = said("Uniqueid").map(text).or(self.uniqueid.take());
        self.channel = said("Channel").map(text).or(self.channel.take());
        let state = match &outcome.end {
            End::Answered { is_success: true } => State::Done,
            End::Answered { is_success: false } => {
                let reason = said("Message")
                    .or(said("Reason"))
                    .unwrap_or(b"no reason given");
                self.error = Some(text(reason));
                State::Failed
            }
            End::Refused(why) => {
                self.error = Some(why.clone());
                State::Failed
            }
            End::Unknown(why) => {
                self.error = Some(why.clone());
                State::Unknown
            }
        };
        self.enter(state, now_ms);
    }
}

/// An action as it comes in.
#[derive(Clone, Debug)]
pub struct Arrival {
    lines: Vec<String>,
    write: u32,
}

impl Arrival {
    /// From lines such as `Action: Ping`, to be done with these rights. The error says what is wrong.
    pub fn new(lines: Vec<String>, write: crate::class::Classes) -> Result<Self, String> {
        if let Some(at) = lines
            .iter()
            .position(|line| line.contains(['\r', '\n', '\0']) || line.is_empty())
        {
            return Err(format!(
                "header {}: has a line end or NUL in it, or is empty: remove it",
                at + 1
            ));
        }
        let arrival = Self {
            lines,
            write: write.bits(),
        };
        Frame::parse(&arrival.wire()).map_err(|fault| fault.to_string())?;
        Ok(arrival)
    }

    fn wire(&self) -> Vec<u8> {
        format!("{}\r\n\r\n", self.lines.join("\r\n")).into_bytes()
    }
}

fn split(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
    if all.last().is_some_and(String::is_empty) {
        all.pop();
    }
    all
}

/// The actions in a text, each a list of lines; the error names the one that is bad.
pub fn actions_in(text: &[u8]) -> Result<Vec<Vec<String>>, String> {
    let mut reader = crate::wire::ActionReader::default();
    reader.push(text);
    reader.push(b"\r\n\r\n");
    let mut actions = Vec::new();
    while reader.fetch() {
        let number = actions.len() + 1;
        let frame = reader.front().expect("just fetched");
        let frame = frame.map_err(|fault| format!("action {number}: {fault}"))?;
        let texts = lines(frame.bytes).map(|line| String::from_utf8(line.to_vec()));
        let texts: Result<Vec<String>, _> = texts.collect();
        actions.push(texts.map_err(|_| format!("action {number}: is no UTF-8"))?);
        reader.pop();
    }
    Ok(actions)
}
