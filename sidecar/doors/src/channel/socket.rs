//! Options of the connections between sidecars, and reading a frame before there is a stream.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::ChannelError;
use super::frame::FrameBuffer;

/// A connection on which nothing is heard for this long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// What was sent and not acknowledged for so long ends the connection: the peer's kernel, or the path, is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(6);

/// Small frames leave at once; a peer that vanished is noticed by the kernel.
pub fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    let options = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(2);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_nodelay(true)
}

/// The next frame of a connection that has no session yet.
pub async fn read_frame(
    socket: &mut TcpStream,
    arrived: &mut FrameBuffer,
) -> Result<Vec<u8>, ChannelError> {
    let mut piece = [0; 1024];
    loop {
        if let Some(frame) = arrived.next_frame()? {
            return Ok(frame.to_vec());
        }
        let room = arrived.room().min(piece.len());
        match socket.read(&mut piece[..room]).await? {
            0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            length => arrived.push(&piece[..length]),
        }
    }
}
