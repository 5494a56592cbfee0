//! The border to the channel between nodes: bodies out, bodies in. Leaves out how they travel; the channel proves who sent them.

use tokio::sync::mpsc;

/// Bodies that wait for the channel, and for the hub. What finds a full queue is lost and counted.
pub const QUEUED: usize = 256;

/// A body for hubs of other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToPeers {
    /// One node's; `None`: all others'.
    pub to: Option<String>,
    /// What.
    pub body: Vec<u8>,
}

/// A body from another node's hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromPeer {
    /// Name of the node, as proved.
    pub from: String,
    /// What.
    pub body: Vec<u8>,
}

/// The hub's end.
#[derive(Debug)]
pub struct PeerMessages {
    /// Towards the others.
    pub outgoing: mpsc::Sender<ToPeers>,
    /// From the others, in the order in which each of them sent.
    pub incoming: mpsc::Receiver<FromPeer>,
}

/// The channel's end.
#[derive(Debug)]
pub struct PeerChannel {
    /// What the hub sends.
    pub outgoing: mpsc::Receiver<ToPeers>,
    /// What others sent.
    pub incoming: mpsc::Sender<FromPeer>,
}

/// Both ends.
pub fn border() -> (PeerMessages, PeerChannel) {
    let (to_channel, outgoing) = mpsc::channel(QUEUED);
    let (incoming, from_channel) = mpsc::channel(QUEUED);
    let hub = PeerMessages {
        outgoing: to_channel,
        incoming: from_channel,
    };
    (hub, PeerChannel { outgoing, incoming })
}
