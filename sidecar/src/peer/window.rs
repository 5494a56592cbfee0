//! The replay window: which of the newest counters of a session were seen.

const WINDOW_WORDS: usize = 16;
/// So many are remembered: the newest, and those that it overtook.
pub(super) const WINDOW_COUNTERS: u64 = (WINDOW_WORDS * 64) as u64;

/// Which of the last 1024 counters were seen.
#[derive(Default)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WINDOW_WORDS],
}

impl Window {
    /// Below all that is remembered.
    pub(super) fn is_too_old(&self, counter: u64) -> bool {
        counter + WINDOW_COUNTERS <= self.highest
    }

    /// Seen, or too old to tell.
    pub(super) fn has_seen(&self, counter: u64) -> bool {
        if self.is_too_old(counter) {
            return true;
        }
        counter <= self.highest && self.seen[Self::word(counter)] & Self::bit(counter) != 0
    }

    /// Remembers it.
    pub(super) fn note(&mut self, counter: u64) {
        let steps = counter.saturating_sub(self.highest).min(WINDOW_COUNTERS);
        for step in 0..steps {
            let passed = counter - step;
            self.seen[Self::word(passed)] &= !Self::bit(passed);
        }
        self.highest = self.highest.max(counter);
        self.seen[Self::word(counter)] |= Self::bit(counter);
    }

    fn word(counter: u64) -> usize {
        (counter / 64) as usize % WINDOW_WORDS
    }

    fn bit(counter: u64) -> u64 {
        1 << (counter % 64)
    }
}
