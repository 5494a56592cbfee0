//! The guard as the sidecar drives it: what follows from what ([`driver`], pure), and the socket ([`link`]).

pub mod driver;
mod first;
pub mod link;

pub use driver::{Driver, GuardNote, Order};
pub use first::{first_state, found};
pub use link::{GuardLink, LinkEvent};
