//! Serves sessions: over websockets of clients, and over streams of peers that relay theirs. A client that does not read is
//! dropped; what it costs until then is bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::codec::{Topic, join_bridge, split_bridge};
use super::events::bridge;
use super::hub::Hub;
use super::session::{House, Session};
use super::storage;
use crate::channel::message::{read_message, write_message};
use crate::channel::{Incoming, PeerStream, Service};
use crate::doorway::Doorway;
use crate::token::Token;

/// A client that takes no text for so long is dropped.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// Texts of a peer on their way to a client.
const RELAY_QUEUE: usize = 16;
/// A text between sidecars.
const MAX_RELAYED_BYTES: usize = 256 << 10;

/// SysAdm's door. Cheap to clone.
#[derive(Clone)]
pub struct Sysadm {
    shared: Arc<Shared>,
}

struct Shared {
    doorway: Doorway,
    hub: Hub,
    token: Token,
}

/// Texts to and from one client.
pub trait Texts {
    /// The next text; `None` once the client is gone. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<String>> + Send;
    /// Sends a text; false once the client is gone.
    fn send(&mut self, text: &str) -> impl Future<Output = bool> + Send;
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client went.
    Gone,
    /// The client did not read.
    Slow,
}

impl House for Shared {
    fn is_token(&self, token: &str) -> bool {
        self.token.is(token.as_bytes())
    }

    fn last_event(&self, topic: Topic) -> Option<String> {
        self.hub.last(topic).map(|text| text.to_string())
    }

    fn hostname(&self) -> String {
        storage::hostname()
    }
}

