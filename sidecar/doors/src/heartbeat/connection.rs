//! One client's connection: bytes into frames, frames into bytes, with a bound on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::FrameReader;
use super::hub::ClientId;

/// Bytes that may wait for one client. Whoever is further behind is cut off.
pub const QUEUED_BYTES: usize = 64 * 1024;
/// Frames that may wait for one client.
pub const QUEUED_FRAMES: usize = 1024;
/// Clients sign on at once: `libhbclient` does so within its connect.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 4096;

/// What a connection tells the server.
#[derive(Debug)]
pub enum Event {
    /// A process has connected.
    Accepted(UnixStream),
    /// A client has sent a body.
    Said(ClientId, Vec<u8>),
    /// A connection has ended.
    Gone(ClientId, End),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client or the hub closed it.
    Closed,
    /// It took nothing for [`WRITE_TIMEOUT`].
    Stalled,
    /// It sent what is no frame, or no first frame in time.
    Malformed,
}

/// What waits for one client.
#[derive(Debug)]
pub struct Queue {
    frames: mpsc::Sender<Arc<[u8]>>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of a [`Queue`].
#[derive(Debug)]
pub struct Waiting {
    frames: mpsc::Receiver<Arc<[u8]>>,
    bytes: Arc<AtomicUsize>,
}

/// An empty queue.
pub fn queue() -> (Queue, Waiting) {
    let (sender, frames) = mpsc::channel(QUEUED_FRAMES);
    let bytes = Arc::new(AtomicUsize::new(0));
    let queue = Queue {
        frames: sender,
        bytes: bytes.clone(),
    };
    (queue, Waiting { frames, bytes })
}

impl Queue {
    /// Adds a frame; `false`: the client is too far behind.
    #[must_use]
    pub fn push(&self, frame: &Arc<[u8]>) -> bool {
        let before = self.bytes.fetch_add(frame.len(), Ordering::Relaxed);
        before + frame.len() <= QUEUED_BYTES && self.frames.try_send(frame.clone()).is_ok()
    }
}

/// Serves one connection until it ends, which is its last event. It ends, all that waits written, once its queue is dropped.
pub async fn converse(
    stream: UnixStream,
    id: ClientId,
    events: mpsc::Sender<Event>,
    waiting: Waiting,
) {
    let (input, output) = stream.into_split();
    let end = tokio::select! {
        end = read(input, id, &events) => end,
        end = write(output, waiting) => end,
    };
    // The server that is gone needs no event.
    let _ = events.send(Event::Gone(id, end)).await;
}

async fn read(mut input: OwnedReadHalf, id: ClientId, events: &mpsc::Sender<Event>) -> End {
    let mut frames = FrameReader::default();
    let mut piece = [0; READ_BYTES];
    let first = timeout(
        FIRST_FRAME_TIMEOUT,
        next_body(&mut input, &mut frames, &mut piece),
    );
    let mut next = first.await.unwrap_or(Err(End::Malformed));
    loop {
        let body = match next {
            Ok(body) => body,
            Err(end) => return end,
        };
        if events.send(Event::Said(id, body)).await.is_err() {
            return End::Closed;
        }
        next = next_body(&mut input, &mut frames, &mut piece).await;
    }
}

async fn next_body(
    input: &mut OwnedReadHalf,
    frames: &mut FrameReader,
    piece: &mut [u8],
) -> Result<Vec<u8>, End> {
    loop {
        match frames.next_body() {
            Ok(Some(body)) => return Ok(body.to_vec()),
            Ok(None) => {}
            Err(_) => return Err(End::Malformed),
        }
        match input.read(piece).await {
            Ok(0) | Err(_) => return Err(End::Closed),
            Ok(bytes) => frames.push(&piece[..bytes]),
        }
    }
}

async fn write(mut output: OwnedWriteHalf, mut waiting: Waiting) -> End {
    while let Some(frame) = waiting.frames.recv().await {
        match timeout(WRITE_TIMEOUT, output.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Closed,
            Err(_) => return End::Stalled,
        }
        waiting.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
    }
    End::Closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::frame::frame;

    #[test]
    fn a_queue_is_bounded_in_bytes_and_in_frames() {
        let (queue, _waiting) = queue_of();
        let large = frame(&vec![0; 30_000]).unwrap();
        assert!(queue.push(&large) && queue.push(&large));
        assert!(!queue.push(&large));
        let (queue, _waiting) = queue_of();
        let small = frame(b"x").unwrap();
        let taken = (0..2 * QUEUED_FRAMES).take_while(|_| queue.push(&small));
        assert_eq!(taken.count(), QUEUED_FRAMES);
    }

    fn queue_of() -> (Queue, Waiting) {
        super::queue()
    }
}
