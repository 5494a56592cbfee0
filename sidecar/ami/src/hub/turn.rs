//! Whose action goes next, and what becomes of it. Clients whose action waits for Asterisk stand in one line; each turn takes a few
//! actions of one, so a client with thousands waiting delays another by its share and no more.

use std::borrow::Cow;
use std::time::Instant;

use super::local::{Local, local_of};
use super::session::{Phase, Session, SessionId};
use super::upstream::{Asker, Stage, Upstream};
use super::{End, Hub, INPUT_LIMIT_BYTES, Submission, count};
use crate::class::Classes;
use crate::restrict::reaches_shell;
use crate::wire::Frame;

/// Actions of one turn.
const TURN: usize = 16;
/// Unanswered actions of one client.
pub(super) const CLIENT_UNANSWERED_LIMIT: usize = 64;
pub(super) const AWAY: &str = "No Asterisk is connected: the action was not sent";

/// What became of the action at the front.
enum Served {
    /// It was answered or sent.
    Done,
    /// It waits for Asterisk.
    Waits,
    /// Its client has enough under way; an answer brings its turn back.
    Capped,
    /// There is none.
    Idle,
}

/// What is to become of an action.
enum Verdict {
    Local(Local),
    Forward(Stage),
    /// Asked by a command line, since the action answers with bare text.
    Translate(&'static str),
    Wait,
    Refuse(Cow<'static, str>),
}

impl Hub {
    /// Looks at what a client sent: what the hub answers itself is answered, the rest gets in line.
    pub(super) fn examine(&mut self, id: SessionId, now: Instant) {
        while self
            .sessions
            .get(id)
            .is_some_and(|session| !session.is_in_line && session.is_listened_to())
        {
            match self.serve_front(id, now) {
                Served::Done => {}
                Served::Waits => self.get_in_line(id),
                Served::Capped | Served::Idle => return,
            }
        }
    }

    /// Sends what Asterisk takes, a turn for each in line.
    pub(super) fn take_turns(&mut self, now: Instant) {
        while self.upstream.has_room() {
            let submission = self.submissions.pop_front();
            let next = self.line.pop_front();
            if submission.is_none() && next.is_none() {
                return;
            }
            if let Some(submission) = submission {
                self.send_submission(&submission);
            }
            if let Some(id) = next {
                self.take_turn(id, now);
            }
        }
    }

    fn take_turn(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.is_in_line = false;
        let was_full = session.reader.held() >= INPUT_LIMIT_BYTES;
        for _ in 0..TURN {
            match self.serve_front(id, now) {
                Served::Done => {}
                Served::Waits => break,
                Served::Capped | Served::Idle => return self.read_on(id, was_full),
            }
        }
        self.get_in_line(id);
        self.read_on(id, was_full);
    }

    /// Tells the shell that a client whose input was full has room again.
    fn read_on(&mut self, id: SessionId, was_full: bool) {
        if was_full && self.wants_input(id) {
            self.mark(id);
        }
    }

    fn get_in_line(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.is_listened_to()
        {
            session.is_in_line = true;
            self.line.push_back(id);
        }
    }

    /// One action of a client is answered, so another may be sent.
    pub(super) fn answered(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.unanswered = session.unanswered.saturating_sub(1);
        if session.unanswered == CLIENT_UNANSWERED_LIMIT / 2
            && !session.is_in_line
            && session.reader.fetch()
        {
            self.get_in_line(id);
        }
    }

    /// Every client that waits learns that there is no Asterisk. The queue's actions wait on: that is what it is for.
    pub(super) fn refuse_waiting(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.line) {
            if let Some(session) = self.sessions.get_mut(id) {
                session.is_in_line = false;
                self.examine(id, now);
                self.mark(id);
            }
        }
    }

    fn serve_front(&mut self, id: SessionId, now: Instant) -> Served {
        let is_away = self.is_given_up(now);
        let Some(session) = self.sessions.get_mut(id) else {
            return Served::Idle;
        };
        if !session.reader.fetch() {
            return Served::Idle;
        }
        let frame = match session.reader.front().expect("just fetched") {
            Ok(frame) => frame,
            Err(fault) => {
                let (text, is_endless) = (fault.to_string(), *fault == crate::wire::Fault::Endless);
                self.refuse_front(id, &text);
                if is_endless {
                    self.end_session(id);
                }
                return Served::Done;
            }
        };
        match judge(&frame, session, &self.upstream, is_away) {
            Verdict::Local(local) => self.answer_front(id, local, now),
            Verdict::Refuse(why) => self.refuse_front(id, &why),
            Verdict::Wait => return Served::Waits,
            Verdict::Forward(_) | Verdict::Translate(_)
                if session.unanswered >= CLIENT_UNANSWERED_LIMIT =>
            {
                return Served::Capped;
            }
            Verdict::Forward(stage) => {
                if self.upstream.join(&frame, id) {
                    count(&self.counters.joined);
                } else {
                    count(&self.counters.actions);
                    self.upstream.ask(&frame, Asker::Client(id), stage);
                }
                self.forwarded(id);
            }
            Verdict::Translate(command) => {
                let text = translated(&frame, command);
                let frame = Frame::parse(&text).expect("the hub writes its own actions well");
                self.upstream
                    .ask(&frame, Asker::Client(id), Stage::Unwrapped);
                count(&self.counters.actions);
                self.forwarded(id);
            }
        }
        Served::Done
    }

    fn forwarded(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.unanswered += 1;
            session.reader.pop();
        }
    }

