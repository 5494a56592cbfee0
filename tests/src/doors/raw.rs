//! What clients write, byte for byte: a websocket's beginning and frames, Heartbeat's signon. Leaves out connections. These clients
//! are load and stopwatches; whether unmodified ones work is said by the tests.

use std::net::SocketAddrV4;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bare_hosts::TOKEN;

/// Ends a message of Heartbeat in its string form.
pub const END_OF_MESSAGE: &[u8] = b"<<<\n\0";
/// Above each of its frames.
const HEARTBEAT_MAGIC: u32 = 0xabcd;
/// Of a websocket: a whole text, and the bit of a client's mask.
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const LENGTH_IN_16_BITS: u8 = 126;

/// Asks for a websocket at `/sysadm`, with the token.
pub fn websocket_head(address: SocketAddrV4) -> Vec<u8> {
    let key = STANDARD.encode([7; 16]);
    format!(
        "GET /sysadm HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )
    .into_bytes()
}

/// A request for all of SysAdm's events, as a frame; its `id` comes back with the answer.
pub fn subscription(id: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"namespace":"events","name":"subscribe","id":"{id}","args":["dispatcher","life-preserver","system-state"]}}"#
    );
    frame_of_text(text.as_bytes())
}

/// A text of a client, masked with zeros.
pub fn frame_of_text(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a request is short");
    let mut frame = vec![TEXT, MASKED | LENGTH_IN_16_BITS];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

/// A request for the server-sent events.
pub fn events_head(address: SocketAddrV4) -> Vec<u8> {
    format!("GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}

/// The signon of a casual client of this process.
pub fn signon() -> Vec<u8> {
    let pid = std::process::id();
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    request(
        "signon",
        &format!("pid={pid}\nfrom_id={pid}\nuid={uid}\ngid={gid}\n"),
    )
}

/// A request of Heartbeat's, with more fields as lines.
pub fn request(request_type: &str, fields: &str) -> Vec<u8> {
    let body = format!(">>>\nt=hbapi-req\nreqtype={request_type}\n{fields}<<<\n\0");
    heartbeat_frame(body.as_bytes())
}

/// A frame of Heartbeat's.
pub fn heartbeat_frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a request is short");
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.extend_from_slice(&length.to_ne_bytes());
    frame.extend_from_slice(&HEARTBEAT_MAGIC.to_ne_bytes());
    frame.extend_from_slice(body);
    frame
}
