//! The sockets: what this node says leaves over every link, what comes in is opened, measured, and told from copies.
//!
//! One socket for each link, bound to this node's address of it. A link that is cut is a full or refused send and silence, never an
//! error of the node. Not here: what messages mean.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pbx_core::{BootTime, MAX_NODES, Message, Seat};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::meter::{Meter, Probe, slowest};
use super::seal::{KeyError, MAX_DATAGRAM_BYTES, Opened};
use super::{LinkPlan, MAX_LINKS, Opener, Payload, PeerBook, Sealer, codec};
use crate::config::Checked;
use crate::input_watch::watch_input;
use crate::metrics::Metrics;

/// Why heartbeats cannot be exchanged.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A link's address is taken, or is none.
    #[error(
        "cannot receive heartbeats on {address}: correct the address, or end what uses its port"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No session can begin.
    #[error("cannot seal heartbeats")]
    Seal(#[from] KeyError),
}

/// A link to a peer as the doors see it; it changes seldom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkView {
    /// It is heard.
    pub is_up: bool,
    /// Too slow for the timing rules, for a while.
    pub is_slow: bool,
}

/// All links by seat and number.
pub type LinkViews = [[LinkView; MAX_LINKS]; MAX_NODES];

/// Addresses of all seats by seat and link, where known.
pub type Addresses = [[Option<SocketAddr>; MAX_LINKS]; MAX_NODES];

/// A datagram in the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    length: usize,
    link: usize,
    from: SocketAddr,
}

/// All links of this node.
pub struct Network {
    links: Vec<Link>,
    sealer: Sealer,
    opener: Opener,
    meters: [[Meter; MAX_LINKS]; MAX_NODES],
    metrics: Metrics,
    own_seat: Seat,
    silence: Duration,
    limit: Duration,
    /// Which socket is looked at first: none starves another.
    first: usize,
    datagram: Vec<u8>,
}

struct Link {
    socket: AsyncFd<UdpSocket>,
    book: PeerBook,
}

impl Network {
    /// Binds all links.
    pub fn bind(checked: &Checked, metrics: Metrics) -> Result<Self, NetworkError> {
        let settings = &checked.settings;
        let links = checked.links.iter().map(|plan| {
            let mut book = PeerBook::default();
            for (seat, address) in plan.peers.iter().enumerate() {
                if let Some(address) = address {
                    book.note(Seat(seat as u8), *address);
                }
            }
            let socket = bind(plan)?;
            Ok(Link { socket, book })
        });
        Ok(Self {
            links: links.collect::<Result<_, NetworkError>>()?,
            sealer: Sealer::new(&checked.key, settings.seat, settings.occupant)?,
            opener: Opener::new(checked.key.clone()),
            meters: [[Meter::default(); MAX_LINKS]; MAX_NODES],
            metrics,
            own_seat: settings.seat,
            silence: settings.timing.silence(),
            limit: slowest(&settings.timing),
            first: 0,
            datagram: Vec::with_capacity(MAX_DATAGRAM_BYTES),
        })
    }

