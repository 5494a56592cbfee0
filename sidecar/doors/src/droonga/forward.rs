//! Fluentd's forward protocol: what a client sends, in its three modes, and the acknowledgement that it may ask for. Pure, bounded.
//!
//! ```text
//!  message: [tag, time, record, option?]     forward: [tag, [[time, record], ...], option?]
//!  packed:  [tag, bytes of entries, option?] heartbeat: nil
//! ```

use rmp::encode::{write_map_len, write_str};
use thiserror::Error;

use super::msgpack::{self, MsgpackError};

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

/// The first message of `bytes` and how many of them it takes; `None`: more are needed.
pub fn split(bytes: &[u8]) -> Result<Option<(Forward<'_>, usize)>, ForwardError> {
    match msgpack::split_value(bytes) {
        Ok((value, _)) if value.len() > MAX_BYTES => Err(ForwardError::TooLong),
        Ok((value, _)) => Ok(Some((parse(value)?, value.len()))),
        Err(MsgpackError::Incomplete) if bytes.len() < MAX_BYTES => Ok(None),
        Err(MsgpackError::Incomplete) => Err(ForwardError::TooLong),
        Err(error) => Err(error.into()),
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

/// Any bytes: no panic, and what is split off lies within them.
pub fn fuzz_one(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((forward, length))) = split(rest) {
        assert!(0 < length && length <= rest.len(), "a message has bytes");
        for record in &forward.records {
            super::message::parse(record);
        }
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORD: &[u8] = b"\x81\xa1a\x01";

    fn framed(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0x90 | parts.len() as u8];
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
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
            let (forward, length) = split(&bytes).unwrap().unwrap();
            assert_eq!(length, bytes.len());
            assert_eq!(forward.records, vec![RECORD; count]);
            assert_eq!(forward.chunk, Some("id"));
            for cut in 0..bytes.len() {
                assert_eq!(split(&bytes[..cut]), Ok(None));
            }
        }
        assert_eq!(ack("id"), b"\x81\xa3ack\xa2id");
    }

    #[test]
    fn a_heartbeat_has_no_records_and_other_values_are_no_messages() {
        assert_eq!(split(b"\xc0"), Ok(Some((Forward::default(), 1))));
        for bytes in [
            &b"\x01"[..],
            b"\x80",
            b"\x90",
            b"\x91\xa1t",
            b"\x92\x01\x02",
        ] {
            assert!(split(bytes).is_err(), "{bytes:?}");
        }
        let compressed = framed(&[b"\xa1t", b"\xc4\x01\xc0", b"\x81\xaacompressed\xa4gzip"]);
        assert_eq!(split(&compressed), Err(ForwardError::Compressed));
    }

    #[test]
    fn a_bomb_is_refused_at_its_bound() {
        let mut bytes = vec![0xdd, 0xff, 0xff, 0xff, 0xff];
        bytes.resize(MAX_BYTES, 0xc0);
        assert_eq!(split(&bytes), Err(ForwardError::TooLong));
        let many = [
            &[0x92, 0xa1, b't', 0xdc, 0x08, 0x00][..],
            &[0x92, 1, 0x80].repeat(2048),
        ]
        .concat();
        assert_eq!(split(&many), Err(ForwardError::TooMany));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_one(&bytes);
        }
    }
}
