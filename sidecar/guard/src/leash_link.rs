//! What guard and leash say to each other: one packet of nine bytes per message over a
//! `SOCK_SEQPACKET` pair. Both ends are the same binary, so it has no version.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

const PACKET_SIZE: usize = 9;

/// What the guard orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start Asterisk; first arm the deadline unless it is 0.
    Launch { deadline_ns: u64 },
    /// Move the deadline.
    Arm { deadline_ns: u64 },
}

/// What the leash reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The launch's deadline had passed: nothing was started.
    LaunchTooLate,
    /// Asterisk was executed.
    Spawned { pid: u32 },
    /// It could not be.
    SpawnFailed { errno: i32 },
    /// The kernel's timer stands at this moment.
    Armed { standing_ns: u64 },
    /// This deadline was not accepted.
    ArmRefused { deadline_ns: u64 },
    /// Asterisk exited with this code.
    Exited { code: i32 },
    /// Asterisk was ended by a signal.
    Killed { signal: i32 },
}

/// A message as one packet.
pub(crate) trait Packet: Sized {
    fn parts(self) -> (u8, u64);
    fn from_parts(tag: u8, value: u64) -> Option<Self>;
}

/// What a look at the link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received<P> {
    Packet(P),
    /// Nothing now.
    Empty,
    /// The other end is gone, or not what it should be.
    Closed,
}

/// A connected pair, neither end of which ever waits.
pub(crate) fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Sends one message; false: the other end does not take it (gone, or so long stopped that the
/// socket is full).
pub(crate) fn send_packet(link: impl AsFd, packet: impl Packet) -> bool {
    let (tag, value) = packet.parts();
    let mut bytes = [tag; PACKET_SIZE];
    bytes[1..].copy_from_slice(&value.to_le_bytes());
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::io::retry_on_intr(|| send(&link, &bytes, flags)) == Ok(PACKET_SIZE)
}

/// Receives one message; never waits.
pub(crate) fn receive_packet<P: Packet>(link: impl AsFd) -> Received<P> {
    let mut bytes = [0_u8; PACKET_SIZE];
    match rustix::io::retry_on_intr(|| recv(&link, &mut bytes, RecvFlags::DONTWAIT)) {
        Ok((PACKET_SIZE, _)) => {
            let [tag, value @ ..] = bytes;
            P::from_parts(tag, u64::from_le_bytes(value)).map_or(Received::Closed, Received::Packet)
        }
        Err(Errno::AGAIN) => Received::Empty,
        Ok(_) | Err(_) => Received::Closed,
    }
}

impl Packet for Order {
    fn parts(self) -> (u8, u64) {
        match self {
            Self::Launch { deadline_ns } => (1, deadline_ns),
            Self::Arm { deadline_ns } => (2, deadline_ns),
        }
    }

    fn from_parts(tag: u8, value: u64) -> Option<Self> {
        match tag {
            1 => Some(Self::Launch { deadline_ns: value }),
            2 => Some(Self::Arm { deadline_ns: value }),
            _ => None,
        }
    }
}

impl Packet for Report {
    fn parts(self) -> (u8, u64) {
        let signed = |value: i32| u64::from(value.cast_unsigned());
        match self {
            Self::LaunchTooLate => (1, 0),
            Self::Spawned { pid } => (2, u64::from(pid)),
            Self::SpawnFailed { errno } => (3, signed(errno)),
            Self::Armed { standing_ns } => (4, standing_ns),
            Self::ArmRefused { deadline_ns } => (5, deadline_ns),
            Self::Exited { code } => (6, signed(code)),
            Self::Killed { signal } => (7, signed(signal)),
        }
    }

    fn from_parts(tag: u8, value: u64) -> Option<Self> {
        let low = value as u32;
        match tag {
            1 => Some(Self::LaunchTooLate),
            2 => Some(Self::Spawned { pid: low }),
            3 => Some(Self::SpawnFailed {
                errno: low.cast_signed(),
            }),
            4 => Some(Self::Armed { standing_ns: value }),
            5 => Some(Self::ArmRefused { deadline_ns: value }),
            6 => Some(Self::Exited {
                code: low.cast_signed(),
            }),
            7 => Some(Self::Killed {
                signal: low.cast_signed(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let (guard, leash) = pair().unwrap();
        let reports = [
            Report::LaunchTooLate,
            Report::Spawned { pid: 7 },
            Report::SpawnFailed { errno: 2 },
            Report::Armed {
                standing_ns: u64::MAX,
            },
            Report::ArmRefused { deadline_ns: 1 },
            Report::Exited { code: -1 },
            Report::Killed { signal: 9 },
        ];
        for report in reports {
            assert!(send_packet(&leash, report));
        }
        for report in reports {
            assert_eq!(receive_packet(&guard), Received::Packet(report));
        }
        assert_eq!(receive_packet::<Report>(&guard), Received::Empty);
        drop(leash);
        assert_eq!(receive_packet::<Report>(&guard), Received::Closed);
        assert!(!send_packet(&guard, Order::Arm { deadline_ns: 1 }));
    }

    #[test]
    fn a_packet_without_meaning_closes_the_link() {
        let (guard, leash) = pair().unwrap();
        send(&guard, &[9; PACKET_SIZE], SendFlags::empty()).unwrap();
        assert_eq!(receive_packet::<Order>(&leash), Received::Closed);
        send(&guard, &[1; 3], SendFlags::empty()).unwrap();
        assert_eq!(receive_packet::<Order>(&leash), Received::Closed);
    }
}
