//! TCP sockets of the doors.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

const BACKLOG: i32 = 256;

/// Listens on `address`, which, if it `may_be_absent`, need not be this host's yet.
pub fn bind(address: SocketAddr, may_be_absent: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(may_be_absent)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(may_be_absent)?,
    }
    // A restarted sidecar does not wait for the connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
