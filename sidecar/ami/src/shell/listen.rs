//! Who is let in: listeners on TCP, TLS and a unix socket, and what is set on each socket so that one whose other end is gone is found.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::{Shared, client};
use crate::certificate::Certificate;
use crate::hub::CLIENTS_LIMIT;

/// For TLS to be agreed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is probed after this, so often, and given up after so many.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// What was written and is not acknowledged.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(30);
/// What the kernel holds for a client (it doubles this).
const SOCKET_BUFFER_BYTES: usize = 128 << 10;
/// After an error of accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Its folder says who reaches it; beyond that, owner and group.
const SOCKET_MODE: u32 = 0o660;

/// A place to listen that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address.
    #[error("cannot listen on {address}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A unix socket.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that listens.
pub(super) enum Door {
    Tcp(StdTcpListener),
    Tls(StdTcpListener, Certificate),
    Unix(StdUnixListener),
}

pub(super) fn bind(address: SocketAddr) -> Result<StdTcpListener, BindError> {
    let bound = StdTcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| BindError::Address { address, source })
}

/// What an earlier life left at `path` is removed.
pub(super) fn bind_unix(path: &Path) -> Result<StdUnixListener, BindError> {
    let bind = || {
        fs::remove_file(path).or_else(absent_is_fine)?;
        let listener = StdUnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| BindError::Socket {
        path: path.into(),
        source,
    })
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Accepts for as long as it is polled.
pub(super) async fn serve(
    shared: Rc<Shared>,
    door: Door,
    places: Arc<Semaphore>,
) -> io::Result<()> {
    match door {
        Door::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let Some((stream, peer)) = accept(&listener).await else {
                    continue;
                };
                if let Ok(place) = places.clone().try_acquire_owned() {
                    spawn(&shared, Some(peer), stream, place);
                }
            }
        }
        Door::Tls(listener, mut certificate) => {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let Some((stream, peer)) = accept(&listener).await else {
                    continue;
                };
                if let Ok(place) = places.clone().try_acquire_owned() {
                    let acceptor = TlsAcceptor::from(certificate.newest(Instant::now()));
                    let shared = shared.clone();
                    tokio::task::spawn_local(shake_hands(shared, acceptor, peer, stream, place));
                }
            }
        }
        Door::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                bound_buffers(&stream);
                if let Ok(place) = places.clone().try_acquire_owned() {
                    spawn(&shared, None, stream, place);
                }
            }
        }
    }
}

/// So many clients at a time, those included that have not finished their handshake.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CLIENTS_LIMIT))
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            bound_buffers(&stream);
            if let Err(error) = prepare(&stream) {
                tracing::debug!(%error, "an AMI client left at once");
                return None;
            }
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept an AMI client");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(time)
        .with_interval(interval)
        .with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT))?;
    stream.set_nodelay(true)
}

/// A system that does not allow it keeps its default: that costs memory, no function.
fn bound_buffers(stream: &impl AsFd) {
    SockRef::from(stream)
        .set_send_buffer_size(SOCKET_BUFFER_BYTES)
        .ok();
}

async fn shake_hands(
    shared: Rc<Shared>,
    acceptor: TlsAcceptor,
    peer: IpAddr,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => spawn(&shared, Some(peer), stream, place),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS was not agreed with an AMI client"),
        Err(_) => tracing::debug!(%peer, "TLS took an AMI client too long"),
    }
}

fn spawn<S>(shared: &Rc<Shared>, peer: Option<IpAddr>, stream: S, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let challenge = challenge();
    let opened = shared.apply(|hub, now| hub.open(peer, challenge, now));
    let shared = shared.clone();
    if let Some(id) = opened {
        tokio::task::spawn_local(async move {
            client::serve(shared, id, stream).await;
            drop(place);
        });
    }
}

/// Random digits, as Asterisk gives.
pub(super) fn challenge() -> String {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel gives random bytes");
    (u64::from_le_bytes(bytes) % 1_000_000_000_000).to_string()
}
