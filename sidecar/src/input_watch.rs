//! Descriptors that the core's thread watches for input alone.
//!
//! A socket that tokio made is watched for output too: every datagram sent and every order that the guard reads would wake the
//! core for nothing, and a core that wakes ten times a second pays for it all day.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `owner`, which must not block, in the present runtime.
#[allow(
    deprecated,
    reason = "unsound only for an owner that gives its descriptor away or closes it early; `AsFd` vouches for the contrary"
)]
pub fn watch_input<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, Interest::READABLE)
}
