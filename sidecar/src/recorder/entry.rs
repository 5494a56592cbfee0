//! What the flight recorder keeps, and its bytes: [postcard](https://postcard.jamesmunns.com/wire-format) with a length in front.

use pbx_core::{BootTime, CallId, Effect, Epoch, Input, Node, Seat, Settings, Start};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

/// Room for the largest entry, a checkpoint of five nodes: 1.2 KB at most (test `a_checkpoint_fits`).
pub const MAX_ENTRY_BYTES: usize = 4096;
/// Bytes of an entry's length.
pub const LENGTH_BYTES: usize = 2;

#[allow(
    clippy::large_enum_variant,
    reason = "encoded at once: the core does not allocate"
)]
/// One entry. `N` is the node that a checkpoint holds: borrowed to write, owned when read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry<N = Box<Node>> {
    /// The core began.
    Start {
        /// What it was given.
        settings: Settings,
        /// What it found.
        start: Start,
        /// Of its first effects.
        digest: u32,
    },
    /// The core as it was: what went before it is not needed.
    Checkpoint(N),
    /// One step of the core.
    Step {
        /// When.
        at: BootTime,
        /// Which input.
        input: Input,
        /// Of its effects.
        digest: u32,
    },
    /// Something that the core does not see.
    Mark {
        /// When.
        at: BootTime,
        /// What.
        mark: Mark,
    },
}

/// What happens outside the core in a failover: the terms of its latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// Asterisk's end as the guard saw it first; the core's step follows.
    EndSeen,
    /// Asterisk was reaped: nothing of it is left.
    AsteriskGone,
    /// The packet that gives the role away has left the socket.
    HandoverSent {
        /// To whom.
        to: Seat,
    },
    /// A call about the Lease left.
    LeaseAsked(CallId),
    /// Its answer came; the core's step follows.
    LeaseAnswered(CallId),
    /// The write that points the traffic here left.
    TrafficAsked(Epoch),
    /// It was answered: the traffic points here.
    TrafficWritten(Epoch),
    /// Asterisk was executed.
    AsteriskStarted,
    /// Asterisk is fully booted.
    AsteriskBooted,
}

/// Appends `entry` to `free`, its length first; `None`: there is no room. Nothing is allocated.
pub fn encode(entry: &Entry<&Node>, free: &mut [u8]) -> Option<usize> {
    let (length, body) = free.split_first_chunk_mut::<LENGTH_BYTES>()?;
    let used = postcard::to_slice(entry, body).ok()?.len();
    *length = u16::try_from(used).ok()?.to_le_bytes();
    Some(LENGTH_BYTES + used)
}

/// A small digest of what a step decided: FNV-1a of its effects' bytes. It finds a replay that goes another way; it proves nothing.
pub fn digest_of(effects: &[Effect]) -> u32 {
    postcard::serialize_with_flavor(effects, Fnv::default()).expect("effects can be serialised")
}

/// The same of any state: two nodes with equal digests of the layout write the same checkpoints.
pub fn digest_of_node(node: &Node) -> u32 {
    postcard::serialize_with_flavor(node, Fnv::default()).expect("a node can be serialised")
}

struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Flavor for Fnv {
    type Output = u32;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<u32> {
        Ok(self.0)
    }
}
