//! The connection to Asterisk: made anew whenever it ends or the way changes, with growing pauses.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Shared;
use crate::hub::{Account, Hub};

/// To connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Bytes to and from Asterisk's manager.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection, and how the hub logs in on it.
pub type Connection = (Box<dyn Stream>, Account);

/// A way to the manager of one Asterisk.
pub trait Connector: Send + Sync {
    /// Connects; the hub bounds the time.
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Connection>> + '_>>;
}

/// The way to the Asterisk that serves, as it changes; `None`: there is none. With every change the connection is made anew.
pub type Route = watch::Receiver<Option<Arc<dyn Connector>>>;

/// The manager at an address.
#[derive(Clone, Debug)]
pub struct TcpConnector {
    /// Where.
    pub address: SocketAddr,
    /// As whom.
    pub account: Account,
}

impl Connector for TcpConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Connection>> + '_>> {
        Box::pin(async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, self.account.clone()))
        })
    }
}

/// Keeps the hub connected for as long as it is polled.
pub(super) async fn keep(shared: Rc<Shared>, mut route: Route) {
    let mut pause = PAUSES.0;
    loop {
        let connector = route.borrow_and_update().clone();
        let Some(connector) = connector else {
            if route.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        };
        let end = tokio::select! {
            end = live(&shared, &*connector) => end,
            () = changed(&mut route) => Ok(()),
        };
        let was_ready = shared.hub.borrow().is_ready();
        shared.apply(Hub::upstream_lost);
        pause = if was_ready {
            PAUSES.0
        } else {
            PAUSES.1.min(pause * 2)
        };
        let Err(error) = end else {
            continue;
        };
        tracing::warn!(error = %error, "the hub is not connected to asterisk's manager");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed(&mut route) => {}
        }
    }
}

/// A way that will not change any more never does.
async fn changed(route: &mut Route) {
    if route.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One connection, from its beginning to its end.
async fn live(shared: &Shared, connector: &dyn Connector) -> io::Result<()> {
    let connect = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect());
    let (mut stream, account) = connect.await.map_err(|_| io::ErrorKind::TimedOut)??;
    shared.apply(|hub, now| hub.upstream_connected(account, now));
    std::future::poll_fn(|cx| poll(shared, Pin::new(&mut *stream), cx)).await
}

fn poll(
    shared: &Shared,
    mut stream: Pin<&mut dyn Stream>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    shared.sleep_of_link(cx.waker());
    loop {
        let mut scratch = shared.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match stream.as_mut().poll_read(cx, &mut buffer)? {
            Poll::Pending => break,
            Poll::Ready(()) if buffer.filled().is_empty() => {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(()) => {
                let bytes = buffer.filled();
                let is_more = bytes.len() == super::READ_BYTES;
                shared.apply(|hub, now| hub.upstream_bytes(bytes, now));
                shared.sleep_of_link(cx.waker());
                if is_more {
                    // The clients write what they got before more of it is read.
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
    }
    loop {
        let hub = shared.hub.borrow();
        if let Some(why) = hub.upstream_fault() {
            return Poll::Ready(Err(io::Error::other(why.to_owned())));
        }
        if hub.upstream_unsent().is_empty() {
            break;
        }
        let Poll::Ready(written) = stream.as_mut().poll_write(cx, hub.upstream_unsent())? else {
            break;
        };
        drop(hub);
        shared.apply(|hub, now| hub.upstream_sent(written, now));
        shared.sleep_of_link(cx.waker());
    }
    let _ = stream.poll_flush(cx)?;
    Poll::Pending
}
