//! A service as small as can be, for systems that keep no Asterisk: answers every OPTIONS with 200.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

/// Serves at `address`, which need not stand on this host yet, until the process ends.
pub fn serve(address: SocketAddrV4) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("open a socket")?;
    socket
        .set_freebind_v4(true)
        .context("bind to an address that may come later")?;
    socket
        .bind(&SocketAddr::V4(address).into())
        .with_context(|| format!("bind to {address}"))?;
    let socket = UdpSocket::from(socket);
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("receive")?;
        if let Some(answer) = answer_to(&buffer[..length]) {
            // Refused while the address is elsewhere.
            socket.send_to(answer.as_bytes(), from).ok();
        }
    }
}

fn answer_to(request: &[u8]) -> Option<String> {
    let (first, headers) = std::str::from_utf8(request).ok()?.split_once("\r\n")?;
    first
        .starts_with("OPTIONS ")
        .then(|| format!("SIP/2.0 200 OK\r\n{headers}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_answered_with_their_own_headers() {
        let answer = answer_to(b"OPTIONS sip:x SIP/2.0\r\nCall-ID: 7\r\n\r\n").unwrap();
        assert_eq!(answer, "SIP/2.0 200 OK\r\nCall-ID: 7\r\n\r\n");
        assert_eq!(answer_to(b"INVITE sip:x SIP/2.0\r\n\r\n"), None);
    }
}
