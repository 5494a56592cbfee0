//! Telling the neighbours where the address is now: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! Both leave by sockets that are opened in advance, so that the first announcement costs two sends. They pass the fence like
//! everything else: a node whose authority is over announces nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::address::Link;
use super::plan::FloatingAddress;

/// After the first: a switch that was just learning, a host that was just busy. Neighbours that missed them all ask again by
/// themselves when their entry goes stale.
pub const REPEATS: [Duration; 6] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(150),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHER_TYPE_ARP: [u8; 2] = [0x08, 0x06];
const ARP_BYTES: usize = 42;
const ADVERTISEMENT_BYTES: usize = 32;
/// To all nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A neighbour message with another is not believed (RFC 4861).
const HOP_LIMIT: u32 = 255;

/// What failed.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// The link has no hardware address that could be announced.
    #[error(
        "{interface} has no Ethernet address: a floating address needs a link with ARP or neighbour discovery"
    )]
    NoHardware {
        /// The link.
        interface: String,
    },
    /// No socket to send from.
    #[error(
        "cannot open a socket to announce {ip} on {interface}: {source} (the sidecar needs CAP_NET_RAW)"
    )]
    Open {
        /// The address.
        ip: IpAddr,
        /// The link.
        interface: String,
        /// Why not.
        source: io::Error,
    },
}

/// The announcers of all addresses, shared by who opens them and by the core's thread, whose first announcement clients wait for.
#[derive(Clone, Debug, Default)]
pub struct Announcers {
    all: Arc<Mutex<Vec<Announcer>>>,
}

impl Announcers {
    /// Announces all addresses. A full buffer loses an announcement, as the network may; they are repeated. The fence refuses those
    /// of a passive node.
    pub fn announce(&self) {
        // Held for a few sends, or for an exchange of the list.
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for announcer in all.iter() {
            if let Err(error) = announcer.announce() {
                tracing::warn!(%error, "an announcement of a floating address could not be sent");
            }
        }
    }

    /// These from now on.
    pub fn replace(&self, announcers: Vec<Announcer>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all = announcers;
    }
}

/// Announces one address.
#[derive(Debug)]
pub struct Announcer {
    message: Message,
}

#[derive(Debug)]
enum Message {
    Arp {
        socket: OwnedFd,
        frame: [u8; ARP_BYTES],
    },
    Advertisement {
        socket: Socket,
        to: SocketAddrV6,
        message: [u8; ADVERTISEMENT_BYTES],
    },
}

impl Announcer {
    /// Opens the socket. The address must stand on the link.
    pub fn open(address: &FloatingAddress, link: &Link) -> Result<Self, AnnounceError> {
        let interface = &address.interface;
        let Some(hardware) = link.hardware else {
            return Err(AnnounceError::NoHardware {
                interface: interface.clone(),
            });
        };
        let message = match address.ip {
            IpAddr::V4(ip) => open_arp(interface, ip, hardware),
            IpAddr::V6(ip) => open_advertisement(link.index, ip, hardware),
        };
        let message = message.map_err(|source| AnnounceError::Open {
            ip: address.ip,
            interface: interface.clone(),
            source,
        })?;
        Ok(Self { message })
    }

    /// Sends one announcement.
    pub fn announce(&self) -> io::Result<()> {
        match &self.message {
            Message::Arp { socket, frame } => {
                send(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
            }
            Message::Advertisement {
                socket,
                to,
                message,
            } => {
                socket.send_to(message, &(*to).into())?;
            }
        }
        Ok(())
    }
}

/// A packet socket bound to the link. It has no protocol, so it receives nothing.
fn open_arp(interface: &str, ip: Ipv4Addr, hardware: [u8; 6]) -> io::Result<Message> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(socket.as_raw_fd(), &link_address(interface)?)?;
    let frame = arp_frame(ip, hardware);
    Ok(Message::Arp { socket, frame })
}

/// The system's own list has the link's address in the form that a packet socket is bound to.
fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let found = nix::ifaddrs::getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the link has no link address"))
}

fn open_advertisement(index: u32, ip: Ipv6Addr, hardware: [u8; 6]) -> io::Result<Message> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_loop_v6(false)?;
    // It only sends: what would arrive here is somebody else's business.
    socket.set_recv_buffer_size(0)?;
    socket.bind(&SocketAddrV6::new(ip, 0, 0, 0).into())?;
    Ok(Message::Advertisement {
        socket,
        to: SocketAddrV6::new(ALL_NODES, 0, 0, index),
        message: advertisement(ip, hardware),
    })
}

/// A request for the own address (RFC 5227): every neighbour that knows the address takes the new place, and another holder
/// answers, which the conflict watch hears.
fn arp_frame(ip: Ipv4Addr, hardware: [u8; 6]) -> [u8; ARP_BYTES] {
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let mut frame = [0; ARP_BYTES];
    frame[0..6].copy_from_slice(&BROADCAST);
    frame[6..12].copy_from_slice(&hardware);
    frame[12..14].copy_from_slice(&ETHER_TYPE_ARP);
    frame[14..22].copy_from_slice(&ETHERNET_IPV4_REQUEST);
    frame[22..28].copy_from_slice(&hardware);
    frame[28..32].copy_from_slice(&ip.octets());
    frame[38..42].copy_from_slice(&ip.octets());
    frame
}

/// Unsolicited, override, with the target's link-layer address (RFC 4861, 4.4). The kernel writes the checksum.
fn advertisement(ip: Ipv6Addr, hardware: [u8; 6]) -> [u8; ADVERTISEMENT_BYTES] {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
    let mut message = [0; ADVERTISEMENT_BYTES];
    message[0] = NEIGHBOUR_ADVERTISEMENT;
    message[4] = OVERRIDE;
    message[8..24].copy_from_slice(&ip.octets());
    message[24..26].copy_from_slice(&TARGET_LINK_LAYER);
    message[26..32].copy_from_slice(&hardware);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn gratuitous_arp_names_the_address_as_sender_and_target() {
        let frame = arp_frame([192, 0, 2, 50].into(), HARDWARE);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(
            (&frame[6..12], &frame[22..28]),
            (&HARDWARE[..], &HARDWARE[..])
        );
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    }

    #[test]
    fn advertisement_overrides_what_neighbours_know() {
        let message = advertisement("2001:db8::50".parse().unwrap(), HARDWARE);
        assert_eq!((message[0], message[4]), (136, 0x20));
        assert_eq!(message[24..32], [2, 1, 2, 0, 0, 0, 0, 7]);
    }
}
