//! Connections of HTTP: bounded in number, in the time that a request's head may take, and in the bytes of a head.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pbx_doors::OnDropped;
use pbx_doors::tls::Tls;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::doors::descriptors;

/// More are closed at once; less where the process may not have four times as many descriptors.
const MAX_CONNECTIONS: usize = 4096;
/// A request's head arrives within this.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Of a head; the smallest that hyper takes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// A silent client is asked for a sign of life this often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What a client has not acknowledged for so long ends its connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed `accept`, such as without free descriptors.
const CALM: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until the process ends; `on_dropped` is told whom it turned away.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router, on_dropped: OnDropped) {
    let places = MAX_CONNECTIONS.min(descriptors::allowed() / 4);
    let places = Arc::new(Semaphore::new(places));
    loop {
        let Ok((socket, from)) = listener.accept().await else {
            tokio::time::sleep(CALM).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            on_dropped.tell("HttpCrowd");
            continue;
        };
        let (tls, router, on_dropped) = (tls.clone(), router.clone(), on_dropped.clone());
        tokio::spawn(async move {
            let _place = place;
            // A client that vanished is none to write of.
            let _ = prepare(&socket);
            match tls {
                None => serve_one(socket, from, router).await,
                Some(tls) => match tls.accept(socket).await {
                    Ok(socket) => serve_one(socket, from, router).await,
                    Err(error) => on_dropped.tell(error.reason()),
                },
            }
        });
    }
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    let options = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_nodelay(true)
}

async fn serve_one(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    router: Router,
) {
    let router = router.layer(axum::Extension(ConnectInfo(from)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of HTTP ended");
    }
}
