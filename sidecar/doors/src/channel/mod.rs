//! Streams between sidecars: authenticated, encrypted, ordered bytes over TCP, under the cluster's key (I6).
//!
//! ```text
//!  dialler ── Hello ──► listener      Noise_NNpsk0: a hello that was not made with the key costs the listener one hash and
//!          ◄─ Answer ──               one failed decryption, and nothing is answered. A replayed one gets an answer that its
//!          ── first frame: Service ─► sender cannot use: only the first frame proves that the dialler is alive and has the key.
//!          ◄══ frames ══►
//! ```
//!
//! Each stream is a TCP connection of its own and begins with the byte of its [`Service`]. Reading order: [`noise`] (keys and
//! handshake), [`frame`] (bytes), [`stream`] (a frame at a time becomes `AsyncRead + AsyncWrite`), [`dial`], [`listen`],
//! [`message`] (messages over a stream). Not here: who the peers are and where; what is said.

pub mod dial;
pub mod frame;
pub mod listen;
pub mod message;
pub mod noise;
mod socket;
pub mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

pub use dial::Channel;
pub use listen::{Incoming, Listeners, Routes};
pub use noise::ChannelKey;
pub use stream::PeerStream;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Tells the dialler's report, and every change of it.
    Report,
    /// Actions that the listener's node is asked to do, and how far they have come.
    Action,
    /// Messages between clients of Heartbeat.
    Heartbeat,
    /// A client of AMI, forwarded to the active node.
    Ami,
    /// A client of SysAdm that reached the dialler as a bridge.
    SysAdm,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Report,
        Self::Action,
        Self::Heartbeat,
        Self::Ami,
        Self::SysAdm,
    ];

    /// The byte that a stream begins with.
    pub fn byte(self) -> u8 {
        match self {
            Self::Report => 1,
            Self::Action => 2,
            Self::Heartbeat => 3,
            Self::Ami => 4,
            Self::SysAdm => 5,
        }
    }

    /// The service of a byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.byte() == byte)
    }
}

/// Where each seat may be reached, the best first.
pub type PeerAddresses = Vec<Vec<SocketAddr>>;

/// Why there is no stream, or no more of it.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The peer's address is not known.
    #[error("the address of seat {0} is not known yet")]
    NoAddress(usize),
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The connection ended before the streams did.
    #[error("the connection to a peer ended")]
    Transfer(#[from] std::io::Error),
    /// A frame is longer or shorter than any can be.
    #[error("a frame of {0} bytes: none is so long or so short")]
    Length(usize),
    /// Another key, altered on the way, or not for this node.
    #[error("a peer could not be authenticated")]
    NotAuthentic,
    /// The other side did not answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// A message is longer than its kind may be.
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// Nobody here serves this.
    #[error("service {0} is not known here")]
    UnknownService(u8),
}

impl ChannelError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "NoAddress",
            Self::Connect { .. } => "ConnectFailed",
            Self::Transfer(_) => "ConnectionEnded",
            Self::Length(_) => "BadLength",
            Self::NotAuthentic => "NotAuthentic",
            Self::Deadline(_) => "Deadline",
            Self::TooLong(_) => "TooLong",
            Self::UnknownService(_) => "UnknownService",
        }
    }
}

impl From<ChannelError> for std::io::Error {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Transfer(source) => source,
            other => Self::new(std::io::ErrorKind::InvalidData, other),
        }
    }
}
