//! The guard as the sidecar drives it: what follows from what ([`driver`], pure), and the socket ([`link`]).

pub mod driver;
pub mod link;

pub use driver::{Driver, GuardNote, Order};
pub use link::{GuardLink, LinkEvent};
