//! Authenticated encryption of datagrams (I6): ChaCha20-Poly1305 under a key of the sender's session, derived by HKDF-SHA-256
//! from the cluster's key. A nonce is a counter that never repeats within a session, and a session never returns.
//!
//!     version 1 | seat 1 | occupant 16 | started_us 8 | random 8 | link 4 bits, counter 60 bits | ciphertext | tag 16
//!
//! The first 42 bytes are the additional data. What goes over several links is sealed for each, under one counter: so the link is
//! authentic, no nonce is used twice, and the second copy is told from a replay. A receiver keeps the newest session of each
//! occupant, by `started_us`, and windows of 1024 counters in it, one of all and one for each link; everything older is a replay.
//! Out of scope: hiding who talks to whom.

use std::time::{SystemTime, UNIX_EPOCH};

use pbx_core::{Occupant, Seat};
use pbx_doors::channel::ChannelKey;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use super::MAX_LINKS;
use super::codec::{self, CodecError, Payload};
use super::window::Window;

const VERSION: u8 = 3;
/// Bytes before the ciphertext.
pub const HEADER_BYTES: usize = 42;
const TAG_BYTES: usize = 16;
/// The largest datagram.
pub const MAX_DATAGRAM_BYTES: usize = HEADER_BYTES + codec::MAX_PAYLOAD_BYTES + TAG_BYTES;
/// The link stands above the counter, which no sender exhausts.
const LINK_SHIFT: u32 = 60;
/// Occupants whose sessions are remembered; more than the seats, since pods are replaced.
const KEPT_SESSIONS: usize = 16;

/// Why a datagram is dropped. Counted by reason, never logged one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Too short, too long, or of another version.
    #[error("malformed datagram")]
    Malformed,
    /// It was seen before, or is of an old session.
    #[error("replayed datagram")]
    Replayed,
    /// Another key, or altered on the way.
    #[error("datagram with a wrong key")]
    WrongKey,
    /// Authentic, but its payload is none.
    #[error("authentic datagram with a bad payload: {0}")]
    Payload(#[from] CodecError),
}

impl OpenError {
    /// Stable label of the metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::Replayed => "Replayed",
            Self::WrongKey => "WrongKey",
            Self::Payload(_) => "BadPayload",
        }
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Too short to be one.
    #[error("the heartbeat key has {0} bytes: it needs at least 32 random ones")]
    TooShort(usize),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// The cluster's key.
#[derive(Clone)]
pub struct ClusterKey(Prk);

impl ClusterKey {
    /// Takes the bytes of the Secret or key file.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < 32 {
            return Err(KeyError::TooShort(bytes.len()));
        }
        Ok(Self(
            Salt::new(HKDF_SHA256, b"pbx-ha heartbeat v1").extract(bytes),
        ))
    }

    /// The key of the streams between sidecars: derived apart, so that neither use tells of the other.
    pub fn channel(&self) -> ChannelKey {
        let okm = self.0.expand(&[b"pbx-ha channel v1"], HKDF_SHA256);
        let mut bytes = [0; 32];
        okm.and_then(|okm| okm.fill(&mut bytes))
            .expect("the key's length is within HKDF's bound");
        ChannelKey::new(bytes)
    }

    fn session(&self, header: &Header) -> LessSafeKey {
        let info = [
            &header.occupant.0.to_le_bytes()[..],
            &header.started_us.to_le_bytes(),
            &header.random.to_le_bytes(),
        ];
        let okm = self
            .0
            .expand(&info, &CHACHA20_POLY1305)
            .expect("the key's length is within HKDF's bound");
        LessSafeKey::new(UnboundKey::from(okm))
    }
}

/// Seals what this node sends.
pub struct Sealer {
    key: LessSafeKey,
    header: Header,
    /// The links that the present message was sealed for.
    sealed: u32,
}

impl Sealer {
    /// Begins a session of this node.
    pub fn new(cluster: &ClusterKey, seat: Seat, occupant: Occupant) -> Result<Self, KeyError> {
        let mut random = [0; 8];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| KeyError::NoRandom)?;
        let started_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64);
        let header = Header {
            seat,
            occupant,
            started_us,
            random: u64::from_le_bytes(random),
            link: 0,
            counter: 0,
        };
        Ok(Self {
            key: cluster.session(&header),
            header,
            sealed: 0,
        })
    }

    /// Begins the next message: what is sealed until the following one are its copies.
    pub fn begin(&mut self) {
        self.header.counter += 1;
        self.sealed = 0;
    }

    /// Seals the copy for `link` of the present message, whose payload `write` appends, into `datagram`.
    pub fn seal(&mut self, link: usize, datagram: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        assert!(
            link < MAX_LINKS && self.sealed & 1 << link == 0,
            "a nonce is used once"
        );
        self.sealed |= 1 << link;
        let header = Header {
            link: link as u8,
            ..self.header
        };
        datagram.clear();
        header.encode(datagram);
        write(datagram);
        let (head, body) = datagram.split_at_mut(HEADER_BYTES);
        let tag = self
            .key
            .seal_in_place_separate_tag(header.nonce(), Aad::from(&head), body)
            .expect("a payload is far below the cipher's limit");
        datagram.extend(tag.as_ref());
    }
}

