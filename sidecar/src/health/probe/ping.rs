//! An echo to a gateway, through the unprivileged ICMP socket of Linux. Where the kernel refuses it
//! (`net.ipv4.ping_group_range`), the sensor says so and counts nothing.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::super::score::{Reading, Verdict};

/// An echo request without identifier and checksum, which the kernel fills in, and our payload.
const ECHO_4: u8 = 8;
const ECHO_6: u8 = 128;
const PAYLOAD: &[u8] = b"pbx-ha gateway";

/// Waits for an answer; the caller's patience ends it.
pub(super) async fn read(address: &str) -> Reading {
    let Ok(ip) = address.parse::<IpAddr>() else {
        let text = format!("\"{address}\" is no IP address: correct the sensor's address");
        return Reading::new(Verdict::Critical, text);
    };
    let socket = match open(ip) {
        Ok(socket) => socket,
        Err(error) => {
            let text =
                format!("no ICMP socket ({error}): allow this group in net.ipv4.ping_group_range");
            return Reading::new(Verdict::Skipped, text);
        }
    };
    match echo(&socket, ip).await {
        Ok(()) => Reading::new(Verdict::Good, "answered"),
        Err(error) => Reading::new(Verdict::Critical, format!("{ip}: {error}")),
    }
}

fn open(ip: IpAddr) -> std::io::Result<UdpSocket> {
    let (domain, protocol) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

async fn echo(socket: &UdpSocket, ip: IpAddr) -> std::io::Result<()> {
    let kind = if ip.is_ipv4() { ECHO_4 } else { ECHO_6 };
    let request = [&[kind, 0, 0, 0, 0, 0, 0, 1], PAYLOAD].concat();
    socket.connect(SocketAddr::new(ip, 0)).await?;
    socket.send(&request).await?;
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // The kernel gives this socket the answers to its own requests alone.
        if buffer[..length].ends_with(PAYLOAD) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_answers_or_the_kernel_refuses_the_socket() {
        let reading = read("127.0.0.1").await;
        assert!(
            matches!(reading.verdict, Verdict::Good | Verdict::Skipped),
            "{reading:?}"
        );
    }

    #[tokio::test]
    async fn a_name_is_no_address() {
        assert_eq!(read("gateway.local").await.verdict, Verdict::Critical);
    }
}
