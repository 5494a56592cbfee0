//! One client: what it is allowed, what it sent and has not been looked at, what waits for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::output::Output;
use crate::class::Classes;
use crate::filter::Filters;
use crate::user::User;
use crate::wire::{ActionReader, Message};

/// A client's place. A place is used again under another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    pub(super) place: u32,
    pub(super) life: u32,
}

impl SessionId {
    /// Its place: a small number, for tables of the shell.
    pub fn place(self) -> usize {
        self.place as usize
    }
}

/// Where a client is.
///
/// ```text
///  Anonymous ──► LoggedIn ──► Ending (what waits is written, then it is closed)
///      │  └─► Refused (its answer comes a second later) ──► Ending
///      └─────────────► Dropped (nothing is written any more)
/// ```
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It has not logged in yet.
    Anonymous,
    /// It has.
    LoggedIn(Arc<User>),
    /// It failed to; the answer waits, so that guessing is slow.
    Refused { answer_at: Instant },
    /// Closed after what waits for it.
    Ending,
    /// Closed at once.
    Dropped,
}

/// Whether the shell is to look at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dirt {
    /// It need not.
    None,
    /// With the next events.
    Lazy,
    /// At once.
    Now,
}

/// A client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// `None`: a unix socket.
    pub(super) peer: Option<IpAddr>,
    pub(super) opened_at: Instant,
    pub(super) phase: Phase,
    pub(super) reader: ActionReader,
    pub(super) output: Output,
    /// What it was told to answer to.
    pub(super) challenge: String,
    pub(super) is_challenged: bool,
    /// Classes of events that it wants, among those it may hear.
    pub(super) events: Classes,
    /// Its own filters, beside its user's.
    pub(super) filters: Filters,
    /// Actions sent and not answered yet.
    pub(super) unanswered: usize,
    /// It waits for its turn.
    pub(super) is_in_line: bool,
    /// Whether it is among those that the shell is told of.
    pub(super) dirt: Dirt,
    /// Since when something waits and nothing was written.
    pub(super) stuck_since: Option<Instant>,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        peer: Option<IpAddr>,
        challenge: String,
        now: Instant,
    ) -> Self {
        Self {
            id,
            peer,
            opened_at: now,
            phase: Phase::Anonymous,
            reader: ActionReader::default(),
            output: Output::default(),
            challenge,
            is_challenged: false,
            events: Classes::NONE,
            filters: Filters::default(),
            unanswered: 0,
            is_in_line: false,
            dirt: Dirt::None,
            stuck_since: None,
        }
    }

    pub(super) fn user(&self) -> Option<&Arc<User>> {
        match &self.phase {
            Phase::LoggedIn(user) => Some(user),
            _ => None,
        }
    }

    /// Whether it may and wants to hear an event of these classes.
    pub(super) fn hears(&self, classes: Classes, message: &Message<'_>) -> bool {
        let Phase::LoggedIn(user) = &self.phase else {
            return false;
        };
        self.events.includes(classes)
            && user.read.includes(classes)
            && user.filters.pass(message.bytes)
            && self.filters.pass(message.bytes)
    }

    /// Whether what it sends is still looked at.
    pub(super) fn is_listened_to(&self) -> bool {
        matches!(self.phase, Phase::Anonymous | Phase::LoggedIn(_))
    }

    /// Appends a response of the hub's own: `kind` is Success, Error or Goodbye.
    pub(super) fn respond(&mut self, kind: &str, action_id: &[u8], headers: &[(&str, &str)]) {
        let out = self.output.tail();
        write_response(out, kind, action_id, headers);
    }
}

/// A response as Asterisk writes one.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    kind: &str,
    action_id: &[u8],
    headers: &[(&str, &str)],
) {
    let mut header = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    header(b"Response", kind.as_bytes());
    if !action_id.is_empty() {
        header(b"ActionID", action_id);
    }
    for (name, value) in headers {
        header(name.as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