impl Sysadm {
    /// Serves the events of `hub`; a token is asked for where there is one.
    pub fn new(doorway: Doorway, hub: Hub, token: Token) -> Self {
        let shared = Shared {
            doorway,
            hub,
            token,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether a client with this `Authorization` header needs to show no token any more.
    pub fn is_guest(&self, authorization: Option<&[u8]>) -> bool {
        let token = &self.shared.token;
        !token.is_set() || authorization.is_some_and(|header| token.is_bearer(header))
    }

    /// One client, until it is gone.
    pub async fn serve(&self, texts: &mut impl Texts, is_guest: bool) -> End {
        let mut session = Session::new(is_guest);
        let mut events = self.shared.hub.subscribe();
        loop {
            let replies = tokio::select! {
                text = texts.next() => match text {
                    Some(text) => session.on_text(&text, &*self.shared),
                    None => return End::Gone,
                },
                event = events.recv() => match event {
                    Ok(event) if session.wants(event.topic) => vec![event.text.to_string()],
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => return End::Slow,
                    Err(RecvError::Closed) => return End::Gone,
                },
            };
            if let Err(end) = send_all(texts, &replies).await {
                return end;
            }
        }
    }

    /// A client that reaches the other nodes through this one: it is told who is there, and each text names its node first.
    pub async fn serve_bridge(&self, texts: &mut impl Texts, is_guest: bool) -> End {
        let mut own = Session::new(is_guest);
        let mut view = self.shared.doorway.view.clone();
        let mut known = None;
        let (relayed_tx, mut relayed) = mpsc::channel(RELAY_QUEUE);
        let mut relays: HashMap<String, mpsc::Sender<String>> = HashMap::new();
        loop {
            let connections = self.connections();
            if own.is_guest() && known.as_ref() != Some(&connections) {
                relays.retain(|name, _| connections.contains(name));
                if let Err(end) = send_all(texts, &[bridge(&connections)]).await {
                    return end;
                }
                known = Some(connections);
            }
            let replies = tokio::select! {
                text = texts.next() => match text {
                    Some(text) => match split_bridge(&text) {
                        (Some(id), said) if own.is_guest() => {
                            self.relay(&mut relays, id, said, &relayed_tx)
                        }
                        _ => own.on_text(&text, &*self.shared),
                    },
                    None => return End::Gone,
                },
                Some(text) = relayed.recv() => vec![text],
                changed = view.changed() => if changed.is_err() { return End::Gone } else { continue },
            };
            if let Err(end) = send_all(texts, &replies).await {
                return end;
            }
        }
    }

    /// Serves the clients of bridges on other nodes, which have been let in there.
    pub async fn serve_peers(self, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(Incoming { stream, .. }) = incoming.recv().await {
            let sysadm = self.clone();
            tokio::spawn(async move {
                let mut texts = PeerTexts::new(stream);
                sysadm.serve(&mut texts, true).await;
            });
        }
    }

    /// The nodes that can be spoken to.
    fn connections(&self) -> Vec<String> {
        let view = self.shared.doorway.view.borrow();
        let up = view.nodes.iter().filter(|node| node.is_up);
        up.map(|node| node.name.clone()).collect()
    }

    /// Gives `said` to the node `id`, to which a stream is opened by the first text; without such a node, an error is the answer.
    fn relay(
        &self,
        relays: &mut HashMap<String, mpsc::Sender<String>>,
        id: &str,
        said: &str,
        relayed: &mpsc::Sender<String>,
    ) -> Vec<String> {
        relays.retain(|_, relay| !relay.is_closed());
        let nodes = self.shared.doorway.view.borrow().clone();
        let Some(seat) = nodes.nodes.iter().position(|node| node.name == id) else {
            let mut nobody = Session::new(false);
            return nobody.on_text("", &*self.shared);
        };
        let relay = relays.entry(id.to_owned()).or_insert_with(|| {
            let (to_node, from_client) = mpsc::channel(RELAY_QUEUE);
            let (sysadm, id, relayed) = (self.clone(), id.to_owned(), relayed.clone());
            let is_own = seat == nodes.own;
            tokio::spawn(async move {
                let mut texts = RelayTexts {
                    id,
                    from_client,
                    relayed,
                };
                if is_own {
                    sysadm.serve(&mut texts, true).await;
                } else {
                    sysadm.join(&mut texts, seat).await;
                }
            });
            to_node
        });
        // A client that floods a node loses texts of its own.
        let _ = relay.try_send(said.to_owned());
        Vec::new()
    }

    /// Joins a client with the node in `seat` until one of them is gone.
    async fn join(&self, client: &mut RelayTexts, seat: usize) {
        let opened = self.shared.doorway.channel.open(seat, Service::SysAdm);
        let Ok(stream) = opened.await else { return };
        let mut node = PeerTexts::new(stream);
        loop {
            let is_alive = tokio::select! {
                text = client.next() => match text {
                    Some(text) => node.send(&text).await,
                    None => false,
                },
                text = node.next() => match text {
                    Some(text) => client.send(&text).await,
                    None => false,
                },
            };
            if !is_alive {
                return;
            }
        }
    }
}

async fn send_all(texts: &mut impl Texts, replies: &[String]) -> Result<(), End> {
    for reply in replies {
        match timeout(WRITE_PATIENCE, texts.send(reply)).await {
            Ok(true) => {}
            Ok(false) => return Err(End::Gone),
            Err(_) => return Err(End::Slow),
        }
    }
    Ok(())
}

/// A client behind a bridge, seen from the node that it speaks to.
struct RelayTexts {
    id: String,
    from_client: mpsc::Receiver<String>,
    relayed: mpsc::Sender<String>,
}

impl Texts for RelayTexts {
    async fn next(&mut self) -> Option<String> {
        self.from_client.recv().await
    }

    async fn send(&mut self, text: &str) -> bool {
        let text = join_bridge(&self.id, text);
        self.relayed.send(text).await.is_ok()
    }
}

/// Texts over a stream between sidecars; a task of its own reads, since half a message cannot be given back.
struct PeerTexts {
    texts: mpsc::Receiver<String>,
    writer: tokio::io::WriteHalf<PeerStream>,
    reader: tokio::task::AbortHandle,
}

impl PeerTexts {
    fn new(stream: PeerStream) -> Self {
        let (mut reader, writer) = tokio::io::split(stream);
        let (sender, texts) = mpsc::channel(RELAY_QUEUE);
        let reading = tokio::spawn(async move {
            while let Ok(Some(bytes)) = read_message(&mut reader, MAX_RELAYED_BYTES).await {
                let Ok(text) = String::from_utf8(bytes) else {
                    return;
                };
                if sender.send(text).await.is_err() {
                    return;
                }
            }
        });
        Self {
            texts,
            writer,
            reader: reading.abort_handle(),
        }
    }
}

impl Drop for PeerTexts {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Texts for PeerTexts {
    async fn next(&mut self) -> Option<String> {
        self.texts.recv().await
    }

    async fn send(&mut self, text: &str) -> bool {
        write_message(&mut self.writer, text.as_bytes())
            .await
            .is_ok()
    }
}
