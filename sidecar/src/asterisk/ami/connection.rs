//! The task that owns the socket: it sends requests and gives each answer to who asked. Events that are no
//! part of an answer pass by, but for FullyBooted.
//!
//! It ends with the connection. Whoever still waits then learns that the outcome is unknown.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::codec::{Decoder, Message};

/// The most requests waiting to be sent.
pub(super) const REQUESTS_LIMIT: usize = 64;
/// The most entries of one list (`CoreShowChannels` of the largest systems).
const LIST_LIMIT: usize = 100_000;
const READ_BYTES: usize = 16 << 10;

/// An answer: the response, and the entries if it announced a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The response itself.
    pub message: Message,
    /// The events of the list that it announced, without the one that ends it.
    pub entries: Vec<Message>,
}

/// Something to send, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) bytes: Vec<u8>,
    pub(super) answer: oneshot::Sender<Response>,
}

/// Who hears what was not asked for.
pub(super) struct Listener {
    pub(super) fully_booted: watch::Sender<bool>,
    /// Ends of channels.
    pub(super) hangups: Option<mpsc::Sender<Message>>,
}

impl Response {
    /// Takes the next message with this answer's `ActionID`, and says whether the answer is whole.
    pub(super) fn take(&mut self, message: Message) -> io::Result<bool> {
        if message.event().is_none() {
            let announces_list = message.get("EventList") == Some("start");
            self.message = message;
            return Ok(!announces_list);
        }
        if message.get("EventList") == Some("Complete") {
            return Ok(true);
        }
        // An event that came before the response is no part of it.
        if self.message != Message::default() {
            if self.entries.len() == LIST_LIMIT {
                return Err(io::Error::other("a list beyond the limit"));
            }
            self.entries.push(message);
        }
        Ok(false)
    }
}

struct Waiting {
    answer: oneshot::Sender<Response>,
    so_far: Response,
}

/// Serves the connection until it or the last handle is gone.
pub(super) async fn serve(
    mut socket: TcpStream,
    mut decoder: Decoder,
    mut requests: mpsc::Receiver<Request>,
    listener: Listener,
) {
    let mut waiting: HashMap<String, Waiting> = HashMap::new();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let outcome = tokio::select! {
            request = requests.recv() => match request {
                Some(request) => send(&mut socket, request, &mut waiting).await,
                None => return,
            },
            read = socket.read(&mut bytes) => match read {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => receive(&mut decoder, &bytes[..length], &mut waiting, &listener),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, unanswered = waiting.len(), "ami connection ended");
            return;
        }
    }
}

/// A request whose asker has given up is not sent. The socket's buffer holds far more than the
/// queue, so a write that would block means that Asterisk does not read: the askers' deadlines say
/// so.
async fn send(
    socket: &mut TcpStream,
    request: Request,
    waiting: &mut HashMap<String, Waiting>,
) -> io::Result<()> {
    waiting.retain(|_, waiting| !waiting.answer.is_closed());
    if request.answer.is_closed() {
        return Ok(());
    }
    let Request {
        id,
        bytes,
        mut answer,
    } = request;
    let sent = tokio::select! {
        sent = socket.write_all(&bytes) => sent,
        () = answer.closed() => Err(io::ErrorKind::TimedOut.into()),
    };
    waiting.insert(
        id,
        Waiting {
            answer,
            so_far: Response::default(),
        },
    );
    sent
}

fn receive(
    decoder: &mut Decoder,
    bytes: &[u8],
    waiting: &mut HashMap<String, Waiting>,
    listener: &Listener,
) -> io::Result<()> {
    decoder.push(bytes);
    while let Some(message) = decoder.next_message().map_err(io::Error::other)? {
        dispatch(message, waiting, listener)?;
    }
    Ok(())
}

fn dispatch(
    message: Message,
    waiting: &mut HashMap<String, Waiting>,
    listener: &Listener,
) -> io::Result<()> {
    match message.event() {
        Some("FullyBooted") => {
            listener.fully_booted.send_replace(true);
            return Ok(());
        }
        Some("Hangup") => {
            if let Some(hangups) = &listener.hangups {
                // Who reads so slowly counts too many calls, and ends at its deadline.
                let _ = hangups.try_send(message);
            }
            return Ok(());
        }
        _ => {}
    }
    let id = message.get("ActionID").unwrap_or_default().to_owned();
    // What nobody waits for is an event that nobody asked for, or the answer of an action whose asker has given up.
    if let Some(waiter) = waiting.get_mut(&id)
        && waiter.so_far.take(message)?
    {
        finish(&id, waiting);
    }
    Ok(())
}

fn finish(id: &str, waiting: &mut HashMap<String, Waiting>) {
    if let Some(Waiting { answer, so_far }) = waiting.remove(id) {
        // An asker that gave up meanwhile is no error here.
        let _ = answer.send(so_far);
    }
}
