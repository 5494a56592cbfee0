//! Actions that concern a client's session: the hub answers them itself, in Asterisk's words.

use std::time::{Duration, Instant};

use super::session::{Phase, Session, SessionId};
use super::{Hub, count};
use crate::class::Classes;
use crate::user::{Proof, Users};
use crate::wire::Frame;

/// How long a wrong login waits for its answer, as with Asterisk: so guessing is slow.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Challenge,
    Login,
    Logoff,
    Events,
    Filter,
    WaitEvent,
}

/// The action, if the hub answers it itself.
pub(super) fn local_of(frame: &Frame<'_>) -> Option<Local> {
    const ALL: [(&[u8], Local); 6] = [
        (b"Login", Local::Login),
        (b"Challenge", Local::Challenge),
        (b"Logoff", Local::Logoff),
        (b"Events", Local::Events),
        (b"Filter", Local::Filter),
        (b"WaitEvent", Local::WaitEvent),
    ];
    let mut all = ALL.iter();
    let found = all.find(|(name, _)| frame.action.eq_ignore_ascii_case(name))?;
    Some(found.1)
}

impl Hub {
    pub(super) fn answer_front(&mut self, id: SessionId, local: Local, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let reader = std::mem::take(&mut session.reader);
        if let Some(Ok(frame)) = reader.front() {
            match local {
                Local::Login => {
                    if log_in(session, &frame, &self.users, now) {
                        greet(session, self.upstream.fully_booted.as_deref());
                    } else {
                        count(&self.counters.refused);
                    }
                }
                Local::Challenge => challenge(session, &frame),
                Local::Logoff => log_off(session, &frame),
                Local::Events => set_events(session, &frame),
                Local::Filter => add_filter(session, &frame),
                Local::WaitEvent => session.respond(
                    "Error",
                    frame.action_id,
                    &[(
                        "Message",
                        "WaitEvent is for HTTP: events come here by themselves",
                    )],
                ),
            }
        }
        session.reader = reader;
        session.reader.pop();
        self.mark(id);
    }
}

/// Whether it may come in.
fn log_in(session: &mut Session, frame: &Frame<'_>, users: &Users, now: Instant) -> bool {
    if session.user().is_some() {
        session.respond(
            "Error",
            frame.action_id,
            &[("Message", "You are logged in already")],
        );
        return true;
    }
    let name = String::from_utf8_lossy(frame.get("Username").unwrap_or_default());
    let is_md5 = frame
        .get("AuthType")
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"MD5"));
    let proof = if is_md5 {
        Proof::Md5 {
            challenge: &session.challenge,
            key: frame.get("Key").unwrap_or_default(),
        }
    } else {
        Proof::Secret(frame.get("Secret").unwrap_or_default())
    };
    // A key for a challenge that was never asked for is a guess.
    let user = users
        .authenticate(&name, proof, session.peer)
        .filter(|_| !is_md5 || session.is_challenged);
    let Some(user) = user else {
        session.respond(
            "Error",
            frame.action_id,
            &[("Message", "Authentication failed")],
        );
        session.phase = Phase::Refused {
            answer_at: now + REFUSAL_DELAY,
        };
        return false;
    };
    session.events = frame.get("Events").map_or(Classes::ALL, event_mask);
    session.phase = Phase::LoggedIn(user);
    session.respond(
        "Success",
        frame.action_id,
        &[("Message", "Authentication accepted")],
    );
    true
}

/// As Asterisk, a newcomer learns that it is booted.
fn greet(session: &mut Session, fully_booted: Option<&[u8]>) {
    let Some(user) = session.user() else {
        return;
    };
    let may_hear = user.read.includes(Classes::SYSTEM) && session.events.includes(Classes::SYSTEM);
    if let Some(event) = fully_booted.filter(|_| may_hear) {
        session.output.tail().extend_from_slice(event);
    }
}

fn challenge(session: &mut Session, frame: &Frame<'_>) {
    let kind = frame.get("AuthType").unwrap_or_default();
    if !kind.eq_ignore_ascii_case(b"MD5") {
        session.respond(
            "Error",
            frame.action_id,
            &[("Message", "Must specify AuthType")],
        );
        return;
    }
    session.is_challenged = true;
    let challenge = session.challenge.clone();
    session.respond("Success", frame.action_id, &[("Challenge", &challenge)]);
}

fn log_off(session: &mut Session, frame: &Frame<'_>) {
    let thanks = [("Message", "Thanks for all the fish.")];
    session.respond("Goodbye", frame.action_id, &thanks);
    session.phase = Phase::Ending;
}

fn set_events(session: &mut Session, frame: &Frame<'_>) {
    if session.user().is_none() {
        return deny(session, frame);
    }
    session.events = event_mask(frame.get("EventMask").unwrap_or_default());
    let state = if session.events == Classes::NONE {
        "Off"
    } else {
        "On"
    };
    session.respond("Success", frame.action_id, &[("Events", state)]);
}

fn add_filter(session: &mut Session, frame: &Frame<'_>) {
    let may = session
        .user()
        .is_some_and(|user| user.write.includes(Classes::SYSTEM));
    if !may {
        return deny(session, frame);
    }
    let operation = frame.get("Operation").unwrap_or_default();
    if !operation.eq_ignore_ascii_case(b"Add") {
        let unknown = [("Message", "Unknown operation: only Add is known")];
        return session.respond("Error", frame.action_id, &unknown);
    }
    let filter = String::from_utf8_lossy(frame.get("Filter").unwrap_or_default());
    match session.filters.add(&filter) {
        Ok(()) => session.respond("Success", frame.action_id, &[("Message", "Success")]),
        Err(error) => {
            let text = error.to_string().replace(['\r', '\n'], " ");
            session.respond("Error", frame.action_id, &[("Message", &text)]);
        }
    }
}

fn deny(session: &mut Session, frame: &Frame<'_>) {
    let denied = [("Message", "Permission denied")];
    session.respond("Error", frame.action_id, &denied);
}

/// `on`, `off`, or classes; what is none of these is off, as with Asterisk.
fn event_mask(text: &[u8]) -> Classes {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    match text.as_str() {
        "on" | "yes" | "true" | "1" => Classes::ALL,
        list => Classes::parse(list).unwrap_or(Classes::NONE),
    }
}
