//! Frames: two bytes of length, most significant first, then so many bytes of ciphertext with its tag. Pure.

use super::ChannelError;

/// Bytes that the cipher adds.
pub const TAG_BYTES: usize = 16;
/// The most bytes of text in a frame: a stream's buffers are of this order.
pub const MAX_TEXT_BYTES: usize = 16 << 10;
/// The most bytes of a frame behind its length.
pub const MAX_FRAME_BYTES: usize = MAX_TEXT_BYTES + TAG_BYTES;
const LENGTH_BYTES: usize = 2;

/// Bytes as they arrive, taken out frame by frame. Holds one frame at most.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Bytes before it were taken out.
    start: usize,
}

impl FrameBuffer {
    /// How many more bytes may arrive before a frame must be taken out; at least one as long as none is whole.
    pub fn room(&self) -> usize {
        LENGTH_BYTES + MAX_FRAME_BYTES - (self.bytes.len() - self.start)
    }

    /// Bytes have arrived, at most [`room`](Self::room).
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a frame is taken out first");
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, once.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, ChannelError> {
        let rest = &self.bytes[self.start..];
        let Some((length, _)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if !(TAG_BYTES..=MAX_FRAME_BYTES).contains(&length) {
            return Err(ChannelError::Length(length));
        }
        let end = self.start + LENGTH_BYTES + length;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let begin = self.start + LENGTH_BYTES;
        self.start = end;
        Ok(Some(&self.bytes[begin..end]))
    }
}

/// Appends a frame whose bytes `write` makes within the room that it is given, and tells the number of.
pub fn append(out: &mut Vec<u8>, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
    assert!(room <= MAX_FRAME_BYTES, "a frame's text is cut before");
    let begin = out.len();
    out.resize(begin + LENGTH_BYTES + room, 0);
    let length = write(&mut out[begin + LENGTH_BYTES..]);
    out.truncate(begin + LENGTH_BYTES + length);
    let length = u16::try_from(length).expect("a frame is shorter than 64 KiB");
    out[begin..begin + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Any bytes in any pieces: no panic, no growth beyond one frame.
pub fn fuzz_one(bytes: &[u8]) {
    let mut buffer = FrameBuffer::default();
    let piece = 1 + bytes.first().map_or(0, |byte| usize::from(*byte));
    for piece in bytes.chunks(piece) {
        buffer.push(&piece[..piece.len().min(buffer.room())]);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => assert!(frame.len() <= MAX_FRAME_BYTES),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.room() > 0, "a buffer without a whole frame has room");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_whatever_the_pieces(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), TAG_BYTES..600), 1..8),
            piece in 1_usize..700,
        ) {
            let mut wire = Vec::new();
            for frame in &frames {
                append(&mut wire, frame.len(), |room| { room.copy_from_slice(frame); frame.len() });
            }
            let mut buffer = FrameBuffer::default();
            let mut found = Vec::new();
            for piece in wire.chunks(piece) {
                buffer.push(piece);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            fuzz_one(&bytes);
        }
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_stream() {
        for length in [0_u16, 15, MAX_FRAME_BYTES as u16 + 1, u16::MAX] {
            let mut buffer = FrameBuffer::default();
            buffer.push(&length.to_be_bytes());
            assert!(matches!(
                buffer.next_frame(),
                Err(ChannelError::Length(found)) if found == usize::from(length)
            ));
        }
    }
}
