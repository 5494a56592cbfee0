//! What waits to be written to one client: bounded, and given back when it is empty.

/// The most that waits in the hub for one client; beyond it the client is dropped. With what the kernel holds for its socket and its
/// own input, a client costs less than 1 MiB.
pub const OUTPUT_LIMIT_BYTES: usize = 384 << 10;
/// An empty buffer larger than this is given back.
const IDLE_CAPACITY_BYTES: usize = 16 << 10;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// Where to append.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is to be written.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Whether more waits than a client may leave unread.
    pub(super) fn is_over(&self) -> bool {
        self.bytes.len() - self.sent > OUTPUT_LIMIT_BYTES
    }

    /// `count` bytes were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
            if self.bytes.capacity() > IDLE_CAPACITY_BYTES {
                self.bytes = Vec::new();
            }
        } else if self.sent > OUTPUT_LIMIT_BYTES / 4 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
