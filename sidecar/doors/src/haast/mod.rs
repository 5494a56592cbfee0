//! HAAst's status socket: `getstatus` as its clients know it, and commands of our own.
//!
//! Reading order: [`request`] (bytes), [`session`] (dialogue), [`status`] and [`codes`] (the answer), [`server`] (sockets).
//! `docs/haast.md` says what the published description leaves open and how it is here.

pub mod codes;
pub mod request;
pub mod server;
pub mod session;
pub mod status;
#[cfg(test)]
mod tests;

pub use server::{Door, HaastError, bind, serve, serve_remote};

/// Where HAAst's clients connect to.
pub const SOCKET: &str = "/var/run/haast.sock";

/// One input of a fuzzer: whatever the bytes are, they are cut into requests or refused, and what is held stays bounded.
pub fn fuzz_one(bytes: &[u8]) {
    let mut reader = request::RequestReader::default();
    for byte in bytes {
        if reader.push(*byte).is_err() {
            return;
        }
    }
}
