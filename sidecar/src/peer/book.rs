//! Where the peers are: addresses from the configuration, from the pods, and from authentic datagrams. The last are the
//! freshest: a pod that was made anew greets its peers before they look for it.

use std::net::SocketAddr;

use pbx_core::{MAX_NODES, Seat};

/// The address of each seat.
#[derive(Clone, Debug, Default)]
pub struct PeerBook {
    addresses: [Option<SocketAddr>; MAX_NODES],
}

impl PeerBook {
    /// Notes where `seat` is.
    pub fn note(&mut self, seat: Seat, address: SocketAddr) {
        self.addresses[usize::from(seat.0)] = Some(address);
    }

    /// Where `seat` is, if known.
    pub fn address(&self, seat: Seat) -> Option<SocketAddr> {
        self.addresses[usize::from(seat.0)]
    }
}
