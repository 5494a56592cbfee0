//! The ring in memory: two segments of fixed size, each of which can be replayed by itself, since a checkpoint opens it.
//!
//! When the newer one is full, the older one is forgotten. So between half and all of the room holds the last minutes, nothing
//! is allocated after the start, and no entry is ever moved.

use pbx_core::Node;

use super::entry::{self, Entry, LENGTH_BYTES, MAX_ENTRY_BYTES};

/// The ring.
pub struct Ring {
    older: Segment,
    newer: Segment,
}

struct Segment {
    bytes: Box<[u8]>,
    used: usize,
}

impl Ring {
    /// Empty, with room for `capacity` bytes in both segments together.
    pub fn new(capacity: usize) -> Self {
        let segment = || Segment {
            bytes: vec![0; capacity / 2].into_boxed_slice(),
            used: 0,
        };
        Self {
            older: segment(),
            newer: segment(),
        }
    }

    /// Appends an entry that leaves the node as `after`; `after` opens the next segment when this one is full.
    pub fn push(&mut self, entry: &Entry<&Node>, after: &Node) {
        let is_kept = self.newer.push(entry);
        // Before an entry could find no room: a checkpoint must be of the very moment between two entries.
        if !is_kept || self.newer.free() < LENGTH_BYTES + MAX_ENTRY_BYTES {
            std::mem::swap(&mut self.older, &mut self.newer);
            self.newer.used = 0;
            self.newer.push(&Entry::Checkpoint(after));
        }
    }

    /// All entries, oldest first.
    pub fn copy(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.older.used + self.newer.used);
        bytes.extend_from_slice(&self.older.bytes[..self.older.used]);
        bytes.extend_from_slice(&self.newer.bytes[..self.newer.used]);
        bytes
    }
}

impl Segment {
    fn push(&mut self, entry: &Entry<&Node>) -> bool {
        let pushed = entry::encode(entry, &mut self.bytes[self.used..]);
        self.used += pushed.unwrap_or(0);
        pushed.is_some()
    }

    fn free(&self) -> usize {
        self.bytes.len() - self.used
    }
}
