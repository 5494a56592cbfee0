//! A stream to a peer: `AsyncRead + AsyncWrite` over frames. At most one frame waits in each direction, so a slow reader slows its
//! writer and nobody else. An empty frame is the orderly end: a connection that ends without one is an error to the reader.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::frame::{self, FrameBuffer, MAX_TEXT_BYTES, TAG_BYTES};
use super::noise::Session;

/// Read from the socket at once.
const PIECE_BYTES: usize = 4096;

/// A stream to a peer.
pub struct PeerStream {
    socket: TcpStream,
    session: Session,
    arrived: FrameBuffer,
    /// Of the frame that is being read.
    text: Vec<u8>,
    text_at: usize,
    has_ended: bool,
    /// The frame that is being written.
    leaving: Vec<u8>,
    leaving_at: usize,
    is_shut: bool,
}

impl PeerStream {
    /// Over `socket`, from which `arrived` was read already.
    pub(super) fn new(socket: TcpStream, session: Session, arrived: FrameBuffer) -> Self {
        Self {
            socket,
            session,
            arrived,
            text: Vec::new(),
            text_at: 0,
            has_ended: false,
            leaving: Vec::new(),
            leaving_at: 0,
            is_shut: false,
        }
    }

    fn seal(&mut self, text: &[u8]) {
        let session = &mut self.session;
        self.leaving.clear();
        self.leaving_at = 0;
        frame::append(&mut self.leaving, text.len() + TAG_BYTES, |room| {
            session.seal(text, room)
        });
    }

    /// Until nothing waits to leave.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.leaving_at < self.leaving.len() {
            let rest = &self.leaving[self.leaving_at..];
            let written = ready!(Pin::new(&mut self.socket).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.leaving_at += written;
        }
        Poll::Ready(Ok(()))
    }

    /// Until there is text, or the orderly end.
    fn poll_text(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.text_at == self.text.len() && !self.has_ended {
            if let Some(frame) = self.arrived.next_frame()? {
                self.session.open(frame, &mut self.text)?;
                self.text_at = 0;
                self.has_ended = self.text.is_empty();
                continue;
            }
            ready!(self.poll_bytes(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE_BYTES];
        let room = self.arrived.room().min(PIECE_BYTES);
        let mut buffer = ReadBuf::new(&mut piece[..room]);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.arrived.push(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_text(context))?;
        let rest = &self.text[self.text_at..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.text_at += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_drain(context))?;
        let length = buffer.len().min(MAX_TEXT_BYTES);
        self.seal(&buffer[..length]);
        // What does not leave now leaves before the next frame, or with a flush.
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(self.poll_drain(context))?;
            self.seal(&[]);
            self.is_shut = true;
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
