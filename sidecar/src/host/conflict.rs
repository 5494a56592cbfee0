//! Hearing another holder of a floating address: an ARP message, or a neighbour advertisement, that names it with foreign hardware.
//!
//! It reports and decides nothing: two nodes of the cluster cannot both be heard, since the fence holds a passive one's messages
//! back. So it is a machine that was given the address by mistake.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::address::Link;

const ETHER_TYPE_ARP: u16 = 0x0806;
const MOST_BYTES: usize = 1500;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER: u8 = 2;

/// Somebody else says that this address is his.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// His hardware address.
    pub hardware: [u8; 6],
}

/// Listens on one link.
#[derive(Debug)]
pub struct ConflictWatch {
    arp: AsyncFd<Socket>,
    neighbours: AsyncFd<Socket>,
}

impl ConflictWatch {
    /// Opens the sockets.
    pub fn open(link: &Link) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ETHER_TYPE_ARP.to_be()));
        let arp = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        let neighbours = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        for socket in [&arp, &neighbours] {
            socket.attach_filter(&of_link(link.index))?;
            socket.set_nonblocking(true)?;
        }
        Ok(Self {
            arp: registered(arp)?,
            neighbours: registered(neighbours)?,
        })
    }

    /// The next claim of any address by hardware; that of this node among them, and of addresses that do not float.
    pub async fn next(&self) -> io::Result<Claim> {
        let mut buffer = [0; MOST_BYTES];
        loop {
            let claim = tokio::select! {
                length = receive(&self.arp, &mut buffer) => claim_of_arp(&buffer[..length?]),
                length = receive_apart(&self.neighbours) => {
                    let (message, length) = length?;
                    claim_of_advertisement(&message[..length])
                }
            };
            if let Some(claim) = claim {
                return Ok(claim);
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe, for descriptors that can be closed elsewhere; this socket is owned, and never handed out"
)]
fn registered(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn receive(socket: &AsyncFd<Socket>, buffer: &mut [u8]) -> io::Result<usize> {
    socket
        .async_io(Interest::READABLE, |socket| (&*socket).read(buffer))
        .await
}

/// With a buffer of its own, since both sockets are waited for at once.
async fn receive_apart(socket: &AsyncFd<Socket>) -> io::Result<([u8; MOST_BYTES], usize)> {
    let mut buffer = [0; MOST_BYTES];
    let length = receive(socket, &mut buffer).await?;
    Ok((buffer, length))
}

/// A classic filter: packets of this link only.
fn of_link(index: u32) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where classic filters find the number of the link (`SKF_AD_OFF + SKF_AD_IFINDEX`).
    const LINK_INDEX: u32 = 0xffff_f000 + 8;
    [
        SockFilter::new(LOAD_WORD, 0, 0, LINK_INDEX),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, index),
        SockFilter::new(RETURN, 0, 0, MOST_BYTES as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Sender's hardware and protocol address of an ARP message for IPv4 over Ethernet, request or reply.
fn claim_of_arp(frame: &[u8]) -> Option<Claim> {
    if frame.get(12..20)? != [8, 6, 0, 1, 8, 0, 6, 4] {
        return None;
    }
    let ip: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    Some(Claim {
        ip: IpAddr::from(ip),
        hardware: frame.get(22..28)?.try_into().ok()?,
    })
}

fn claim_of_advertisement(message: &[u8]) -> Option<Claim> {
    if *message.first()? != NEIGHBOUR_ADVERTISEMENT {
        return None;
    }
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mut options = message.get(24..)?;
    loop {
        // Lengths count in units of eight bytes; zero would never end.
        let length = usize::from(*options.get(1)?) * 8;
        if length == 0 {
            return None;
        }
        if options[0] == TARGET_LINK_LAYER {
            return Some(Claim {
                ip: IpAddr::V6(Ipv6Addr::from(target)),
                hardware: options.get(2..8)?.try_into().ok()?,
            });
        }
        options = options.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arp_names_its_sender() {
        let mut frame = vec![0xff; 12];
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame.extend([2, 0, 0, 0, 0, 9, 192, 0, 2, 50]);
        frame.extend([0; 10]);
        let claim = claim_of_arp(&frame).unwrap();
        assert_eq!(claim.ip, IpAddr::from([192, 0, 2, 50]));
        assert_eq!(claim.hardware, [2, 0, 0, 0, 0, 9]);
        assert_eq!(claim_of_arp(&frame[..30]), None);
    }

    #[test]
    fn an_option_of_no_length_ends_the_reading() {
        let mut message = vec![0; 24];
        message[0] = NEIGHBOUR_ADVERTISEMENT;
        message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(claim_of_advertisement(&message), None);
        message.truncate(24);
        message.extend([14, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(
            claim_of_advertisement(&message).unwrap().hardware,
            [2, 0, 0, 0, 0, 9]
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            claim_of_arp(&bytes);
            claim_of_advertisement(&bytes);
        }
    }
}
