//! All clients of this node and what they say to each other and to clients on other nodes: a state machine without sockets.
//!
//! One reply to each request, in order; events may stand between them. A client is known by its connection: names and process
//! numbers are what it says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::changes::{Told, beats};
use super::frame::frame;
use super::message::Message;
use super::nodes;
use super::permission::{Credentials, Settings};
use super::requests::{INVALID, Question, reply_to};
use super::signon::{self, Identity};
use super::silence::Silences;
use crate::view::View;

/// Why a client goes that does as it should.
pub(super) const SIGNOFF: &str = "signoff";

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A moment, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Wall clock: what clients are told.
    pub wall: Timestamp,
    /// Since the door was opened: what is waited for.
    pub uptime: Duration,
}

/// What happens to the hub.
#[derive(Debug)]
pub enum Input<'a> {
    /// A process has connected.
    Connected {
        /// Its connection.
        client: ClientId,
        /// What the kernel says of it.
        peer: Credentials,
    },
    /// A client has sent a body.
    Said {
        /// Who.
        client: ClientId,
        /// What.
        body: &'a [u8],
    },
    /// A connection has ended.
    Gone {
        /// Which.
        client: ClientId,
    },
    /// Another node's hub has sent a body.
    Peer {
        /// Name of the node, as the channel between nodes has proved it.
        from: &'a str,
        /// What.
        body: &'a [u8],
    },
    /// The view is another.
    View(Arc<View>),
    /// Time has passed: what depends on it is looked at again.
    Time,
    /// A keepalive has passed, and somebody wants to see beats.
    Beat,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A client gets a frame.
    Send {
        /// Who.
        client: ClientId,
        /// The frame.
        frame: Arc<[u8]>,
    },
    /// From now on a client gets this signal with each frame; 0: none.
    Signal {
        /// Who.
        client: ClientId,
        /// Number of the signal, below 32.
        number: u32,
    },
    /// A connection is closed, after what was sent on it.
    Close {
        /// Which.
        client: ClientId,
        /// Why, for the log.
        reason: &'static str,
    },
    /// Hubs of other nodes get a body.
    Peers {
        /// One node's; `None`: all.
        to: Option<String>,
        /// What.
        body: Vec<u8>,
    },
}

/// A client.
///
/// ```text
///            signon                      signoff, EOF, refusal
///  New ────────────────► Casual, Named ────────────────────────► (forgotten)
///   └── anything else ──────────────────────────────────────────►
/// ```
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: Credentials,
    /// Who it says to be, once it has signed on.
    pub(super) identity: Option<Identity>,
    /// Which messages it wants: a sum of [`filter`] bits.
    pub(super) wants: u32,
}

/// Kinds of messages that a client can ask for; the names are Heartbeat's.
pub(super) mod filter {
    /// What clients get by default: changes and messages.
    pub const KEEPIT: u32 = 0x01;
    /// Beats that tell nothing new.
    pub const NOCHANGE: u32 = 0x02;
    /// Requests of clients.
    pub const APICALL: u32 = 0x10;
    /// All that there are. Dropped, duplicate and protocol packets (4, 8, 0x20) end before the doors: none is ever told.
    pub const ALL: u32 = 0x3f;
}

/// All clients.
#[derive(Debug)]
pub struct Hub {
    pub(super) settings: Settings,
    /// As it was published.
    published: Arc<View>,
    /// As clients are shown it: a silent node lives until deadtime.
    pub(super) view: Arc<View>,
    silences: Silences,
    pub(super) clients: BTreeMap<ClientId, Client>,
    told: Told,
}

impl Hub {
    /// No client yet.
    pub fn new(settings: Settings, published: Arc<View>, now: Moment) -> Self {
        let mut silences = Silences::default();
        let view = silences.apply(&published, now.uptime, true);
        Self {
            settings,
            told: Told::of(&view, now.wall),
            published,
            view,
            silences,
            clients: BTreeMap::new(),
        }
    }

    /// Takes one input; adds to `outputs` what is to be done.
    pub fn step(&mut self, now: Moment, input: Input<'_>, outputs: &mut Vec<Output>) {
        match input {
            Input::Connected { client, peer } => {
                let new = Client {
                    peer,
                    identity: None,
                    wants: filter::KEEPIT,
                };
                self.clients.insert(client, new);
            }
            Input::Said { client, body } => self.on_body(now.wall, client, body, outputs),
            Input::Gone { client } => self.forget(client, "EOF", outputs),
            Input::Peer { from, body } => self.on_peer(from, body, outputs),
            Input::View(view) => {
                self.published = view;
                self.tell_changes(now, outputs);
            }
            Input::Time => self.tell_changes(now, outputs),
            Input::Beat => self.tell(&beats(&self.view, now.wall), filter::NOCHANGE, outputs),
        }
    }

