//! Seeded randomness and clocks that run at different rates.

use pbx_core::BootTime;

/// Xorshift: the same seed, the same world.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..5 {
            random.number();
        }
        random
    }

    /// The next number, below 2^56.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    /// `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low).max(1)
    }

    /// True so often.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.between(0, of.len() as u64) as usize]
    }
}

/// One machine's clock: its own zero, its own rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds that it showed when the world began.
    pub offset: u64,
    /// How much it gains in a million.
    pub rate_ppm: i64,
}

impl Clock {
    /// What it shows at a moment of the world.
    pub fn local(&self, at: u64) -> BootTime {
        let gained = i128::from(at) * i128::from(self.rate_ppm) / 1_000_000;
        BootTime((i128::from(self.offset) + i128::from(at) + gained) as u64)
    }

    /// The first moment of the world when it shows at least this.
    pub fn world(&self, local: BootTime) -> u64 {
        if local == BootTime::FAR_FUTURE {
            return u64::MAX;
        }
        let since = i128::from(local.0) - i128::from(self.offset);
        let at = since * 1_000_000 / (1_000_000 + i128::from(self.rate_ppm)) + 1;
        u64::try_from(at).unwrap_or(0)
    }
}
