//! Actions as clients send them. A line here is a line to Asterisk (it ends at LF, a CR before it belongs to it), so that what is
//! checked here is what is read there: no value can begin a header or an action of its own.
//!
//! A bad action is read to its end and answered; the next one is read as if nothing had been. Memory stays below
//! [`FRAME_LIMIT_BYTES`] and one read, whatever comes.

use std::ops::Range;

use super::{line_at, lines, value_of};

/// The longest line; Asterisk takes 1022 bytes, and a longer one spoils the next action too.
pub const LINE_LIMIT_BYTES: usize = 1000;
/// Asterisk passes over the headers of an action beyond the 128th; the hub may add one.
pub const HEADERS_LIMIT: usize = 127;
/// The longest `ActionID`: the hub puts its own in front.
pub const ACTION_ID_LIMIT_BYTES: usize = 900;
/// The most that one action can have.
pub const FRAME_LIMIT_BYTES: usize = (HEADERS_LIMIT + 1) * (LINE_LIMIT_BYTES + 2);
/// A client that sends so much of one bad action is cut off.
pub const DISCARD_LIMIT_BYTES: usize = 4 << 20;

/// What is wrong with an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line that Asterisk would cut.
    #[error("Line {line} is longer than {LINE_LIMIT_BYTES} bytes: shorten its value")]
    LineTooLong {
        /// Counted from 1.
        line: usize,
    },
    /// More headers than Asterisk reads.
    #[error("The action has more than {HEADERS_LIMIT} headers: split it")]
    TooManyHeaders,
    /// CR or NUL inside a line.
    #[error("Line {line} has a carriage return or a NUL in it: remove it")]
    ControlCharacter {
        /// Counted from 1.
        line: usize,
    },
    /// A line without a colon.
    #[error("Line {line} is no header: write it as Name: value")]
    NoColon {
        /// Counted from 1.
        line: usize,
    },
    /// `Action` or `ActionID` stands there more than once.
    #[error("Line {line} repeats a header that may stand once")]
    Repeated {
        /// Counted from 1.
        line: usize,
    },
    /// An identifier that leaves no room for the hub's.
    #[error("The ActionID is longer than {ACTION_ID_LIMIT_BYTES} bytes: shorten it")]
    ActionIdTooLong,
    /// No `Action` header.
    #[error("Missing action in request")]
    NoAction,
    /// A bad action without an end.
    #[error("The action has no end after {DISCARD_LIMIT_BYTES} bytes: the connection is closed")]
    Endless,
}

impl Fault {
    /// A stable name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::LineTooLong { .. } => "LineTooLong",
            Self::TooManyHeaders => "TooManyHeaders",
            Self::ControlCharacter { .. } => "ControlCharacter",
            Self::NoColon { .. } => "NoColon",
            Self::Repeated { .. } => "RepeatedHeader",
            Self::ActionIdTooLong => "ActionIdTooLong",
            Self::NoAction => "NoAction",
            Self::Endless => "EndlessAction",
        }
    }
}

/// A whole action, well formed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// All its lines, the empty one at its end included.
    pub bytes: &'a [u8],
    /// What is to be done.
    pub action: &'a [u8],
    /// The client's identifier, empty if it gave none.
    pub action_id: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads one action from bytes that hold exactly one.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut scan = Scan::default();
        let mut at = 0;
        while let Some((end, next)) = line_at(bytes, at, at) {
            if end == at {
                break;
            }
            scan.add_line(bytes, at..end)?;
            at = next;
        }
        scan.frame(bytes)
    }

    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        lines(self.bytes)
    }

    /// The first value of a header that is not empty, as Asterisk chooses.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.lines()
            .filter_map(|line| value_of(line, name.as_bytes()))
            .find(|value| !value.is_empty())
    }

    /// Whether a header says yes, in one of Asterisk's words.
    pub fn is_true(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default();
        ["yes", "true", "y", "t", "1", "on"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
    }
}

impl std::fmt::Debug for Frame<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(self.bytes);
        // Secrets stay out of logs.
        if value_of(self.bytes, b"Action").is_some_and(|value| value.starts_with(b"Login")) {
            return formatter.write_str("Frame(Login)");
        }
        formatter.debug_tuple("Frame").field(&text).finish()
    }
}

/// Collects bytes and gives actions. `fetch` until it says no, `front` what was fetched, `pop` it.
#[derive(Debug, Default)]
pub struct ActionReader {
    buffer: Vec<u8>,
    /// Where the action begins that is being read, or is at the front.
    start: usize,
    /// Where its unread line begins, and how far no line end was found.
    line: usize,
    searched: usize,
    scan: Scan,
    fault: Option<Fault>,
    /// Of the bad action that is passed over.
    discarded: usize,
    is_inside_long_line: bool,
    front: Option<Result<usize, Fault>>,
}

impl ActionReader {
    /// Takes bytes as they arrive, split anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.line -= self.start;
            self.searched -= self.start;
            if let Some(Ok(end)) = &mut self.front {
                *end -= self.start;
            }
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether an action, good or bad, is at the front, reading on where necessary.
    pub fn fetch(&mut self) -> bool {
        while self.front.is_none() {
            if !self.read_line() {
                return false;
            }
        }
        true
    }

