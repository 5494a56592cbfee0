//! Sockets around the hub: accepts, reads, writes, and does what the hub orders. No decision is made here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{End, Event, Queue, converse, queue};
use super::hub::{ClientId, Hub, Input, Moment, Output, SIGNOFF};
use super::peers::{PeerMessages, ToPeers};
use super::permission::{Credentials, Settings};
use super::signals::Process;
use crate::OnDropped;
use crate::unix_socket::listen;
use crate::view::View;

/// Clients at a time; whoever comes later is turned away.
const MAX_CLIENTS: usize = 1024;
/// Events that wait for the hub; a client that sends more waits.
const QUEUED_EVENTS: usize = 64;
/// What the kernel may hold for a client that does not read, beside our own queue.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Where the kernel has no more descriptors, accepting waits for some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that does not read.
const SLOW: &str = "HeartbeatSlow";

/// Anyone may connect: `apiauth` says who may sign on.
const SOCKET_MODE: u32 = 0o666;

/// Why there is no door.
#[derive(Debug, Error)]
pub enum HeartbeatError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl HeartbeatError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "ListenFailed",
        }
    }
}

/// Listens on `path`, with its folder made and a stale socket removed. Anyone may connect: `apiauth` says who may sign on.
pub fn bind(path: &Path) -> Result<UnixListener, HeartbeatError> {
    listen(path, SOCKET_MODE).map_err(|source| HeartbeatError::Listen {
        path: path.to_owned(),
        source,
    })
}

/// Serves clients until nobody publishes views any more.
pub async fn serve(
    listener: UnixListener,
    settings: Settings,
    mut view: watch::Receiver<Arc<View>>,
    mut peers: PeerMessages,
    on_dropped: OnDropped,
) {
    let (events, mut incoming) = mpsc::channel(QUEUED_EVENTS);
    let first = view.borrow_and_update().clone();
    let opened_at = Instant::now();
    let mut server = Server {
        hub: Hub::new(settings, first, moment(opened_at)),
        opened_at,
        lines: BTreeMap::new(),
        tasks: JoinSet::new(),
        last_id: 0,
        events: events.clone(),
        to_peers: peers.outgoing.clone(),
        outputs: Vec::new(),
        on_dropped,
    };
    server.tasks.spawn(accept(listener, events));
    let mut next_beat = Instant::now();
    let mut peers_are_there = true;
    loop {
        let wants_beats = server.hub.wants_beats();
        let until_time = server.hub.until_time(moment(opened_at));
        tokio::select! {
            biased;
            changed = view.changed() => match changed {
                Ok(()) => {
                    let current = view.borrow_and_update().clone();
                    server.step(Input::View(current));
                }
                Err(_) => return,
            },
            body = peers.incoming.recv(), if peers_are_there => match body {
                Some(body) => server.step(Input::Peer { from: &body.from, body: &body.body }),
                None => peers_are_there = false,
            },
            Some(event) = incoming.recv() => server.on_event(event),
            Some(_) = server.tasks.join_next() => {}
            () = sleep(until_time.unwrap_or_default()), if until_time.is_some() => server.step(Input::Time),
            () = sleep_until(next_beat), if wants_beats => {
                let keepalive = view.borrow().keepalive;
                next_beat = Instant::now() + keepalive;
                server.step(Input::Beat);
            }
        }
    }
}

async fn accept(listener: UnixListener, events: mpsc::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if events.send(Event::Accepted(stream)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "heartbeat client not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A client's connection, seen from the hub.
struct Line {
    queue: Queue,
    task: AbortHandle,
    process: Option<Process>,
    signal: u32,
}

struct Server {
    hub: Hub,
    opened_at: Instant,
    lines: BTreeMap<ClientId, Line>,
    tasks: JoinSet<()>,
    last_id: u64,
    events: mpsc::Sender<Event>,
    to_peers: mpsc::Sender<ToPeers>,
    outputs: Vec<Output>,
    on_dropped: OnDropped,
}

impl Server {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Accepted(stream) => self.connect(stream),
            Event::Said(client, body) => self.step(Input::Said {
                client,
                body: &body,
            }),
            Event::Gone(client, end) => {
                match end {
                    End::Closed => {}
                    End::Stalled => self.on_dropped.tell(SLOW),
                    End::Malformed => self.on_dropped.tell("HeartbeatMalformed"),
                }
                self.lines.remove(&client);
                self.step(Input::Gone { client });
            }
        }
    }

    fn connect(&mut self, stream: UnixStream) {
        if self.lines.len() >= MAX_CLIENTS {
            return self.on_dropped.tell("HeartbeatCrowd");
        }
        let Ok(peer) = stream.peer_cred() else {
            return;
        };
        let small = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
        if let Err(error) = small {
            tracing::debug!(%error, "heartbeat client has the usual send buffer");
        }
        let process = Process::open(peer.pid());
        let peer = Credentials {
            uid: peer.uid(),
            gid: peer.gid(),
            can_be_signalled: process.is_some(),
        };
        self.last_id += 1;
        let client = ClientId(self.last_id);
        let (queue, waiting) = queue();
        let talk = converse(stream, client, self.events.clone(), waiting);
        let line = Line {
            queue,
            task: self.tasks.spawn(talk),
            process,
            signal: 0,
        };
        self.lines.insert(client, line);
        self.step(Input::Connected { client, peer });
    }

    /// One step, and all that it orders; a client that is cut off meanwhile is one more step.
    fn step(&mut self, input: Input<'_>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.hub.step(moment(self.opened_at), input, &mut outputs);
        let mut done = 0;
        while let Some(output) = outputs.get(done) {
            let cut_off = self.carry_out(output);
            done += 1;
            if let Some(client) = cut_off {
                let gone = Input::Gone { client };
                self.hub.step(moment(self.opened_at), gone, &mut outputs);
            }
        }
        outputs.clear();
        self.outputs = outputs;
    }

    /// Returns the client that had to be cut off.
    fn carry_out(&mut self, output: &Output) -> Option<ClientId> {
        match output {
            Output::Send { client, frame } => {
                let line = self.lines.get(client)?;
                if !line.queue.push(frame) {
                    line.task.abort();
                    self.on_dropped.tell(SLOW);
                    tracing::warn!(client = client.0, "heartbeat client too slow, cut off");
                    self.lines.remove(client);
                    return Some(*client);
                }
                if let (1.., Some(process)) = (line.signal, &line.process) {
                    process.signal(line.signal);
                }
            }
            Output::Signal { client, number } => {
                let line = self.lines.get_mut(client)?;
                line.signal = *number;
            }
            Output::Close { client, reason } => {
                tracing::debug!(client = client.0, reason, "heartbeat client closed");
                if *reason != SIGNOFF {
                    self.on_dropped.tell("HeartbeatRefused");
                }
                self.lines.remove(client);
            }
            Output::Peers { to, body } => {
                let message = ToPeers {
                    to: to.clone(),
                    body: body.clone(),
                };
                if self.to_peers.try_send(message).is_err() {
                    self.on_dropped.tell("HeartbeatMessageLost");
                }
            }
        }
        None
    }
}

fn moment(opened_at: Instant) -> Moment {
    Moment {
        wall: Timestamp::now(),
        uptime: opened_at.elapsed(),
    }
}
