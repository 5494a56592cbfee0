//! Frames of Heartbeat's client socket: a length, a magic number, and as many bytes. Leaves out what the bytes mean.

use std::sync::Arc;

use thiserror::Error;

/// Begins each frame after its length.
pub const MAGIC: u32 = 0x0000_abcd;
/// Bytes before a body.
pub const HEADER_BYTES: usize = 8;
/// The longest body taken or sent. Heartbeat itself goes up to 256 KiB: this is what one queue holds (see `server`).
pub const MAX_BODY_BYTES: usize = 64 * 1024 - HEADER_BYTES;
/// A buffer that is kept between frames; a larger one is given back.
const KEPT_BYTES: usize = 4096;

/// Bytes that are no frame. The stream cannot be understood from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Something other than [`MAGIC`] stands in its place.
    #[error("no Heartbeat client: {0:#010x} instead of 0x0000abcd")]
    Magic(u32),
    /// The length is negative, zero or too great.
    #[error("a frame of {0} bytes: 1 to {MAX_BODY_BYTES} are taken")]
    Length(i32),
}

impl FrameError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Magic(_) => "BadMagic",
            Self::Length(_) => "BadLength",
        }
    }
}

/// The frame around `body`, ready to be shared by several receivers. `None`: the body is longer than a frame may be.
pub fn frame(body: &[u8]) -> Option<Arc<[u8]>> {
    if body.len() > MAX_BODY_BYTES {
        return None;
    }
    let length = i32::try_from(body.len()).ok()?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&MAGIC.to_ne_bytes());
    bytes.extend_from_slice(body);
    Some(bytes.into())
}

/// Cuts a stream into bodies. Holds at most one frame and what was pushed last.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given out.
    read: usize,
}

impl FrameReader {
    /// Adds what was read from the stream. Take all frames out before the next push: that bounds the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next body, once it is complete.
    pub fn next_body(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let Some((magic, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_ne_bytes(*length);
        let magic = u32::from_ne_bytes(*magic);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let Ok(body_bytes @ 1..=MAX_BODY_BYTES) = usize::try_from(length) else {
            return Err(FrameError::Length(length));
        };
        if rest.len() < body_bytes {
            return Ok(None);
        }
        let start = self.read + HEADER_BYTES;
        self.read = start + body_bytes;
        Ok(Some(&self.buffer[start..self.read]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies_of(stream: &[u8], piece_bytes: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut reader = FrameReader::default();
        let mut bodies = Vec::new();
        for piece in stream.chunks(piece_bytes) {
            reader.push(piece);
            while let Some(body) = reader.next_body()? {
                bodies.push(body.to_vec());
            }
        }
        Ok(bodies)
    }

    #[test]
    fn the_header_is_as_libhbclient_writes_it() {
        let frame = frame(b">>>\n<<<\n\0").unwrap();
        assert_eq!(frame[..4], 9_i32.to_ne_bytes());
        assert_eq!(frame[4..8], 0xabcd_u32.to_ne_bytes());
        assert_eq!(&frame[8..], b">>>\n<<<\n\0");
    }

    #[test]
    fn lengths_and_magic_are_checked_before_anything_is_waited_for() {
        let too_long = i32::try_from(MAX_BODY_BYTES + 1).unwrap();
        for length in [-1, 0, i32::MIN, i32::MAX, too_long] {
            let header = [length.to_ne_bytes(), MAGIC.to_ne_bytes()].concat();
            assert_eq!(bodies_of(&header, 8), Err(FrameError::Length(length)));
        }
        let header = [9_i32.to_ne_bytes(), 0x1234_u32.to_ne_bytes()].concat();
        assert_eq!(bodies_of(&header, 8), Err(FrameError::Magic(0x1234)));
    }

    #[test]
    fn what_is_too_long_is_not_framed() {
        assert!(frame(&vec![0; MAX_BODY_BYTES]).is_some());
        assert!(frame(&vec![0; MAX_BODY_BYTES + 1]).is_none());
    }

    #[test]
    fn a_large_buffer_is_given_back() {
        let mut reader = FrameReader::default();
        reader.push(&frame(&vec![7; MAX_BODY_BYTES]).unwrap());
        assert_eq!(reader.next_body().unwrap().unwrap().len(), MAX_BODY_BYTES);
        reader.push(&[]);
        assert!(reader.buffer.capacity() <= KEPT_BYTES);
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_they_are_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
            piece_bytes in 1_usize..700,
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body).unwrap().to_vec()).collect();
            prop_assert_eq!(bodies_of(&stream, piece_bytes).unwrap(), bodies);
        }
    }
}