    /// Whether anybody wants to see beats.
    pub fn wants_beats(&self) -> bool {
        self.clients
            .values()
            .any(|client| client.wants & filter::NOCHANGE != 0)
    }

    fn on_body(&mut self, now: Timestamp, id: ClientId, body: &[u8], outputs: &mut Vec<Output>) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let Ok(message) = Message::parse(body) else {
            return self.close(id, "not a message", outputs);
        };
        let is_request = message.text("t") == Some("hbapi-req");
        let request_type = message.text("reqtype").filter(|_| is_request);
        let Some(identity) = &client.identity else {
            return match request_type {
                Some("signon") => self.sign_on(id, &message, outputs),
                _ => self.close(id, "no signon", outputs),
            };
        };
        let name = identity.name().map(str::to_owned);
        self.show_call(body, outputs);
        match (request_type, name) {
            (Some(request_type), _) => self.on_request(now, id, request_type, &message, outputs),
            (None, _) if is_request => refuse(id, "", INVALID, outputs),
            (None, Some(name)) => self.on_message(id, &name, message, outputs),
            (None, None) => self.close(id, "a casual client sends no messages", outputs),
        }
    }

    fn sign_on(&mut self, id: ClientId, message: &Message, outputs: &mut Vec<Output>) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let taken = |name: &str| self.named(name).is_some();
        let reply = signon::reply(&self.view);
        match signon::admit(message, client.peer, &self.settings.auth, taken) {
            Ok(identity) => {
                let name = identity.name().map(str::to_owned);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.identity = Some(identity);
                }
                send(id, &reply.with("result", "OK"), outputs);
                if let Some(name) = name {
                    self.announce(&name, "join", "signon", outputs);
                }
            }
            Err(reason) => {
                let reply = reply.with("result", "badreq").with("info", reason);
                send(id, &reply, outputs);
                self.close(id, reason, outputs);
            }
        }
    }

    fn on_request(
        &mut self,
        now: Timestamp,
        id: ClientId,
        request_type: &str,
        message: &Message,
        outputs: &mut Vec<Output>,
    ) {
        let outcome = match request_type {
            "signoff" => return self.sign_off(id, outputs),
            // How long our queue is we decide. Clients expect no reply.
            "set_sendqlen" => return,
            "setfilter" => self.set_filter(id, message),
            "setsignal" => self.set_signal(id, message, outputs),
            "clientstatus" => return self.on_client_status(now, id, message, outputs),
            _ => {
                let question = Question {
                    request: message,
                    view: &self.view,
                    udp_port: self.settings.udp_port,
                    now,
                };
                match question.answer(request_type) {
                    Ok(replies) => {
                        for reply in replies {
                            send(id, &reply, outputs);
                        }
                        return;
                    }
                    Err(reason) => Err(reason),
                }
            }
        };
        match outcome {
            Ok(()) => send(id, &reply_to(request_type).with("result", "OK"), outputs),
            Err(reason) => refuse(id, request_type, reason, outputs),
        }
    }

    fn set_filter(&mut self, id: ClientId, message: &Message) -> Result<(), &'static str> {
        let mask = message.text("fmask").ok_or(INVALID)?;
        let mask = u32::from_str_radix(mask, 16).map_err(|_| INVALID)? & filter::ALL;
        if mask == 0 {
            return Err(INVALID);
        }
        let client = self.clients.get_mut(&id).ok_or(INVALID)?;
        if mask != filter::KEEPIT && !self.settings.auth.is_privileged(client.peer) {
            return Err("EPERM");
        }
        client.wants = mask;
        Ok(())
    }

    fn set_signal(
        &self,
        id: ClientId,
        message: &Message,
        outputs: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        const SIGKILL: u32 = 9;
        const SIGSTOP: u32 = 19;
        let number = message.text("signal").ok_or(INVALID)?;
        let number = number.parse::<u32>().map_err(|_| INVALID)?;
        if number >= 32 || matches!(number, SIGKILL | SIGSTOP) {
            return Err(INVALID);
        }
        let client = self.clients.get(&id).ok_or(INVALID)?;
        if number != 0 && !client.peer.can_be_signalled {
            return Err("EPERM");
        }
        outputs.push(Output::Signal { client: id, number });
        Ok(())
    }

    fn sign_off(&mut self, id: ClientId, outputs: &mut Vec<Output>) {
        self.close(id, SIGNOFF, outputs);
    }

    /// Forgets a client that signs off or breaks the rules, and closes its connection.
    fn close(&mut self, id: ClientId, reason: &'static str, outputs: &mut Vec<Output>) {
        self.forget(id, reason, outputs);
        outputs.push(Output::Close { client: id, reason });
    }

    fn forget(&mut self, id: ClientId, reason: &str, outputs: &mut Vec<Output>) {
        let identity = self.clients.remove(&id).and_then(|client| client.identity);
        if let Some(name) = identity.as_ref().and_then(Identity::name) {
            self.announce(name, "leave", reason, outputs);
        }
    }

    /// Tells clients of the same name on all nodes that one has come or gone.
    fn announce(&self, name: &str, status: &str, reason: &str, outputs: &mut Vec<Output>) {
        let message = Message::of_type("hbapi-clstat")
            .with("st", status)
            .with("from_id", name)
            .with("to_id", name)
            .with("src", &self.view.own().name)
            .with("info", reason);
        self.deliver(name, &message, outputs);
        outputs.push(Output::Peers {
            to: None,
            body: message.encode(),
        });
    }

    /// Gives a message to the local client of that name, if there is one that wants messages.
    pub(super) fn deliver(&self, name: &str, message: &Message, outputs: &mut Vec<Output>) {
        if let Some((id, client)) = self.named(name)
            && client.wants & filter::KEEPIT != 0
        {
            send(id, message, outputs);
        }
    }

    /// A client by its name.
    pub(super) fn named(&self, name: &str) -> Option<(ClientId, &Client)> {
        let mut clients = self.clients.iter();
        clients
            .find(|(_, client)| client.identity.as_ref().and_then(Identity::name) == Some(name))
            .map(|(id, client)| (*id, client))
    }

    fn tell_changes(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        self.view = self.silences.apply(&self.published, now.uptime, false);
        let messages = self.told.update(&self.view, now.wall);
        self.tell(&messages, filter::KEEPIT, outputs);
    }

    fn show_call(&self, body: &[u8], outputs: &mut Vec<Output>) {
        let wanting = self.wanting(filter::APICALL);
        if let (Some(frame), false) = (frame(body), wanting.is_empty()) {
            send_all(&wanting, &frame, outputs);
        }
    }

    fn tell(&self, messages: &[Message], kind: u32, outputs: &mut Vec<Output>) {
        let wanting = self.wanting(kind);
        for frame in messages
            .iter()
            .filter_map(|message| frame(&message.encode()))
        {
            send_all(&wanting, &frame, outputs);
        }
    }

    fn wanting(&self, kind: u32) -> Vec<ClientId> {
        let clients = self.clients.iter();
        clients
            .filter(|(_, client)| client.identity.is_some() && client.wants & kind != 0)
            .map(|(id, _)| *id)
            .collect()
    }

    /// How long until [`Input::Time`] is due, if ever: a silent node is called dead then, or one that was never heard.
    pub fn until_time(&self, now: Moment) -> Option<Duration> {
        let stranger = nodes::never_heard_are_dead_at(&self.view).duration_since(now.wall);
        let stranger = Duration::try_from(stranger)
            .ok()
            .filter(|rest| !rest.is_zero());
        let silent = self.silences.next_death(now.uptime);
        stranger.into_iter().chain(silent).min()
    }
}

/// What this hub says fits a frame; a message of a client that no longer does, with our fields added, is dropped.
pub(super) fn send(client: ClientId, message: &Message, outputs: &mut Vec<Output>) {
    if let Some(frame) = frame(&message.encode()) {
        outputs.push(Output::Send { client, frame });
    }
}

pub(super) fn refuse(id: ClientId, request_type: &str, reason: &str, outputs: &mut Vec<Output>) {
    let reply = reply_to(request_type)
        .with("result", "badreq")
        .with("info", reason);
    send(id, &reply, outputs);
}

fn send_all(clients: &[ClientId], frame: &Arc<[u8]>, outputs: &mut Vec<Output>) {
    outputs.extend(clients.iter().map(|client| Output::Send {
        client: *client,
        frame: frame.clone(),
    }));
}
