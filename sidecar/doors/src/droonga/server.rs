//! Serves the forward protocol. A response goes where `replyTo` says, if that is the client's own address (nobody makes this node
//! send bytes to a third), else back over the connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::forward::{self, Forward, ForwardError, Messages};
use super::message::{self, Outcome, ReplyTo, Request};
use super::status::{Naming, Status, status};
use crate::view::View;

/// Clients at a time; more are closed at once.
const MAX_CLIENTS: usize = 256;
/// A client that takes or sends nothing for so long within a message, or an answer, is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that sends nothing at all for so long is dropped.
const IDLE: Duration = Duration::from_mins(10);
/// After a failed `accept`, such as without free descriptors.
const CALM: Duration = Duration::from_millis(50);
/// Read at once; it is part of each idle client.
const PIECE_BYTES: usize = 4 << 10;

/// Droonga's door. Cheap to clone.
#[derive(Clone)]
pub struct Droonga {
    view: watch::Receiver<Arc<View>>,
    naming: Arc<Naming>,
}

impl Droonga {
    /// Tells `view`, with nodes called by `naming`.
    pub fn new(view: watch::Receiver<Arc<View>>, naming: Naming) -> Self {
        Self {
            view,
            naming: Arc::new(naming),
        }
    }

    /// The body of the status, as of now.
    pub fn status_body(&self) -> Status {
        status(&self.view.borrow(), &self.naming, Timestamp::now())
    }

    /// Serves clients until the process ends; `on_dropped` counts those that were dropped, by reason.
    pub async fn serve(
        self,
        listener: TcpListener,
        on_dropped: impl Fn(&'static str) + Clone + Send + 'static,
    ) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok((socket, from)) = listener.accept().await else {
                tokio::time::sleep(CALM).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                on_dropped("TooManyClients");
                continue;
            };
            let (door, on_dropped) = (self.clone(), on_dropped.clone());
            tokio::spawn(async move {
                let _place = place;
                if let Err(reason) = door.serve_one(socket, from).await {
                    on_dropped(reason);
                }
            });
        }
    }

    async fn serve_one(&self, mut socket: TcpStream, from: SocketAddr) -> Result<(), &'static str> {
        let mut messages = Messages::default();
        loop {
            let is_between = messages.is_empty();
            let patience = if is_between { IDLE } else { PATIENCE };
            let Ok(is_open) = timeout(patience, read_more(&mut socket, &mut messages)).await else {
                return if is_between { Ok(()) } else { Err("Slow") };
            };
            if !is_open {
                return Ok(());
            }
            while let Some(length) = messages.next_length().map_err(ForwardError::reason)? {
                let forward = messages.parse(length).map_err(ForwardError::reason)?;
                self.answer(&mut socket, from, &forward).await?;
                messages.take_out(length);
            }
        }
    }

    /// Each request gets one response, then the chunk its acknowledgement.
    async fn answer(
        &self,
        socket: &mut TcpStream,
        from: SocketAddr,
        forward: &Forward<'_>,
    ) -> Result<(), &'static str> {
        for request in forward
            .records
            .iter()
            .filter_map(|record| message::parse(record))
        {
            match &request.reply_to {
                Some(reply_to) if is_own_address(reply_to, from.ip()) => {
                    let tag = reply_to.tag.clone();
                    let response = self.response(&request, None, &tag);
                    tokio::spawn(send_to(from.ip(), reply_to.port, response));
                }
                Some(_) => {
                    let refused = Outcome::Refused {
                        code: 400,
                        name: "InvalidReplyTo",
                        message: "replyTo names another host: responses go to the address that a request comes from".into(),
                    };
                    write(
                        socket,
                        &self.response(&request, Some(refused), &self.naming.tag),
                    )
                    .await?;
                }
                None => write(socket, &self.response(&request, None, &self.naming.tag)).await?,
            }
        }
        match forward.chunk {
            Some(chunk) => write(socket, &forward::ack(chunk)).await,
            None => Ok(()),
        }
    }

    fn response(&self, request: &Request, refused: Option<Outcome>, tag: &str) -> Vec<u8> {
        let outcome = refused.unwrap_or_else(|| message::outcome(request, || self.status_body()));
        message::response(request, &outcome, tag, Timestamp::now().as_second())
    }
}

/// Whether the response goes to the address that the request came from; names are not looked up.
fn is_own_address(reply_to: &ReplyTo, from: IpAddr) -> bool {
    let named = reply_to.host.parse::<IpAddr>();
    let is_loopback = from.is_loopback() && reply_to.host == "localhost";
    is_loopback || named.is_ok_and(|named| named.to_canonical() == from.to_canonical())
}

async fn read_more(socket: &mut TcpStream, messages: &mut Messages) -> bool {
    let mut piece = [0; PIECE_BYTES];
    let read = socket.read(&mut piece).await;
    let length = read.unwrap_or(0);
    messages.push(&piece[..length]);
    length > 0
}

async fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<(), &'static str> {
    match timeout(PATIENCE, socket.write_all(bytes)).await {
        Ok(written) => written.map_err(|_| "ConnectionEnded"),
        Err(_) => Err("Slow"),
    }
}

async fn send_to(host: IpAddr, port: u16, response: Vec<u8>) {
    let sent = timeout(PATIENCE, async {
        let mut socket = TcpStream::connect((host, port)).await?;
        socket.write_all(&response).await?;
        socket.shutdown().await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::debug!(%host, port, "a response of Droonga's could not be delivered");
    }
}