/// Opens what peers send.
pub struct Opener {
    cluster: ClusterKey,
    sessions: Vec<Session>,
}

/// An authentic datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who sent it.
    pub seat: Seat,
    /// Over which link.
    pub link: usize,
    /// It came over another link before: nothing new, but the link works.
    pub is_copy: bool,
    /// What it says.
    pub payload: Payload,
}

struct Session {
    header: Header,
    key: LessSafeKey,
    /// What came over any link.
    window: Window,
    /// What came over each.
    links: [Window; MAX_LINKS],
}

impl Opener {
    /// Knows no session yet.
    pub fn new(cluster: ClusterKey) -> Self {
        Self {
            cluster,
            sessions: Vec::with_capacity(KEPT_SESSIONS),
        }
    }

    /// Opens a datagram in place.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        if datagram.len() > MAX_DATAGRAM_BYTES || datagram.len() < HEADER_BYTES + TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        let header = Header::decode(datagram)?;
        let known = self
            .sessions
            .iter()
            .position(|session| session.header.occupant == header.occupant);
        match known {
            Some(at) if self.sessions[at].header.is_same_session(&header) => {
                self.sessions[at].open(&header, datagram)
            }
            Some(at) if header.started_us <= self.sessions[at].header.started_us => {
                Err(OpenError::Replayed)
            }
            _ => self.open_new(known, &header, datagram),
        }
    }

    /// A session counts only once a datagram of it proved authentic.
    fn open_new(
        &mut self,
        known: Option<usize>,
        header: &Header,
        datagram: &mut [u8],
    ) -> Result<Opened, OpenError> {
        let mut session = Session {
            header: *header,
            key: self.cluster.session(header),
            window: Window::default(),
            links: Default::default(),
        };
        let opened = session.open(header, datagram);
        if matches!(opened, Ok(_) | Err(OpenError::Payload(_))) {
            self.keep(known, session);
        }
        opened
    }

    fn keep(&mut self, known: Option<usize>, session: Session) {
        if let Some(at) = known {
            self.sessions[at] = session;
            return;
        }
        if self.sessions.len() == KEPT_SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push(session);
    }
}

impl Session {
    /// A copy over another link is authentic news of that link alone; the same over the same link is a replay.
    fn open(&mut self, header: &Header, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let link = usize::from(header.link);
        if self.window.is_too_old(header.counter) || self.links[link].has_seen(header.counter) {
            return Err(OpenError::Replayed);
        }
        let payload = decrypt(&self.key, header, datagram)?;
        let is_copy = self.window.has_seen(header.counter);
        self.window.note(header.counter);
        self.links[link].note(header.counter);
        Ok(Opened {
            seat: header.seat,
            link,
            is_copy,
            payload: payload?,
        })
    }
}

/// The outer result is authenticity, the inner one sense.
fn decrypt(
    key: &LessSafeKey,
    header: &Header,
    datagram: &mut [u8],
) -> Result<Result<Payload, CodecError>, OpenError> {
    let (head, body) = datagram.split_at_mut(HEADER_BYTES);
    let plain = key
        .open_in_place(header.nonce(), Aad::from(&head), body)
        .map_err(|_| OpenError::WrongKey)?;
    Ok(codec::decode(header.seat, header.occupant, plain))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    seat: Seat,
    occupant: Occupant,
    started_us: u64,
    random: u64,
    link: u8,
    counter: u64,
}

impl Header {
    /// Unique within the session: a counter, and the link of the copy.
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&self.link_and_counter().to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }

    fn link_and_counter(&self) -> u64 {
        u64::from(self.link) << LINK_SHIFT | self.counter
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, self.seat.0]);
        out.extend(self.occupant.0.to_le_bytes());
        out.extend(self.started_us.to_le_bytes());
        out.extend(self.random.to_le_bytes());
        out.extend(self.link_and_counter().to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let u64_at = |at: usize| {
            bytes[at..]
                .first_chunk()
                .map(|chunk| u64::from_le_bytes(*chunk))
                .ok_or(OpenError::Malformed)
        };
        let occupant = bytes[2..]
            .first_chunk()
            .map(|chunk| u128::from_le_bytes(*chunk))
            .ok_or(OpenError::Malformed)?;
        if bytes[0] != VERSION {
            return Err(OpenError::Malformed);
        }
        let seat = codec::seat(bytes[1]).map_err(|_| OpenError::Malformed)?;
        let link_and_counter = u64_at(34)?;
        let link = (link_and_counter >> LINK_SHIFT) as u8;
        if usize::from(link) >= MAX_LINKS {
            return Err(OpenError::Malformed);
        }
        Ok(Self {
            seat,
            occupant: Occupant(occupant),
            started_us: u64_at(18)?,
            random: u64_at(26)?,
            link,
            counter: link_and_counter & ((1 << LINK_SHIFT) - 1),
        })
    }

    fn is_same_session(&self, other: &Self) -> bool {
        (self.seat, self.started_us, self.random) == (other.seat, other.started_us, other.random)
    }
}

#[cfg(test)]
mod tests;
