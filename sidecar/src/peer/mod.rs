//! Heartbeats between nodes: their bytes ([`codec`]), their keys and replay windows ([`seal`]), and where the peers are ([`book`]).

pub mod book;
pub mod codec;
pub mod seal;

pub use book::PeerBook;
pub use codec::Payload;
pub use seal::{Opener, Sealer};
