//! Fluentd's forward protocol: what a client sends, in its three modes, and the acknowledgement that it may ask for. Pure, bounded.
//!
//! ```text
//!  message: [tag, time, record, option?]     forward: [tag, [[time, record], ...], option?]
//!  packed:  [tag, bytes of entries, option?] heartbeat: nil
//! ```

use rmp::encode::{write_map_len, write_str};
use thiserror::Error;

use super::msgpack::{self, MsgpackError, Scanner};

/// The longest message of a client.
pub const MAX_BYTES: usize = 1 << 20;
/// Entries of one message; each is answered.
const MAX_ENTRIES: usize = 1024;
/// Of a chunk's name, which is sent back.
const MAX_CHUNK_BYTES: usize = 256;

/// Why a client's bytes are no message: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ForwardError {
    /// No MessagePack, or of another kind.
    #[error("no message of the forward protocol")]
    Msgpack(#[from] MsgpackError),
    /// Longer than allowed.
    #[error("a message above {MAX_BYTES} bytes")]
    TooLong,
    /// More entries than allowed.
    #[error("a message of more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Compressed entries.
    #[error("entries are compressed: send them as they are")]
    Compressed,
}

impl ForwardError {
    /// Stable, for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Msgpack(_) => "BadMessage",
            Self::TooLong => "TooLong",
            Self::TooMany => "TooMany",
            Self::Compressed => "Compressed",
        }
    }
}

/// A client's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward<'a> {
    /// The records, as bytes of MessagePack.
    pub records: Vec<&'a [u8]>,
    /// The chunk that is to be acknowledged.
    pub chunk: Option<&'a str>,
}

/// Bytes as they arrive, taken out message by message.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    scanner: Scanner,
}

impl Messages {
    /// Whether nothing waits for the rest of its message.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The length of the next whole message, to be [parsed](Self::parse) and [taken out](Self::take_out).
    pub fn next_length(&mut self) -> Result<Option<usize>, ForwardError> {
        let length = match self.bytes.len() {
            0 => None,
            _ => self.scanner.length(&self.bytes)?,
        };
        if length.unwrap_or(self.bytes.len()) > MAX_BYTES {
            return Err(ForwardError::TooLong);
        }
        Ok(length)
    }

    /// The message of the first `length` bytes.
    pub fn parse(&self, length: usize) -> Result<Forward<'_>, ForwardError> {
        parse(&self.bytes[..length])
    }

    /// The first `length` bytes are done with.
    pub fn take_out(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.scanner = Scanner::default();
    }
}

fn parse(value: &[u8]) -> Result<Forward<'_>, ForwardError> {
    if msgpack::is_nil(value) {
        return Ok(Forward::default());
    }
    let parts = msgpack::array(value)?;
    let [tag, second, rest @ ..] = &parts[..] else {
        return Err(MsgpackError::Kind.into());
    };
    msgpack::text(tag)?;
    let (records, option) = if msgpack::is_array(second) {
        let entries = msgpack::array(second)?.into_iter().map(Ok);
        (records(entries)?, rest.first())
    } else if msgpack::is_bytes(second) {
        check_plain(rest.first())?;
        let entries = msgpack::values(msgpack::bytes(second)?);
        (records(entries)?, rest.first())
    } else {
        let record = rest.first().ok_or(MsgpackError::Kind)?;
        (vec![*record], rest.get(1))
    };
    let chunk = option.map_or(Ok(None), |option| chunk(option))?;
    Ok(Forward { records, chunk })
}

fn records<'a>(
    entries: impl Iterator<Item = Result<&'a [u8], MsgpackError>>,
) -> Result<Vec<&'a [u8]>, ForwardError> {
    let mut records = Vec::new();
    for entry in entries {
        if records.len() == MAX_ENTRIES {
            return Err(ForwardError::TooMany);
        }
        match msgpack::array(entry?)?[..] {
            [_time, record] => records.push(record),
            _ => return Err(MsgpackError::Kind.into()),
        }
    }
    Ok(records)
}

fn check_plain(option: Option<&&[u8]>) -> Result<(), ForwardError> {
    let Some(option) = option.filter(|option| !msgpack::is_nil(option)) else {
        return Ok(());
    };
    match msgpack::field(option, "compressed")? {
        Some(kind) if msgpack::text(kind) != Ok("text") => Err(ForwardError::Compressed),
        _ => Ok(()),
    }
}

