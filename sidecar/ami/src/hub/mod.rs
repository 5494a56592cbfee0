//! The hub as a state machine: bytes of clients and of Asterisk in, bytes for them out. No sockets, no clock, no randomness.
//!
//! Reading order: here what enters and leaves; `session.rs` (a client), `upstream.rs` (the connection to Asterisk), `turn.rs` (whose
//! action goes next, and what becomes of it), `local.rs` (what the hub answers itself), `answer.rs` (what Asterisk says).
//!
//! After each input the shell asks whom to write to ([`Hub::take_dirty`]), writes, and says how far it came.

mod answer;
mod local;
mod output;
mod session;
mod sessions;
#[cfg(test)]
mod tests;
mod turn;
mod upstream;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use answer::first_in;
pub use output::OUTPUT_LIMIT_BYTES;
pub use session::SessionId;
use session::{Dirt, Phase, Session};
use sessions::Sessions;
pub use upstream::Account;
use upstream::{Asked, Asker, Stage, Upstream};

use crate::class::Classes;
use crate::user::Users;

/// The most clients at a time.
pub const CLIENTS_LIMIT: usize = 1024;
/// The most bytes of a client that wait for their turn; then it is not read from.
pub const INPUT_LIMIT_BYTES: usize = 64 << 10;
/// To log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of what waits for it.
const STUCK_LIMIT: Duration = Duration::from_secs(10);
/// Actions wait so long for an Asterisk that is not there; then they are refused.
const HOLD: Duration = Duration::from_secs(10);
/// Events to one client leave at most so often: a write each would cost more than all the rest.
const EVENTS_PACE: Duration = Duration::from_millis(1);
/// How often time itself is looked at,
const TICK: Duration = Duration::from_millis(250);
/// … and while nobody waits for anything: often enough to ping a silent Asterisk.
const CALM_TICK: Duration = Duration::from_secs(10);
/// What is kept of an answer for the queue.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;

/// What has happened so far, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clients at present.
    pub clients: AtomicU64,
    /// Clients ever.
    pub accepted: AtomicU64,
    /// Clients refused: too many, or a wrong login.
    pub refused: AtomicU64,
    /// Clients dropped since they did not read.
    pub dropped_slow: AtomicU64,
    /// Actions forwarded.
    pub actions: AtomicU64,
    /// Pings that shared the answer to another one.
    pub joined: AtomicU64,
    /// Actions refused: malformed, unknown or without right.
    pub actions_refused: AtomicU64,
    /// Actions whose outcome is unknown.
    pub unknown: AtomicU64,
    /// Events heard from Asterisk.
    pub events: AtomicU64,
    /// Messages of Asterisk that belong to nothing.
    pub stray: AtomicU64,
    /// Connections to Asterisk that came up.
    pub connections: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How an action of the queue ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Asterisk answered.
    Answered {
        /// `Response: Success`, and of a call that it was answered.
        is_success: bool,
    },
    /// It was not sent.
    Refused(String),
    /// It was sent, and nobody knows what became of it.
    Unknown(String),
}

/// An action of the queue that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its number.
    pub number: u64,
    /// How.
    pub end: End,
    /// Every message that belongs to the answer, as Asterisk sent it; cut beyond 1 MiB.
    pub answer: Vec<u8>,
}

/// An action of the queue.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its number, unique among those under way.
    pub number: u64,
    /// One whole action as on the wire.
    pub action: Vec<u8>,
    /// What its user may do.
    pub write: Classes,
}

/// The machine.
#[derive(Debug)]
pub struct Hub {
    users: Users,
    sessions: Sessions,
    upstream: Upstream,
    /// Clients whose next action waits for Asterisk, each once.
    line: VecDeque<SessionId>,
    submissions: VecDeque<Submission>,
    answers: HashMap<u64, Vec<u8>>,
    outcomes: Vec<Outcome>,
    dirty: Vec<SessionId>,
    lazily_dirty: Vec<SessionId>,
    events_sent_at: Instant,
    ticked_at: Instant,
    give_up: Option<String>,
    counters: Arc<Counters>,
}

