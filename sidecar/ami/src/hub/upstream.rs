//! The one connection to Asterisk: its phases, what was asked on it and by whom. Pure.
//!
//! Each action carries an identifier of the hub's own, `<mark>.<number>.<the client's>`: what Asterisk echoes, in answers and in
//! events, tells by itself whose it is and what the client called it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::session::SessionId;
use crate::class::Classes;
use crate::user::md5_key;
use crate::wire::{Frame, Message, MessageReader, value_of};

/// The most actions that are sent and not answered. Enough for Asterisk never to wait for the hub, few enough that a newcomer's turn
/// comes soon.
const UNANSWERED_LIMIT: usize = 1024;
/// The most bytes that wait to be written to Asterisk.
const UNWRITTEN_LIMIT_BYTES: usize = 256 << 10;
/// Calls under way that were asked for without `Async`.
const CALLS_LIMIT: usize = 10_000;
/// From the connection to the accepted login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent Asterisk is asked for a sign of life after this ...
const PING_AFTER: Duration = Duration::from_secs(10);
/// ... and given up after this when something is unanswered.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// The connection's course.
///
/// ```text
///  Down ─► Greeting ─► Challenging ─► LoggingIn ─► Booting ─► Learning ─► Ready
///   ▲          (each ends there when the connection does, or the hub gives it up)
///   └───────────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No connection.
    Down,
    /// Waits for the banner.
    Greeting,
    /// Waits for the challenge.
    Challenging,
    /// Waits for the login's answer.
    LoggingIn,
    /// Waits for FullyBooted.
    Booting,
    /// Waits for the list of commands and who may use them.
    Learning,
    /// Takes actions.
    Ready,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Client(SessionId),
    /// The queue, by its number.
    Queue(u64),
    Hub,
}

/// How far an action is, and what is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The response.
    Response,
    /// The response, which is unwrapped: a client asked for text of before the protocol.
    Unwrapped,
    /// The response of an Originate whose asker waits for the call's outcome.
    Calling,
    /// The outcome of the call.
    Called,
    /// Entries of a list, and its end.
    List,
}

/// An action under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) by: Asker,
    pub(super) stage: Stage,
    /// What is told to a queue.
    pub(super) action_id: Vec<u8>,
    /// Who hears the answer, too.
    joined: Vec<Joined>,
}

/// A client whose ping was not sent, since another's waited to be written: the answer to that one, sent after both had asked, is its
/// answer.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) by: SessionId,
    /// What the client called it.
    pub(super) action_id: Vec<u8>,
}

/// The ping that was asked last: nothing of it has been written, and nothing was asked after it.
#[derive(Debug)]
struct OpenPing {
    number: u64,
    /// In the output.
    begins_at: usize,
}

impl Asked {
    /// Itself and those that joined it, each for itself.
    fn into_each(mut self) -> impl Iterator<Item = Self> {
        let joined = std::mem::take(&mut self.joined);
        let stage = self.stage;
        let others = joined.into_iter().map(move |one| Self {
            by: Asker::Client(one.by),
            stage,
            action_id: one.action_id,
            joined: Vec::new(),
        });
        std::iter::once(self).chain(others)
    }
}

/// How the hub logs in.
#[derive(Clone, Debug)]
pub struct Account {
    /// The user in manager.conf; it needs every class.
    pub user: String,
    /// Its secret.
    pub secret: crate::user::Secret,
}

#[derive(Debug)]
pub(super) struct Upstream {
    account: Option<Account>,
    mark: String,
    lives: u64,
    phase: Phase,
    since: Instant,
    heard_at: Instant,
    pinged_at: Instant,
    pub(super) reader: MessageReader,
    output: Vec<u8>,
    next_number: u64,
    open_ping: Option<OpenPing>,
    asked: HashMap<u64, Asked>,
    calls: usize,
    commands: HashMap<Vec<u8>, Classes>,
    /// As Asterisk sent it, for those who log in later.
    pub(super) fully_booted: Option<Vec<u8>>,
    pub(super) banner: Option<Vec<u8>>,
}

