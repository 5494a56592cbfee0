//! Moments on the machine's boot-time clock: the one that sidecars stamp their log with, so that what a test saw and what a
//! sidecar did can be compared to the microsecond. All network namespaces of the machine share it.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine booted, time asleep included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).expect("time since boot is positive");
        let nanoseconds = u64::try_from(time.tv_nsec).expect("a part of a second is positive");
        Self(seconds * 1_000_000_000 + nanoseconds)
    }

    /// Milliseconds from `earlier` to this moment; negative when this one was first.
    pub fn ms_since(self, earlier: Self) -> f64 {
        let magnitude = self.0.abs_diff(earlier.0);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a test lasts less than 2^52 nanoseconds"
        )]
        let ms = magnitude as f64 / 1e6;
        if self < earlier { -ms } else { ms }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", Self::ms_since(*self, Self(0)) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_has_a_sign() {
        let (early, late) = (Moment(1_000_000), Moment(3_500_000));
        assert!((late.ms_since(early) - 2.5).abs() < f64::EPSILON);
        assert!((early.ms_since(late) + 2.5).abs() < f64::EPSILON);
        assert!(Moment::now() > Moment(0));
    }
}