    /// The action at the front, once [`Self::fetch`] said yes.
    pub fn front(&self) -> Option<Result<Frame<'_>, &Fault>> {
        let front = self.front.as_ref()?;
        Some(front.as_ref().map(|end| {
            let bytes = &self.buffer[self.start..*end];
            Frame {
                bytes,
                action: &bytes[self.scan.action.clone()],
                action_id: &bytes[self.scan.action_id.clone()],
            }
        }))
    }

    /// The identifier of the action at the front, as far as one was read.
    pub fn front_id(&self) -> &[u8] {
        &self.scan.kept_id
    }

    /// Goes on behind the action at the front.
    pub fn pop(&mut self) {
        if let Some(Ok(end)) = self.front.take() {
            self.start = end;
            self.line = end;
            self.searched = end;
        }
        self.scan.clear();
        if self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.line, self.searched) = (0, 0, 0);
            if self.buffer.capacity() > IDLE_CAPACITY_BYTES {
                self.buffer.shrink_to(0);
            }
        }
    }

    /// One line further; false when there is none.
    fn read_line(&mut self) -> bool {
        let Some((end, next)) = line_at(&self.buffer, self.line, self.searched) else {
            self.searched = self.buffer.len();
            self.bound_unended_line();
            return self.front.is_some();
        };
        let is_rest = std::mem::take(&mut self.is_inside_long_line);
        let is_empty = end == self.line && !is_rest;
        let (line, begun) = (
            self.line - self.start..end - self.start,
            self.scan.lines > 0,
        );
        (self.line, self.searched) = (next, next);
        if let Some(fault) = &self.fault {
            let fault = fault.clone();
            self.discard(is_empty, fault);
        } else if is_empty && begun {
            self.end_frame(next);
        } else if is_empty {
            // Asterisk answers an empty action with an error; clients send empty lines to stay alive.
            self.start = next;
        } else if let Err(fault) = self.scan.add_line(&self.buffer[self.start..], line) {
            self.discard(false, fault);
        }
        true
    }

    fn end_frame(&mut self, next: usize) {
        match self.scan.frame(&self.buffer[self.start..next]) {
            Ok(_) => self.front = Some(Ok(next)),
            Err(fault) => self.discard(true, fault),
        }
    }

    /// Drops what was read of a bad action; at its end the fault is at the front.
    fn discard(&mut self, is_end: bool, fault: Fault) {
        self.discarded += self.line - self.start;
        self.start = self.line;
        if is_end || self.discarded > DISCARD_LIMIT_BYTES {
            let is_endless = !is_end;
            self.front = Some(Err(if is_endless { Fault::Endless } else { fault }));
            self.fault = None;
            self.discarded = 0;
        } else {
            self.fault = Some(fault);
        }
    }

    fn bound_unended_line(&mut self) {
        if self.searched - self.line <= LINE_LIMIT_BYTES + 1 {
            return;
        }
        let line = self.scan.lines + 1;
        let fault = self.fault.clone().unwrap_or(Fault::LineTooLong { line });
        self.is_inside_long_line = true;
        self.line = self.searched;
        self.discard(false, fault);
    }
}

/// An idle client's buffer is given back beyond this.
const IDLE_CAPACITY_BYTES: usize = 4 << 10;

/// What is known of the action that is being read; ranges count from its beginning.
#[derive(Debug, Default)]
struct Scan {
    lines: usize,
    action: Range<usize>,
    action_id: Range<usize>,
    has_action: bool,
    has_action_id: bool,
    /// Kept beside the bytes, which a bad action loses.
    kept_id: Vec<u8>,
}

impl Scan {
    fn add_line(&mut self, bytes: &[u8], line: Range<usize>) -> Result<(), Fault> {
        self.lines += 1;
        let (number, text) = (self.lines, &bytes[line.clone()]);
        if text.len() > LINE_LIMIT_BYTES {
            return Err(Fault::LineTooLong { line: number });
        }
        if number > HEADERS_LIMIT {
            return Err(Fault::TooManyHeaders);
        }
        if memchr::memchr2(b'\r', 0, text).is_some() {
            return Err(Fault::ControlCharacter { line: number });
        }
        if memchr::memchr(b':', text).is_none() {
            return Err(Fault::NoColon { line: number });
        }
        if !matches!(text[0], b'a' | b'A') {
            return Ok(());
        }
        if let Some(value) = value_of(text, b"ActionID") {
            let range = line.end - value.len()..line.end;
            return self.note_id(value, range, number);
        }
        if let Some(value) = value_of(text, b"Action") {
            if std::mem::replace(&mut self.has_action, true) {
                return Err(Fault::Repeated { line: number });
            }
            self.action = line.end - value.len()..line.end;
        }
        Ok(())
    }

    fn note_id(&mut self, value: &[u8], range: Range<usize>, number: usize) -> Result<(), Fault> {
        if std::mem::replace(&mut self.has_action_id, true) {
            return Err(Fault::Repeated { line: number });
        }
        if value.len() > ACTION_ID_LIMIT_BYTES {
            return Err(Fault::ActionIdTooLong);
        }
        self.kept_id.extend_from_slice(value);
        self.action_id = range;
        Ok(())
    }

    fn frame<'a>(&self, bytes: &'a [u8]) -> Result<Frame<'a>, Fault> {
        if self.action.is_empty() {
            return Err(Fault::NoAction);
        }
        Ok(Frame {
            bytes,
            action: &bytes[self.action.clone()],
            action_id: &bytes[self.action_id.clone()],
        })
    }

    fn clear(&mut self) {
        let mut kept_id = std::mem::take(&mut self.kept_id);
        kept_id.clear();
        *self = Self {
            kept_id,
            ..Self::default()
        };
    }
}

#[cfg(test)]
#[path = "action_tests.rs"]
mod tests;
