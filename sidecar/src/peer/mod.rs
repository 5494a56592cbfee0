//! Heartbeats between nodes. Reading order: [`plan`] (which links there are), [`network`] (their sockets), [`seal`] (keys and
//! replay windows), [`codec`] (bytes), [`meter`] (how a link is), [`book`] (where the peers are).

pub mod book;
pub mod codec;
pub mod meter;
pub mod network;
pub mod plan;
pub mod seal;
mod window;

pub use book::PeerBook;
pub use codec::Payload;
pub use network::{LinkViews, Network};
pub use plan::LinkPlan;
pub use seal::{Opener, Sealer};

/// The most links between two nodes.
pub const MAX_LINKS: usize = 4;