    fn refuse_front(&mut self, id: SessionId, why: &str) {
        count(&self.counters.actions_refused);
        if let Some(session) = self.sessions.get_mut(id) {
            let action_id = session.reader.front_id().to_vec();
            session.respond("Error", &action_id, &[("Message", why)]);
            session.reader.pop();
            self.mark(id);
        }
    }

    pub(super) fn end_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.phase = Phase::Ending;
            self.mark(id);
        }
    }

    fn send_submission(&mut self, submission: &Submission) {
        let number = submission.number;
        let refused = match Frame::parse(&submission.action) {
            Err(fault) => Some(Cow::from(fault.to_string())),
            Ok(frame) => match judge_forward(&frame, submission.write, &self.upstream) {
                Verdict::Refuse(why) => Some(why),
                _ if local_of(&frame).is_some() => {
                    Some("the queue takes no action of a session".into())
                }
                verdict => {
                    let stage = match verdict {
                        // A record of a call is done when the call is answered or has failed.
                        _ if frame.action.eq_ignore_ascii_case(b"Originate") => Stage::Calling,
                        _ => Stage::Response,
                    };
                    count(&self.counters.actions);
                    self.answers.insert(number, Vec::new());
                    self.upstream.ask(&frame, Asker::Queue(number), stage);
                    None
                }
            },
        };
        if let Some(why) = refused {
            count(&self.counters.actions_refused);
            self.end_submission(number, End::Refused(why.into_owned()));
        }
    }
}

fn judge(frame: &Frame<'_>, session: &Session, upstream: &Upstream, is_away: bool) -> Verdict {
    if let Some(local) = local_of(frame) {
        return Verdict::Local(local);
    }
    let Some(user) = session.user() else {
        return Verdict::Refuse("Permission denied".into());
    };
    if !upstream.is_ready() {
        return if is_away {
            Verdict::Refuse(AWAY.into())
        } else {
            Verdict::Wait
        };
    }
    match judge_forward(frame, user.write, upstream) {
        Verdict::Refuse(why) => Verdict::Refuse(why),
        _ if !upstream.has_room() => Verdict::Wait,
        verdict => verdict,
    }
}

/// Whether someone with these classes may have it done.
fn judge_forward(frame: &Frame<'_>, write: Classes, upstream: &Upstream) -> Verdict {
    let Some(classes) = upstream.classes_of(frame.action) else {
        let name = String::from_utf8_lossy(frame.action);
        return Verdict::Refuse(
            format!("Invalid/unknown command: {name}. Use Action: ListCommands to show available commands.").into(),
        );
    };
    if !write.permits(classes) {
        return Verdict::Refuse("Permission denied".into());
    }
    if !write.includes(Classes::SYSTEM) && reaches_shell(frame) {
        return Verdict::Refuse(
            "Permission denied: it may reach a shell, which needs the class system".into(),
        );
    }
    if frame.action.eq_ignore_ascii_case(b"IAXnetstats") {
        return Verdict::Translate("iax2 show netstats");
    }
    if frame.action.eq_ignore_ascii_case(b"Originate") && !frame.is_true("Async") {
        return Verdict::Forward(Stage::Calling);
    }
    Verdict::Forward(Stage::Response)
}

fn translated(frame: &Frame<'_>, command: &str) -> Vec<u8> {
    let mut text = format!("Action: Command\r\nCommand: {command}\r\n").into_bytes();
    if !frame.action_id.is_empty() {
        text.extend_from_slice(b"ActionID: ");
        text.extend_from_slice(frame.action_id);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}
