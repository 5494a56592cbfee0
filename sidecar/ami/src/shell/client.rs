//! One client's socket: reads while the hub wants more of it, writes what the hub has for it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use crate::hub::SessionId;

/// Serves a client until it leaves or the hub ends it.
pub(super) async fn serve<S>(shared: Rc<Shared>, id: SessionId, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = std::future::poll_fn(|cx| poll(&shared, id, Pin::new(&mut stream), cx)).await;
    if let Err(error) = end {
        tracing::debug!(%error, "an AMI client's connection ended");
    }
    shared.apply(|hub, _| hub.close(id));
}

fn poll<S>(
    shared: &Shared,
    id: SessionId,
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>>
where
    S: AsyncRead + AsyncWrite,
{
    shared.sleep_of(id, cx.waker());
    let is_closed = poll_input(shared, id, stream.as_mut(), cx)?;
    let is_written = poll_output(shared, id, stream.as_mut(), cx)?;
    let is_over = shared.hub.borrow().is_over(id);
    if is_over && is_written {
        // A courtesy: what cannot be flushed at once is not waited for.
        let _ = stream.poll_shutdown(cx);
    }
    if is_closed || is_over {
        Poll::Ready(Ok(()))
    } else {
        Poll::Pending
    }
}

/// Whether the client has closed.
fn poll_input<S: AsyncRead>(
    shared: &Shared,
    id: SessionId,
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let mut scratch = shared.scratch.borrow_mut();
    while shared.hub.borrow().wants_input(id) {
        let mut buffer = ReadBuf::new(&mut scratch);
        match stream.as_mut().poll_read(cx, &mut buffer)? {
            Poll::Pending => break,
            Poll::Ready(()) if buffer.filled().is_empty() => return Ok(true),
            Poll::Ready(()) => {
                let bytes = buffer.filled();
                shared.apply(|hub, now| hub.client_bytes(id, bytes, now));
                // Its own waker may have been taken for this.
                shared.sleep_of(id, cx.waker());
            }
        }
    }
    Ok(false)
}

/// Whether everything is written.
fn poll_output<S: AsyncWrite>(
    shared: &Shared,
    id: SessionId,
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let write = |cx: &mut Context<'_>| {
        let mut hub = shared.hub.borrow_mut();
        loop {
            let unsent = hub.unsent(id);
            if unsent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(stream.as_mut().poll_write(cx, unsent)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => hub.sent(id, count),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    };
    let mut write = write;
    match write(cx)? {
        Poll::Pending => Ok(false),
        Poll::Ready(()) => Ok(stream.poll_flush(cx)?.is_ready()),
    }
}
