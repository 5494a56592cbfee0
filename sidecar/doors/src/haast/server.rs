//! Sockets around the sessions: a unix socket for whoever may open it, TCP with TLS for whoever has the token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::session::{Outcome, Session};
use crate::OnDropped;
use crate::job::{Action, Refusal, Request};
use crate::tls::Tls;
use crate::token::Token;
use crate::unix_socket::listen;
use crate::view::View;

/// Clients at a time on each socket; whoever comes later is turned away.
const MAX_CLIENTS: usize = 64;
/// A client that says nothing for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// A client that does not take an answer for so long is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Within this the services say which job an action has become.
const ACTION_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 1024;

/// The owner and the group may connect, and act.
const SOCKET_MODE: u32 = 0o660;

/// Why there is no door.
#[derive(Debug, Error)]
pub enum HaastError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl HaastError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "ListenFailed",
        }
    }
}

/// What all sockets of this door need.
#[derive(Clone)]
pub struct Door {
    /// What is shown.
    pub view: watch::Receiver<Arc<View>>,
    /// Where actions go.
    pub actions: mpsc::Sender<Request>,
    /// Told whom the door dropped.
    pub on_dropped: OnDropped,
}

/// Listens on `path`, with its folder made and a stale socket removed. The owner and the group may connect, and act.
pub fn bind(path: &Path) -> Result<UnixListener, HaastError> {
    listen(path, SOCKET_MODE).map_err(|source| HaastError::Listen {
        path: path.to_owned(),
        source,
    })
}

/// Serves the unix socket, for ever.
pub async fn serve(listener: UnixListener, door: Door) {
    let mut clients = Clients::new(door.on_dropped.clone());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let who = match stream.peer_cred() {
                    Ok(peer) => format!("haast uid {}", peer.uid()),
                    Err(_) => "haast".to_owned(),
                };
                clients.add(talk(stream, Session::default(), who, door.clone()));
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Serves TCP with TLS to clients that show the token, for ever.
pub async fn serve_remote(listener: TcpListener, tls: Tls, token: Token, door: Door) {
    let mut clients = Clients::new(door.on_dropped.clone());
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                let (tls, token, door) = (tls.clone(), token.clone(), door.clone());
                clients.add(async move {
                    let session = Session::guarded(Box::new(move |shown| token.is(shown)));
                    match tls.accept(socket).await {
                        Ok(stream) => talk(stream, session, format!("haast {address}"), door).await,
                        Err(error) => door.on_dropped.tell(error.reason()),
                    }
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "haast client not accepted");
    sleep(ACCEPT_PAUSE).await;
}

/// The clients of one socket: they end with it.
struct Clients {
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
    on_dropped: OnDropped,
}

impl Clients {
    fn new(on_dropped: OnDropped) -> Self {
        Self {
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(MAX_CLIENTS)),
            on_dropped,
        }
    }

    fn add(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.on_dropped.tell("HaastCrowd");
        };
        self.tasks.spawn(async move {
            client.await;
            drop(place);
        });
    }
}

/// Talks with one client until it goes, floods, or is too slow.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut session: Session,
    who: String,
    door: Door,
) {
    let mut piece = [0; READ_BYTES];
    if !say(&mut stream, &Session::greeting()).await {
        return;
    }
    loop {
        let bytes = match timeout(IDLE_TIMEOUT, stream.read(&mut piece)).await {
            Ok(Ok(bytes)) if bytes > 0 => bytes,
            _ => return,
        };
        for byte in &piece[..bytes] {
            let outcome = {
                let view = door.view.borrow();
                session.push(*byte, &view, Timestamp::now())
            };
            let Some(outcome) = outcome else {
                continue;
            };
            let (answer, is_last) = match outcome {
                Outcome::Answer(answer) => (answer, false),
                Outcome::Act(action) => (session.acted(begin(action, &who, &door).await), false),
                Outcome::Close(answer) => (answer, true),
            };
            if is_last {
                door.on_dropped.tell("HaastRefused");
            }
            if !say(&mut stream, &answer).await || is_last {
                return;
            }
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> bool {
    let written = timeout(WRITE_TIMEOUT, async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await
    });
    matches!(written.await, Ok(Ok(())))
}

/// Hands an action to the services; `None`: they did not say in time what became of it.
async fn begin(action: Action, who: &str, door: &Door) -> Option<Result<u64, Refusal>> {
    let (reply, answer) = oneshot::channel();
    let request = Request {
        action,
        who: who.to_owned(),
        reply,
    };
    match timeout(ACTION_TIMEOUT, door.actions.send(request)).await {
        Err(_) => return None,
        Ok(Err(_)) => return Some(Err(Refusal::Ending)),
        Ok(Ok(())) => {}
    }
    timeout(ACTION_TIMEOUT, answer).await.ok()?.ok()
}