impl Upstream {
    pub(super) fn new(mark: &str, now: Instant) -> Self {
        Self {
            account: None,
            mark: format!("{mark}-0"),
            lives: 0,
            phase: Phase::Down,
            since: now,
            heard_at: now,
            pinged_at: now,
            reader: MessageReader::default(),
            output: Vec::new(),
            next_number: 0,
            open_ping: None,
            asked: HashMap::new(),
            calls: 0,
            commands: HashMap::new(),
            fully_booted: None,
            banner: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Since when it is not ready.
    pub(super) fn unready_since(&self) -> Option<Instant> {
        (!self.is_ready()).then_some(self.since)
    }

    /// Whether it takes one more action.
    pub(super) fn has_room(&self) -> bool {
        self.is_ready()
            && self.asked.len() - self.calls < UNANSWERED_LIMIT
            && self.calls < CALLS_LIMIT
            && self.output.len() < UNWRITTEN_LIMIT_BYTES
    }

    /// What an action needs of its asker; `None`: Asterisk does not know it.
    pub(super) fn classes_of(&self, action: &[u8]) -> Option<Classes> {
        let mut lower = [0; 64];
        let name = lower.get_mut(..action.len())?;
        name.copy_from_slice(action);
        name.make_ascii_lowercase();
        self.commands.get(&*name).copied()
    }

    pub(super) fn connected(&mut self, account: Account, now: Instant) {
        self.account = Some(account);
        self.lives += 1;
        let stem = self.mark.split('-').next().unwrap_or_default();
        self.mark = format!("{stem}-{}", self.lives);
        self.reader = MessageReader::default();
        self.output = Vec::new();
        self.open_ping = None;
        self.heard_at = now;
        self.enter(Phase::Greeting, now);
    }

    /// The connection is gone; whatever was asked on it has an unknown outcome.
    pub(super) fn lost(&mut self, now: Instant) -> Vec<Asked> {
        let was_unready = self.unready_since();
        self.phase = Phase::Down;
        self.since = was_unready.unwrap_or(now);
        self.reader = MessageReader::default();
        self.output = Vec::new();
        self.open_ping = None;
        self.fully_booted = None;
        self.calls = 0;
        let mut lost: Vec<(u64, Asked)> = self.asked.drain().collect();
        lost.sort_unstable_by_key(|(number, _)| *number);
        lost.into_iter()
            .flat_map(|(_, asked)| asked.into_each())
            .collect()
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        // Until it is ready, the time since it last was is what counts for those who wait.
        if phase == Phase::Ready {
            self.since = now;
        }
        self.phase = phase;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// What the hub itself says as the connection comes up. The error says why the connection is of no use.
    pub(super) fn greet(&mut self, banner: &[u8], now: Instant) -> Result<(), String> {
        if !banner.starts_with(b"Asterisk Call Manager/") {
            let banner = String::from_utf8_lossy(&banner[..banner.len().min(80)]);
            return Err(format!("the banner is not AMI's: {banner:?}"));
        }
        self.banner = Some(banner.to_vec());
        self.enter(Phase::Challenging, now);
        self.ask_own("Action: Challenge\r\nAuthType: MD5\r\n\r\n");
        Ok(())
    }

    /// An answer to the hub's own question.
    pub(super) fn on_own(&mut self, message: &Message<'_>, now: Instant) -> Result<(), String> {
        let is_success = message.name == b"Success";
        let account = self.account.as_ref().expect("a connection has an account");
        match self.phase {
            Phase::Challenging if is_success => {
                let challenge = message.get("Challenge").unwrap_or_default();
                let challenge = String::from_utf8_lossy(challenge).into_owned();
                let key = md5_key(&challenge, account.secret.text());
                let user = account.user.clone();
                self.enter(Phase::LoggingIn, now);
                self.ask_own(&format!(
                    "Action: Login\r\nAuthType: MD5\r\nUsername: {user}\r\nKey: {key}\r\nEvents: on\r\n\r\n"
                ));
            }
            Phase::Challenging | Phase::LoggingIn if !is_success => {
                let why = message.get("Message").unwrap_or_default();
                return Err(format!(
                    "asterisk refused the login of {}: {}",
                    account.user,
                    String::from_utf8_lossy(why)
                ));
            }
            Phase::LoggingIn => self.enter(Phase::Booting, now),
            Phase::Learning => {
                self.commands = commands_in(message);
                self.enter(Phase::Ready, now);
            }
            // A sign of life.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn on_fully_booted(&mut self, message: &Message<'_>, now: Instant) {
        self.fully_booted = Some(message.bytes.to_vec());
        if self.phase == Phase::Booting {
            self.enter(Phase::Learning, now);
            self.ask_own("Action: ListCommands\r\n\r\n");
        }
    }

    fn ask_own(&mut self, text: &str) {
        let frame = Frame::parse(text.as_bytes()).expect("the hub writes its own actions well");
        self.ask(&frame, Asker::Hub, Stage::Response);
    }

    /// Lets a client's ping share one that still waits to be written, if that is what was asked last: the order of nobody's actions
    /// changes. `false`: it has to be asked for itself.
    pub(super) fn join(&mut self, frame: &Frame<'_>, by: SessionId) -> bool {
        let Some(open) = self.open_ping.as_ref().filter(|_| is_bare_ping(frame)) else {
            return false;
        };
        let asked = self.asked.get_mut(&open.number);
        let asked = asked.expect("a ping that is not written is not answered");
        asked.joined.push(Joined {
            by,
            action_id: frame.action_id.to_vec(),
        });
        true
    }

    /// Who hears the answer to an action beside its asker.
    pub(super) fn take_joined(&mut self, number: u64) -> Vec<Joined> {
        let asked = self.asked.get_mut(&number);
        asked.map_or_else(Vec::new, |asked| std::mem::take(&mut asked.joined))
    }

    /// Writes an action under an identifier of the hub's own.
    pub(super) fn ask(&mut self, frame: &Frame<'_>, by: Asker, stage: Stage) {
        let number = self.next_number;
        self.next_number += 1;
        let is_open = matches!(by, Asker::Client(_)) && is_bare_ping(frame);
        self.open_ping = is_open.then_some(OpenPing {
            number,
            begins_at: self.output.len(),
        });
        let out = &mut self.output;
        for line in frame.lines() {
            let is_left_out = value_of(line, b"ActionID").is_some()
                || (stage == Stage::Calling && value_of(line, b"Async").is_some());
            if !is_left_out {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
        }
        if stage == Stage::Calling {
            out.extend_from_slice(b"Async: true\r\n");
        }
        out.extend_from_slice(b"ActionID: ");
        out.extend_from_slice(self.mark.as_bytes());
        out.push(b'.');
        write_number(out, number);
        out.push(b'.');
        out.extend_from_slice(frame.action_id);
        out.extend_from_slice(b"\r\n\r\n");
        let asked = Asked {
            by,
            stage,
            action_id: frame.action_id.to_vec(),
            joined: Vec::new(),
        };
        self.asked.insert(number, asked);
    }

    /// The number and the client's identifier in one that Asterisk echoed, if it is the hub's.
    pub(super) fn own_number<'a>(&self, echoed: &'a [u8]) -> Option<(u64, &'a [u8])> {
        let rest = echoed.strip_prefix(self.mark.as_bytes())?;
        let rest = rest.strip_prefix(b".")?;
        let dot = memchr::memchr(b'.', rest)?;
        let digits = std::str::from_utf8(&rest[..dot]).ok()?;
        Some((digits.parse().ok()?, &rest[dot + 1..]))
    }

    pub(super) fn asked(&self, number: u64) -> Option<(Asker, Stage)> {
        let asked = self.asked.get(&number)?;
        Some((asked.by, asked.stage))
    }

    pub(super) fn set_stage(&mut self, number: u64, stage: Stage) {
        if let Some(asked) = self.asked.get_mut(&number) {
            self.calls += usize::from(stage == Stage::Called);
            asked.stage = stage;
        }
    }

    pub(super) fn finish(&mut self, number: u64) {
        if let Some(asked) = self.asked.remove(&number) {
            self.calls -= usize::from(asked.stage == Stage::Called);
        }
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        &self.output
    }

    pub(super) fn written(&mut self, count: usize) {
        self.output.drain(..count);
        self.open_ping = self.open_ping.take().and_then(|open| {
            let begins_at = open.begins_at.checked_sub(count)?;
            Some(OpenPing { begins_at, ..open })
        });
    }

    /// Nothing is asked of Asterisk, or it is away.
    pub(super) fn is_idle(&self) -> bool {
        match self.phase {
            Phase::Down => true,
            Phase::Ready => self.asked.is_empty(),
            _ => false,
        }
    }

    /// Pings a silent Asterisk. The error says why it is given up.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), String> {
        let silence = now.saturating_duration_since(self.heard_at);
        match self.phase {
            Phase::Down => {}
            Phase::Greeting | Phase::Challenging | Phase::LoggingIn if silence > LOGIN_TIMEOUT => {
                return Err(format!("no login within {LOGIN_TIMEOUT:?}"));
            }
            _ if silence > SILENCE_LIMIT && !self.asked.is_empty() => {
                return Err(format!("nothing heard for {SILENCE_LIMIT:?}"));
            }
            Phase::Ready
                if silence > PING_AFTER
                    && now.saturating_duration_since(self.pinged_at) > PING_AFTER =>
            {
                self.pinged_at = now;
                self.ask_own("Action: Ping\r\n\r\n");
            }
            _ => {}
        }
        Ok(())
    }
}

/// A ping and nothing else, so that all such are the same question.
fn is_bare_ping(frame: &Frame<'_>) -> bool {
    let headers = 1 + usize::from(!frame.action_id.is_empty());
    frame.action.eq_ignore_ascii_case(b"Ping") && frame.lines().count() == headers
}

/// `Name: what it does  (Priv: call,all)`, a line each.
fn commands_in(message: &Message<'_>) -> HashMap<Vec<u8>, Classes> {
    let of_line = |line: &[u8]| {
        let colon = memchr::memchr(b':', line)?;
        let open = memchr::memmem::rfind(line, b"(Priv: ")?;
        let classes = line[open + 7..].strip_suffix(b")")?;
        let name = line[..colon].to_ascii_lowercase();
        Some((name, Classes::of_privilege(classes)))
    };
    crate::wire::lines(message.bytes)
        .filter_map(of_line)
        .collect()
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