impl Hub {
    /// A hub of these users. `mark` makes its identifiers its own: some random letters or digits.
    pub fn new(users: Users, mark: &str, now: Instant) -> Self {
        Self {
            users,
            sessions: Sessions::default(),
            upstream: Upstream::new(mark, now),
            line: VecDeque::new(),
            submissions: VecDeque::new(),
            answers: HashMap::new(),
            outcomes: Vec::new(),
            dirty: Vec::new(),
            lazily_dirty: Vec::new(),
            events_sent_at: now,
            ticked_at: now,
            give_up: None,
            counters: Arc::new(Counters::default()),
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// A client has come, from `peer` or by a unix socket. `challenge` is random digits. `None`: there are too many.
    pub fn open(
        &mut self,
        peer: Option<IpAddr>,
        challenge: String,
        now: Instant,
    ) -> Option<SessionId> {
        if self.sessions.count() >= CLIENTS_LIMIT {
            count(&self.counters.refused);
            return None;
        }
        let id = self
            .sessions
            .insert(|id| Session::new(id, peer, challenge, now));
        let default = b"Asterisk Call Manager/11.0.0".as_slice();
        let banner = self.upstream.banner.as_deref().unwrap_or(default);
        let session = self.sessions.get_mut(id).expect("just inserted");
        session.output.tail().extend_from_slice(banner);
        session.output.tail().extend_from_slice(b"\r\n");
        count(&self.counters.accepted);
        self.counters.clients.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    /// A client sent something.
    pub fn client_bytes(&mut self, id: SessionId, bytes: &[u8], now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.is_listened_to() {
            session.reader.push(bytes);
            self.examine(id, now);
            self.take_turns(now);
        }
    }

    /// A client is gone. Its actions under way are carried out, and their answers dropped.
    pub fn close(&mut self, id: SessionId) {
        if self.sessions.get(id).is_some() {
            self.sessions.remove(id);
            self.counters.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether a client should be read from.
    pub fn wants_input(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| {
            session.is_listened_to() && session.reader.held() < INPUT_LIMIT_BYTES
        })
    }

    /// What is to be written to a client.
    pub fn unsent(&self, id: SessionId) -> &[u8] {
        let session = self.sessions.get(id);
        // The answer to a wrong login waits for its second.
        let session = session.filter(|session| !matches!(session.phase, Phase::Refused { .. }));
        session.map_or(&[], |session| session.output.unsent())
    }

    /// So many bytes were written to a client.
    pub fn sent(&mut self, id: SessionId, bytes: usize) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.output.advance(bytes);
            session.stuck_since = None;
        }
    }

    /// Whether a client's connection is to be closed now.
    pub fn is_over(&self, id: SessionId) -> bool {
        self.sessions
            .get(id)
            .is_none_or(|session| match session.phase {
                Phase::Dropped => true,
                Phase::Ending => session.output.is_empty(),
                _ => false,
            })
    }

    /// Clients to write to, or to close. Events wait for their pace.
    pub fn take_dirty(&mut self, now: Instant, into: &mut Vec<SessionId>) {
        if !self.lazily_dirty.is_empty() && now >= self.events_sent_at + EVENTS_PACE {
            self.events_sent_at = now;
            self.dirty.append(&mut self.lazily_dirty);
        }
        for id in self.dirty.drain(..) {
            if let Some(session) = self.sessions.get_mut(id) {
                // One that is in both lists is told once.
                if std::mem::replace(&mut session.dirt, Dirt::None) != Dirt::None {
                    into.push(id);
                }
            }
        }
    }

    /// Actions of the queue that have ended.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// An action of the queue.
    pub fn submit(&mut self, submission: Submission, now: Instant) {
        self.submissions.push_back(submission);
        self.take_turns(now);
    }

    /// A connection to Asterisk's manager is there; on it the hub logs in with this account.
    pub fn upstream_connected(&mut self, account: Account, now: Instant) {
        self.give_up = None;
        self.upstream.connected(account, now);
    }

    /// The connection to Asterisk is gone: nobody knows what became of the actions that were sent. None is sent again.
    pub fn upstream_lost(&mut self, now: Instant) {
        let was_ready = self.upstream.is_ready();
        self.give_up = None;
        for asked in self.upstream.lost(now) {
            self.tell_unknown(&asked);
        }
        if was_ready {
            self.announce("Lost");
        }
    }

    /// What is to be written to Asterisk.
    pub fn upstream_unsent(&self) -> &[u8] {
        self.upstream.unwritten()
    }

    /// So many bytes were written to Asterisk.
    pub fn upstream_sent(&mut self, bytes: usize, now: Instant) {
        self.upstream.written(bytes);
        self.take_turns(now);
    }

    /// Why the connection to Asterisk is to be closed, if it is.
    pub fn upstream_fault(&self) -> Option<&str> {
        self.give_up.as_deref()
    }

    /// Whether actions are taken at present.
    pub fn is_ready(&self) -> bool {
        self.upstream.is_ready()
    }

    /// When [`Self::tick`] is due.
    pub fn next_deadline(&self) -> Instant {
        let tick = self.ticked_at + self.pace();
        if self.lazily_dirty.is_empty() {
            tick
        } else {
            tick.min(self.events_sent_at + EVENTS_PACE)
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        if now < self.ticked_at + self.pace() {
            return;
        }
        self.ticked_at = now;
        if let Err(why) = self.upstream.tick(now) {
            self.give_up = Some(why);
        }
        let mut due = Vec::new();
        for session in self.sessions.iter_mut() {
            if tick_session(session, &self.counters, now) {
                due.push(session.id);
            }
        }
        for id in due {
            self.mark(id);
        }
        if self.is_given_up(now) {
            self.refuse_waiting(now);
        }
    }

    fn pace(&self) -> Duration {
        let is_calm = self.sessions.count() == 0
            && self.line.is_empty()
            && self.submissions.is_empty()
            && self.upstream.is_idle();
        if is_calm { CALM_TICK } else { TICK }
    }

    /// Whether Asterisk has been away for so long that actions are refused.
    fn is_given_up(&self, now: Instant) -> bool {
        let since = self.upstream.unready_since();
        since.is_some_and(|since| now.saturating_duration_since(since) > HOLD)
    }

    /// The shell is to look at a client.
    fn mark(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id)
            && std::mem::replace(&mut session.dirt, Dirt::Now) != Dirt::Now
        {
            self.dirty.push(id);
        }
    }

    fn tell_unknown(&mut self, asked: &Asked) {
        const WHY: &str = "Outcome unknown: the connection to Asterisk ended before the answer; the action is not repeated";
        match asked.by {
            Asker::Hub => {}
            Asker::Client(id) => {
                count(&self.counters.unknown);
                if asked.stage != Stage::Called {
                    self.answered(id);
                }
                if let Some(session) = self.sessions.get_mut(id) {
                    session.respond("Error", &asked.action_id, &[("Message", WHY)]);
                    self.mark(id);
                }
            }
            Asker::Queue(number) => {
                count(&self.counters.unknown);
                self.end_submission(number, End::Unknown(WHY.to_owned()));
            }
        }
    }

    fn end_submission(&mut self, number: u64, end: End) {
        let answer = self.answers.remove(&number).unwrap_or_default();
        self.outcomes.push(Outcome {
            number,
            end,
            answer,
        });
    }
}

/// What time does to a client; whether the shell must look at it.
fn tick_session(session: &mut Session, counters: &Counters, now: Instant) -> bool {
    let age = now.saturating_duration_since(session.opened_at);
    match session.phase {
        Phase::Refused { answer_at } if now >= answer_at => {
            session.phase = Phase::Ending;
            return true;
        }
        Phase::Anonymous if age > LOGIN_TIMEOUT => {
            session.phase = Phase::Dropped;
            return true;
        }
        _ => {}
    }
    if session.output.is_empty() || matches!(session.phase, Phase::Refused { .. }) {
        session.stuck_since = None;
        return false;
    }
    let since = *session.stuck_since.get_or_insert(now);
    if now.saturating_duration_since(since) > STUCK_LIMIT {
        count(&counters.dropped_slow);
        session.phase = Phase::Dropped;
        session.output.clear();
    }
    true
}
