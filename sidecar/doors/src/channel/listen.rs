//! Accepting streams of peers. What is not authenticated yet is bounded in number and time, and the oldest gives way: a flood of
//! strangers costs a hash each and keeps no peer out for longer than a handshake takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::frame::{self, FrameBuffer};
use super::noise::Answering;
use super::socket::{prepare, read_frame};
use super::{ChannelError, ChannelKey, PeerStream, Service};

/// Connections of a listener whose other side has not proved to be a peer.
const MAX_STRANGERS: usize = 32;
/// What a handshake may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Streams that wait to be taken by their service; more are refused.
const QUEUE: usize = 64;
/// After a failed `accept`, such as without free descriptors.
const CALM: Duration = Duration::from_millis(50);

/// A stream that a peer opened.
pub struct Incoming {
    /// The peer's seat.
    pub seat: usize,
    /// The stream, behind its service's byte.
    pub stream: PeerStream,
}

/// Who takes the streams of each service.
#[derive(Clone, Default)]
pub struct Routes {
    takers: [Option<mpsc::Sender<Incoming>>; Service::ALL.len()],
}

impl Routes {
    /// The streams that peers open to `service`, from now on.
    pub fn take(&mut self, service: Service) -> mpsc::Receiver<Incoming> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.takers[usize::from(service.byte()) - 1] = Some(sender);
        receiver
    }

    fn give(&self, service: Service, incoming: Incoming) -> Result<(), ChannelError> {
        let taker = self.takers[usize::from(service.byte()) - 1].as_ref();
        let is_taken = taker.is_some_and(|taker| taker.try_send(incoming).is_ok());
        is_taken
            .then_some(())
            .ok_or(ChannelError::UnknownService(service.byte()))
    }
}

/// Accepts streams for the node in one seat.
#[derive(Clone)]
pub struct Listeners {
    shared: Arc<Shared>,
}

struct Shared {
    key: ChannelKey,
    own: u8,
    routes: Routes,
    /// Told the reason of each connection that came to nothing.
    on_refused: Box<dyn Fn(&'static str) + Send + Sync>,
}

impl Listeners {
    /// For the node in seat `own`; `on_refused` counts connections that came to nothing, by reason.
    pub fn new(
        key: ChannelKey,
        own: u8,
        routes: Routes,
        on_refused: impl Fn(&'static str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                key,
                own,
                routes,
                on_refused: Box::new(on_refused),
            }),
        }
    }

    /// Accepts on `listener` for as long as it is polled.
    pub async fn serve(&self, listener: TcpListener) {
        let mut waiting: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_STRANGERS);
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(CALM).await;
                continue;
            };
            waiting.retain(|task| !task.is_finished());
            if waiting.len() >= MAX_STRANGERS
                && let Some(oldest) = waiting.pop_front()
            {
                oldest.abort();
                (self.shared.on_refused)("GaveWay");
            }
            let shared = self.shared.clone();
            let task = tokio::spawn(async move { shared.welcome(socket).await });
            waiting.push_back(task.abort_handle());
        }
    }
}

impl Shared {
    async fn welcome(&self, socket: TcpStream) {
        let outcome = match tokio::time::timeout(PATIENCE, self.shake_hands(socket)).await {
            Ok(Ok((service, incoming))) => self.routes.give(service, incoming),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ChannelError::Deadline(PATIENCE)),
        };
        if let Err(error) = outcome {
            (self.on_refused)(error.reason());
        }
    }

    async fn shake_hands(
        &self,
        mut socket: TcpStream,
    ) -> Result<(Service, Incoming), ChannelError> {
        prepare(&socket)?;
        let mut arrived = FrameBuffer::default();
        let hello = read_frame(&mut socket, &mut arrived).await?;
        let (answering, answer) = Answering::new(&self.key, self.own, &hello)?;
        let mut bytes = Vec::with_capacity(128);
        frame::append(&mut bytes, answer.len(), |room| {
            room.copy_from_slice(&answer);
            answer.len()
        });
        socket.write_all(&bytes).await?;
        let first = read_frame(&mut socket, &mut arrived).await?;
        let (session, seat, service) = answering.on_first(&first)?;
        let stream = PeerStream::new(socket, session, arrived);
        let seat = usize::from(seat);
        Ok((service, Incoming { seat, stream }))
    }
}