fn chunk(option: &[u8]) -> Result<Option<&str>, ForwardError> {
    if msgpack::is_nil(option) {
        return Ok(None);
    }
    let chunk = msgpack::field(option, "chunk")?;
    let chunk = chunk.filter(|chunk| !msgpack::is_nil(chunk));
    let chunk = chunk.map(msgpack::text).transpose()?;
    Ok(chunk.filter(|chunk| chunk.len() <= MAX_CHUNK_BYTES))
}

/// The acknowledgement of `chunk`.
pub fn ack(chunk: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunk.len() + 8);
    write_map_len(&mut bytes, 1).expect("a vector takes bytes");
    write_str(&mut bytes, "ack").expect("a vector takes bytes");
    write_str(&mut bytes, chunk).expect("a vector takes bytes");
    bytes
}

/// Any bytes in any pieces: no panic, and the same messages as in one piece.
pub fn fuzz_one(bytes: &[u8]) {
    let piece = 1 + bytes.first().map_or(0, |byte| usize::from(*byte));
    let [whole, in_pieces] = [bytes.len().max(1), piece].map(|piece| lengths(bytes, piece));
    assert_eq!(whole, in_pieces, "pieces change nothing");
}

fn lengths(bytes: &[u8], piece: usize) -> Vec<usize> {
    let mut messages = Messages::default();
    let mut lengths = Vec::new();
    for piece in bytes.chunks(piece) {
        messages.push(piece);
        while let Ok(Some(length)) = messages.next_length() {
            let Ok(forward) = messages.parse(length) else {
                return lengths;
            };
            for record in &forward.records {
                super::message::parse(record);
            }
            lengths.push(length);
            messages.take_out(length);
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORD: &[u8] = b"\x81\xa1a\x01";

    /// The first message and its length.
    fn first(bytes: &[u8]) -> Result<Option<usize>, ForwardError> {
        let mut messages = Messages::default();
        messages.push(bytes);
        let length = messages.next_length()?;
        length.map_or(Ok(None), |length| {
            messages.parse(length).map(|_| Some(length))
        })
    }

    fn framed(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0x90 | parts.len() as u8];
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    #[test]
    fn the_three_modes_give_the_same_records() {
        let entry = framed(&[b"\x01", RECORD]);
        let with_event_time = framed(&[b"\xd7\0\0\0\0\x01\0\0\0\0", RECORD]);
        let mut packed = vec![0xc4, 2 * entry.len() as u8];
        packed.extend([entry.clone(), entry.clone()].concat());
        let option = b"\x81\xa5chunk\xa2id";
        for (bytes, count) in [
            (framed(&[b"\xa1t", b"\x01", RECORD, option]), 1),
            (
                framed(&[b"\xa1t", &framed(&[&entry, &with_event_time]), option]),
                2,
            ),
            (framed(&[b"\xa1t", &packed, option]), 2),
        ] {
            let mut messages = Messages::default();
            for (at, byte) in bytes.iter().enumerate() {
                messages.push(&[*byte]);
                let expected = (at + 1 == bytes.len()).then_some(bytes.len());
                assert_eq!(messages.next_length(), Ok(expected));
            }
            let forward = messages.parse(bytes.len()).unwrap();
            assert_eq!(forward.records, vec![RECORD; count]);
            assert_eq!(forward.chunk, Some("id"));
        }
        assert_eq!(ack("id"), b"\x81\xa3ack\xa2id");
    }

    #[test]
    fn a_heartbeat_has_no_records_and_other_values_are_no_messages() {
        assert_eq!(parse(b"\xc0"), Ok(Forward::default()));
        for bytes in [
            &b"\x01"[..],
            b"\x80",
            b"\x90",
            b"\x91\xa1t",
            b"\x92\x01\x02",
        ] {
            assert!(first(bytes).is_err(), "{bytes:?}");
        }
        let compressed = framed(&[b"\xa1t", b"\xc4\x01\xc0", b"\x81\xaacompressed\xa4gzip"]);
        assert_eq!(first(&compressed), Err(ForwardError::Compressed));
    }

    #[test]
    fn a_bomb_is_refused_at_its_bound() {
        let mut bytes = vec![0xdd, 0xff, 0xff, 0xff, 0xff];
        bytes.resize(MAX_BYTES + 1, 0xc0);
        assert_eq!(first(&bytes), Err(ForwardError::TooLong));
        let many = [
            &[0x92, 0xa1, b't', 0xdc, 0x08, 0x00][..],
            &[0x92, 1, 0x80].repeat(2048),
        ]
        .concat();
        assert_eq!(first(&many), Err(ForwardError::TooMany));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_one(&bytes);
        }
    }
}
