//! Where values of MessagePack begin and end, without making them: a frame of a stranger costs its own bytes and nothing more.

use rmp::Marker;
use thiserror::Error;

/// Containers within containers.
const MAX_DEPTH: usize = 32;

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MsgpackError {
    /// More bytes are needed.
    #[error("the value is not whole")]
    Incomplete,
    /// Too many containers within each other.
    #[error("the value is nested too deeply")]
    TooDeep,
    /// A byte that begins no value.
    #[error("a reserved byte")]
    Reserved,
    /// The value is of another kind.
    #[error("a value of another kind was expected")]
    Kind,
}

/// Finds the end of a value whose bytes arrive in pieces: each byte is looked at once, however small the pieces are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Bytes before it are of heads that were read.
    at: usize,
    /// How many values are still to come, of each container that is open.
    open: [u64; MAX_DEPTH],
    depth: usize,
}

impl Scanner {
    /// The length of the value that `bytes` begin with; `None`: more are needed, behind the same.
    pub fn length(&mut self, bytes: &[u8]) -> Result<Option<usize>, MsgpackError> {
        loop {
            match self.advance(bytes) {
                Ok(true) => return Ok(Some(self.at)),
                Ok(false) => {}
                Err(MsgpackError::Incomplete) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads one head; whether the value has ended with it.
    fn advance(&mut self, bytes: &[u8]) -> Result<bool, MsgpackError> {
        let (head, after) = Head::read(&bytes[self.at..])?;
        let rest = after.get(head.skip..).ok_or(MsgpackError::Incomplete)?;
        self.at = bytes.len() - rest.len();
        if head.values > 0 {
            let open = self.open.get_mut(self.depth);
            *open.ok_or(MsgpackError::TooDeep)? = head.values;
            self.depth += 1;
            return Ok(false);
        }
        while self.depth > 0 {
            let open = &mut self.open[self.depth - 1];
            *open -= 1;
            if *open > 0 {
                return Ok(false);
            }
            self.depth -= 1;
        }
        Ok(true)
    }
}

/// The bytes of the first value of `bytes`, and the rest.
pub fn split_value(bytes: &[u8]) -> Result<(&[u8], &[u8]), MsgpackError> {
    let length = Scanner::default().length(bytes)?;
    let length = length.ok_or(MsgpackError::Incomplete)?;
    Ok(bytes.split_at(length))
}

/// The values of an array, one after the other.
pub fn array(value: &[u8]) -> Result<Vec<&[u8]>, MsgpackError> {
    let (head, rest) = Head::read(value)?;
    if head.kind != Kind::Array {
        return Err(MsgpackError::Kind);
    }
    values(rest).collect()
}

/// The values that stand in `bytes` one after the other, without a head: the entries of a packed forward.
pub fn values(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], MsgpackError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split_value(rest) {
            Ok((value, after)) => {
                rest = after;
                Some(Ok(value))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

/// The value of `key` in a map; `None`: it is not there.
pub fn field<'a>(map: &'a [u8], key: &str) -> Result<Option<&'a [u8]>, MsgpackError> {
    let (head, mut rest) = Head::read(map)?;
    if head.kind != Kind::Map {
        return Err(MsgpackError::Kind);
    }
    while !rest.is_empty() {
        let (name, after) = split_value(rest)?;
        let (value, after) = split_value(after)?;
        if text(name) == Ok(key) {
            return Ok(Some(value));
        }
        rest = after;
    }
    Ok(None)
}

/// A text; one that was sent as bytes is one too.
pub fn text(value: &[u8]) -> Result<&str, MsgpackError> {
    std::str::from_utf8(bytes(value)?).map_err(|_| MsgpackError::Kind)
}

/// The bytes of a text or of bytes.
pub fn bytes(value: &[u8]) -> Result<&[u8], MsgpackError> {
    let (head, rest) = Head::read(value)?;
    if head.kind != Kind::Bytes {
        return Err(MsgpackError::Kind);
    }
    rest.get(..head.skip).ok_or(MsgpackError::Incomplete)
}

/// Whether the value is an array.
pub fn is_array(value: &[u8]) -> bool {
    matches!(Head::read(value), Ok((head, _)) if head.kind == Kind::Array)
}

/// Whether the value is a text or bytes.
pub fn is_bytes(value: &[u8]) -> bool {
    matches!(Head::read(value), Ok((head, _)) if head.kind == Kind::Bytes)
}

/// Whether the value is nil.
pub fn is_nil(value: &[u8]) -> bool {
    value == [0xc0]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
    Bytes,
    Other,
}

/// The beginning of a value: bytes that belong to it, or values that follow.
struct Head {
    kind: Kind,
    skip: usize,
    values: u64,
}

impl Head {
    /// The head, and what is behind it.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), MsgpackError> {
        let (first, rest) = bytes.split_first().ok_or(MsgpackError::Incomplete)?;
        let other = |skip| Ok((Self::new(Kind::Other, skip, 0), rest));
        match Marker::from_u8(*first) {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                other(0)
            }
            Marker::U8 | Marker::I8 => other(1),
            Marker::U16 | Marker::I16 | Marker::FixExt1 => other(2),
            Marker::FixExt2 => other(3),
            Marker::U32 | Marker::I32 | Marker::F32 => other(4),
            Marker::FixExt4 => other(5),
            Marker::U64 | Marker::I64 | Marker::F64 => other(8),
            Marker::FixExt8 => other(9),
            Marker::FixExt16 => other(17),
            Marker::FixStr(length) => Ok((Self::new(Kind::Bytes, length.into(), 0), rest)),
            Marker::Str8 | Marker::Bin8 => Self::sized::<1>(Kind::Bytes, rest),
            Marker::Str16 | Marker::Bin16 => Self::sized::<2>(Kind::Bytes, rest),
            Marker::Str32 | Marker::Bin32 => Self::sized::<4>(Kind::Bytes, rest),
            Marker::Ext8 => Self::sized::<1>(Kind::Other, rest).map(Self::with_type),
            Marker::Ext16 => Self::sized::<2>(Kind::Other, rest).map(Self::with_type),
            Marker::Ext32 => Self::sized::<4>(Kind::Other, rest).map(Self::with_type),
            Marker::FixArray(length) => Ok((Self::new(Kind::Array, 0, length.into()), rest)),
            Marker::Array16 => Self::sized::<2>(Kind::Array, rest),
            Marker::Array32 => Self::sized::<4>(Kind::Array, rest),
            Marker::FixMap(length) => Ok((Self::new(Kind::Map, 0, 2 * u64::from(length)), rest)),
            Marker::Map16 => Self::sized::<2>(Kind::Map, rest),
            Marker::Map32 => Self::sized::<4>(Kind::Map, rest),
            Marker::Reserved => Err(MsgpackError::Reserved),
        }
    }

    fn new(kind: Kind, skip: usize, values: u64) -> Self {
        Self { kind, skip, values }
    }

    /// With a length of `N` bytes.
    fn sized<const N: usize>(kind: Kind, rest: &[u8]) -> Result<(Self, &[u8]), MsgpackError> {
        let (length, rest) = rest
            .split_first_chunk::<N>()
            .ok_or(MsgpackError::Incomplete)?;
        let length = length
            .iter()
            .fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let head = match kind {
            Kind::Array => Self::new(kind, 0, length),
            Kind::Map => Self::new(kind, 0, 2 * length),
            Kind::Bytes | Kind::Other => Self::new(kind, length as usize, 0),
        };
        Ok((head, rest))
    }

    /// An extension has a byte of type before its data.
    fn with_type((head, rest): (Self, &[u8])) -> (Self, &[u8]) {
        (Self::new(head.kind, head.skip + 1, 0), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_it_ends() {
        for value in [
            &b"\xc0"[..],
            b"\xcf\0\0\0\0\0\0\0\x01",
            b"\xa3abc",
            b"\x93\x01\xa1a\x91\xc0",
            b"\x82\xa1a\x01\xa1b\x90",
            b"\xd7\0\0\0\0\0\0\0\0\0",
            b"\xc7\x03\x01abc",
            b"\xdc\0\x01\x80",
        ] {
            let mut bytes = value.to_vec();
            bytes.push(7);
            assert_eq!(split_value(&bytes), Ok((value, &[7][..])));
            for cut in 0..value.len() {
                assert_eq!(split_value(&value[..cut]), Err(MsgpackError::Incomplete));
            }
        }
        assert_eq!(split_value(&[0xc1]), Err(MsgpackError::Reserved));
        assert_eq!(split_value(&[0x91; 100]), Err(MsgpackError::TooDeep));
    }

    #[test]
    fn a_promise_of_four_billion_values_costs_nothing() {
        assert_eq!(
            split_value(b"\xdd\xff\xff\xff\xff\xc0"),
            Err(MsgpackError::Incomplete)
        );
        assert_eq!(
            split_value(b"\xdb\xff\xff\xff\xff"),
            Err(MsgpackError::Incomplete)
        );
    }

    #[test]
    fn fields_are_found_by_name() {
        let map = b"\x82\xc4\x01a\x01\xa1b\xa1x";
        assert_eq!(field(map, "a"), Ok(Some(&[1][..])));
        assert_eq!(text(field(map, "b").unwrap().unwrap()), Ok("x"));
        assert_eq!(field(map, "c"), Ok(None));
        assert_eq!(field(b"\x90", "a"), Err(MsgpackError::Kind));
    }
}
