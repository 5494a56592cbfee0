//! Who answered: a packet socket sees what arrives at the node before its addresses are rewritten, so the source is the pod
//! itself. (The client sees the Service's address, and Asterisk's answer to OPTIONS names nobody.)

use std::io::Read;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::sip::answered_number;

/// IPv4 in the link layer's type field, in network order, as packet(7) wants it.
const IPV4: u16 = 0x0800_u16.to_be();
const UDP: u8 = 17;
const BUFFER_BYTES: usize = 4 << 20;

/// A view of all IPv4 packets that arrive in a network namespace.
pub(super) struct Wire {
    socket: Socket,
    run: u64,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens it in the network namespace of this thread.
    pub(super) fn open(run: u64) -> Result<Self> {
        let protocol = Protocol::from(i32::from(IPV4));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))
            .context("open a packet socket")?;
        socket
            .set_nonblocking(true)
            .context("set up the packet socket")?;
        socket
            .set_recv_buffer_size(BUFFER_BYTES)
            .context("enlarge the packet socket")?;
        Ok(Self {
            socket,
            run,
            buffer: vec![0; 65536],
        })
    }

    /// What to wait for.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next answer that has arrived: the number of its request, and who sent it.
    pub(super) fn next(&mut self) -> Option<(usize, Ipv4Addr)> {
        loop {
            let length = self.socket.read(&mut self.buffer).ok()?;
            let packet = &self.buffer[..length];
            if let Some((source, payload)) = udp_payload(packet)
                && let Some(number) = answered_number(self.run, payload)
            {
                return Some((number, source));
            }
        }
    }
}

/// Source and payload of a UDP packet that is not a fragment.
fn udp_payload(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let first = *packet.first()?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let is_whole = packet.get(6..8)? == [0x40, 0] || packet.get(6..8)? == [0, 0];
    if first >> 4 != 4 || *packet.get(9)? != UDP || !is_whole {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((source.into(), packet.get(header_bytes + 8..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, fragment: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, fragment[0], fragment[1], 64, protocol];
        packet.extend([0, 0, 198, 18, 128, 5, 198, 18, 0, 13]);
        packet.extend([0x13, 0xc4, 0x13, 0xc4, 0, 0, 0, 0]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn payload_and_source_are_found() {
        let whole = packet(UDP, [0x40, 0], b"hello");
        let (source, payload) = udp_payload(&whole).unwrap();
        assert_eq!(source, Ipv4Addr::new(198, 18, 128, 5));
        assert_eq!(payload, b"hello");
    }

    #[test]
    fn other_packets_are_passed_over() {
        assert_eq!(udp_payload(&packet(6, [0x40, 0], b"tcp")), None);
        assert_eq!(udp_payload(&packet(UDP, [0x20, 0], b"fragment")), None);
        for length in 0..28 {
            assert_eq!(udp_payload(&packet(UDP, [0, 0], b"")[..length]), None);
        }
    }
}