    /// The next datagram of any link, in `buffer`; an error is that of an earlier send, and the peer's silence says the rest.
    /// Cancel-safe.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Arrival> {
        self.first = (self.first + 1) % self.links.len();
        let (links, first) = (&self.links, self.first);
        std::future::poll_fn(|context| {
            for offset in 0..links.len() {
                let link = (first + offset) % links.len();
                if let Poll::Ready(received) = poll_receive(&links[link].socket, context, buffer) {
                    let arrived = |(length, from)| Arrival { length, link, from };
                    return Poll::Ready(received.map(arrived));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What arrived, if it is authentic, of a peer and new; copies and forgeries are counted.
    pub fn open(
        &mut self,
        now: BootTime,
        arrival: Arrival,
        buffer: &mut [u8],
    ) -> Option<(Seat, Payload)> {
        let opened = match self.opener.open(&mut buffer[..arrival.length]) {
            Ok(opened) => opened,
            Err(error) => {
                Metrics::count(&self.metrics.dropped, error.reason());
                return None;
            }
        };
        if opened.seat == self.own_seat {
            return None;
        }
        self.note_link(now, arrival, &opened);
        if opened.is_copy {
            self.metrics.copies.inc();
            return None;
        }
        self.metrics.received.inc();
        Some((opened.seat, opened.payload))
    }

    /// Sends a message of the core over every link.
    pub fn send(&mut self, now: BootTime, message: &Message) {
        let digest = self.metrics.ledger_digest.load(Ordering::Relaxed);
        self.send_to(message.to, |meter, out| {
            codec::encode_core(message, digest, meter.probe(now), out);
        });
    }

    /// Sends a part of the ledger over every link.
    pub fn send_ledger(&mut self, seat: Seat, part: &[u8]) {
        self.send_to(seat, |_, out| codec::encode_ledger(part, out));
    }

    /// A peer's address, read from its pod: pods have one link.
    pub fn note(&mut self, seat: Seat, address: SocketAddr) {
        self.links[0].book.note(seat, address);
    }

    /// Where the peers are.
    pub fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::default();
        for (number, link) in self.links.iter().enumerate() {
            for (seat, known) in addresses.iter_mut().enumerate() {
                known[number] = link.book.address(Seat(seat as u8));
            }
        }
        addresses
    }

    /// How the links are.
    pub fn views(&self, now: BootTime) -> LinkViews {
        let mut views = LinkViews::default();
        for (seat, (views, meters)) in views.iter_mut().zip(&self.meters).enumerate() {
            for (link, (view, meter)) in views.iter_mut().zip(meters).enumerate() {
                let Some(gauges) = self.metrics.link(Seat(seat as u8), link) else {
                    continue;
                };
                view.is_up = meter.is_up(now, self.silence);
                // A silent link is no slow one.
                view.is_slow = view.is_up && meter.is_slow();
                gauges.up.set(view.is_up.into());
            }
        }
        views
    }

    fn send_to(&mut self, seat: Seat, write: impl Fn(&Meter, &mut Vec<u8>)) {
        self.sealer.begin();
        for (number, link) in self.links.iter().enumerate() {
            let Some(address) = link.book.address(seat) else {
                continue;
            };
            let meter = &self.meters[usize::from(seat.0)][number];
            self.sealer
                .seal(number, &mut self.datagram, |out| write(meter, out));
            let outcome = link.socket.get_ref().send_to(&self.datagram, address);
            // A full socket buffer loses a datagram, as the network may.
            if outcome.is_ok() {
                self.metrics.sent.inc();
            } else {
                Metrics::count(&self.metrics.dropped, "NotSent");
            }
        }
    }

    fn note_link(&mut self, now: BootTime, arrival: Arrival, opened: &Opened) {
        let Some(link) = self.links.get_mut(opened.link) else {
            return;
        };
        // A packet that took another way in (a file with other names) still counts, but measures nothing.
        if opened.link != arrival.link {
            return;
        }
        link.book.note(opened.seat, arrival.from);
        let meter = &mut self.meters[usize::from(opened.seat.0)][opened.link];
        meter.on_datagram(now);
        let Payload::Core { message, probe, .. } = &opened.payload else {
            return;
        };
        let was_slow = meter.is_slow();
        meter.on_probe(now, message.sent_at, *probe, self.limit);
        let meter = *meter;
        self.tell(opened.seat, opened.link, was_slow, &meter, *probe);
    }

    fn tell(&self, seat: Seat, link: usize, was_slow: bool, meter: &Meter, probe: Probe) {
        let Some(gauges) = self.metrics.link(seat, link) else {
            return;
        };
        let Some(round_trip) = meter.round_trip().filter(|_| probe.echo.0 > 0) else {
            return;
        };
        gauges.round_trip.set(round_trip.time.as_secs_f64());
        gauges.jitter.set(round_trip.jitter.as_secs_f64());
        if meter.is_slow() && !was_slow {
            tracing::warn!(
                link = gauges.name,
                round_trip = ?round_trip.time,
                jitter = ?round_trip.jitter,
                limit = ?self.limit,
                "a link is too slow for warntime and deadtime: raise them, or mend the path"
            );
        } else if was_slow && !meter.is_slow() {
            tracing::info!(link = gauges.name, round_trip = ?round_trip.time, "a link is fast enough again");
        }
    }
}

fn poll_receive(
    socket: &AsyncFd<UdpSocket>,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<(usize, SocketAddr)>> {
    loop {
        let mut ready = ready!(socket.poll_read_ready(context))?;
        if let Ok(received) = ready.try_io(|socket| socket.get_ref().recv_from(buffer)) {
            return Poll::Ready(received);
        }
    }
}

/// A named link's address need not be there yet: an interface that comes up later, or comes back, is used by itself.
fn bind(plan: &LinkPlan) -> Result<AsyncFd<UdpSocket>, NetworkError> {
    let failed = |source| NetworkError::Bind {
        address: plan.listen,
        source,
    };
    match open(plan.listen, false) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable && plan.name.is_some() => {
            tracing::warn!(
                link = plan.name,
                address = %plan.listen,
                "this node does not have its address of this link: correct it, or bring its interface up"
            );
            open(plan.listen, true).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

fn open(address: SocketAddr, may_be_absent: bool) -> io::Result<AsyncFd<UdpSocket>> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(may_be_absent)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(may_be_absent)?,
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    watch_input(socket.into())
}
