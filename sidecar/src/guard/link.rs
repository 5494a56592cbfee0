//! The unix socket to the guard. Lost connections are made anew: the guard is of another container, and may come later.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use pbx_guard::protocol::{Command, Event, MAX_FRAME_SIZE};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::input_watch::watch_input;

const RETRY: Duration = Duration::from_millis(20);

/// What happens on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The guard reports.
    Event(Event),
    /// The connection is gone; it is made anew by itself.
    Lost,
}

/// The connection, or the wish for one.
pub struct GuardLink {
    path: PathBuf,
    stream: Option<AsyncFd<UnixStream>>,
    received: Vec<u8>,
    retry_at: Instant,
    /// It was lost, and nobody was told yet.
    is_loss_untold: bool,
}

impl GuardLink {
    /// Connects if the guard is there; [`GuardLink::next`] goes on trying.
    pub fn new(path: PathBuf) -> Self {
        let mut link = Self {
            path,
            stream: None,
            received: Vec::with_capacity(256),
            retry_at: Instant::now(),
            is_loss_untold: false,
        };
        link.connect();
        link
    }

    /// Whether the guard answers the connection.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Sends one order. An order that cannot be sent at once is lost with the connection: the state is asked anew.
    pub fn send(&mut self, command: Command) {
        let Some(stream) = &self.stream else { return };
        let mut frame = Vec::with_capacity(MAX_FRAME_SIZE);
        command.encode(&mut frame);
        if rustix::io::write(stream, &frame).is_ok_and(|written| written == frame.len()) {
            return;
        }
        self.lose();
    }

    /// The next thing that happens. Cancel-safe.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            if std::mem::take(&mut self.is_loss_untold) {
                return LinkEvent::Lost;
            }
            if let Some(event) = self.decode() {
                return LinkEvent::Event(event);
            }
            if self.is_loss_untold {
                continue;
            }
            if self.stream.is_none() {
                tokio::time::sleep_until(self.retry_at).await;
                self.connect();
                continue;
            }
            if !self.receive().await {
                self.lose();
            }
        }
    }

    fn connect(&mut self) {
        self.retry_at = Instant::now() + RETRY;
        self.received.clear();
        let opened = UnixStream::connect(&self.path).and_then(|stream| {
            stream.set_nonblocking(true)?;
            watch_input(stream)
        });
        if let Ok(stream) = opened {
            self.stream = Some(stream);
            self.send(Command::Hello);
        }
    }

    fn decode(&mut self) -> Option<Event> {
        match Event::decode(&self.received) {
            Ok(None) => None,
            Ok(Some((event, used))) => {
                self.received.drain(..used);
                Some(event)
            }
            Err(error) => {
                tracing::error!(%error, "the guard speaks another language; its image is of another release");
                self.lose();
                None
            }
        }
    }

    /// Whether the connection lives on.
    async fn receive(&mut self) -> bool {
        let stream = self.stream.as_ref().expect("only called while connected");
        let Ok(mut ready) = stream.readable().await else {
            return false;
        };
        let mut chunk = [0; 256];
        match ready.try_io(|stream| stream.get_ref().read(&mut chunk)) {
            Ok(Ok(0) | Err(_)) => false,
            Ok(Ok(count)) => {
                self.received.extend_from_slice(&chunk[..count]);
                true
            }
            // Nothing to read after all.
            Err(_) => true,
        }
    }

    /// Whoever had an order on its way is told, or would wait for its answer for ever.
    fn lose(&mut self) {
        self.is_loss_untold = true;
        self.stream = None;
        self.received.clear();
        self.retry_at = Instant::now() + RETRY;
    }
}
