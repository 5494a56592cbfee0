//! Linux-HA Heartbeat's client interface: what programs linked with `libhbclient`, and `cl_status`, find at its socket.
//!
//! Reading order: [`frame`] and [`message`] (bytes), [`requests`] (questions), [`hub`] (all clients, pure), `messages` (between
//! clients of different nodes), [`server`] (sockets). `docs/heartbeat_api.md` says what is answered and what is different here.

pub mod changes;
mod connection;
pub mod frame;
pub mod hub;
pub mod message;
mod messages;
mod netstring;
pub mod nodes;
pub mod peers;
pub mod permission;
pub mod requests;
pub mod server;
mod signals;
mod signon;
mod silence;
mod string_form;
#[cfg(test)]
mod tests;

pub use peers::{FromPeer, PeerMessages, ToPeers};
pub use permission::{ApiAuth, Rule, Settings};
pub use server::{HeartbeatError, bind, serve};

/// Where `libhbclient` connects to; compiled into it.
pub const SOCKET: &str = "/run/heartbeat/register";

/// One input of a fuzzer: whatever the bytes are, they are refused or read, and what is read is written the same way again.
pub fn fuzz_one(bytes: &[u8]) {
    let mut reader = frame::FrameReader::default();
    reader.push(bytes);
    while let Ok(Some(body)) = reader.next_body() {
        check_message(body);
    }
    check_message(bytes);
}

fn check_message(body: &[u8]) {
    if let Ok(message) = message::Message::parse(body) {
        let again = message::Message::parse(&message.encode());
        assert_eq!(
            again.as_ref(),
            Ok(&message),
            "a message changes when it is written"
        );
    }
}
