//! The guard as the sidecar reaches it: the socket ([`link`]), and its first word. What follows from what is `pbx_guard::driver`, pure.

mod first;
pub mod link;

pub use first::first_state;
pub use link::{GuardLink, LinkEvent};
pub use pbx_guard::driver::{Driver, GuardNote, Order, found};
