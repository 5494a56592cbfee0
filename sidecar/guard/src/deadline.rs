//! Which deadlines are accepted, and when the guard itself must act. Pure: the caller brings the
//! time. Left out: the kernel's timer (`timer.rs`).
//!
//! All moments are absolute `CLOCK_BOOTTIME` nanoseconds.

use std::time::Duration;

/// How long after a confirmed deadline the guard kills by itself. The kernel kills the leash within
/// a fraction of a millisecond; whatever lives this much later was not killed by it.
pub const BACKUP_KILL_DELAY: Duration = Duration::from_millis(50);

/// How long before the end of the grace period the guard stops an Asterisk that nobody stopped: so
/// that its death is still reported before kubelet kills everything.
pub const STOP_BEFORE_GRACE_ENDS: Duration = Duration::from_secs(2);

/// The deadline of one life of Asterisk. It only ever moves to later moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// 0: slack, no deadline was ever given.
    at_ns: u64,
}

/// What becomes of a requested deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is later than what stands: set the timer.
    Later,
    /// What stands already covers it: leave the timer alone.
    Covered,
    /// It has passed, or what stood has passed: refuse.
    Passed,
}

impl Deadline {
    /// No deadline: a standby.
    pub const SLACK: Self = Self { at_ns: 0 };

    /// A deadline; 0 is [`Deadline::SLACK`].
    pub fn at(at_ns: u64) -> Self {
        Self { at_ns }
    }

    /// The moment; 0 while slack.
    pub fn as_ns(self) -> u64 {
        self.at_ns
    }

    /// Whether no deadline was given yet.
    pub fn is_slack(self) -> bool {
        self.at_ns == 0
    }

    /// Judges a requested deadline. Once the standing one has passed, none is accepted: the
    /// authority that it stood for is over, and the kernel is killing.
    pub fn judge(self, requested_ns: u64, now_ns: u64) -> Verdict {
        let is_over = !self.is_slack() && self.at_ns <= now_ns;
        if is_over || requested_ns <= now_ns {
            Verdict::Passed
        } else if requested_ns <= self.at_ns {
            Verdict::Covered
        } else {
            Verdict::Later
        }
    }

    /// Moves to `at_ns` unless that is earlier.
    pub fn raise(&mut self, at_ns: u64) {
        self.at_ns = self.at_ns.max(at_ns);
    }

    /// When the guard kills by itself; `None` while slack.
    pub fn backup_kill_at_ns(self) -> Option<u64> {
        (!self.is_slack()).then(|| self.at_ns.saturating_add(nanoseconds(BACKUP_KILL_DELAY)))
    }
}

/// The guard was told to terminate: from when, and until when it has time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// When the signal came.
    pub at_ns: u64,
    /// When kubelet kills everything.
    pub grace_ends_ns: u64,
}

impl Termination {
    /// A termination that begins now and has `grace` time.
    pub fn begin(now_ns: u64, grace: Duration) -> Self {
        Self {
            at_ns: now_ns,
            grace_ends_ns: now_ns.saturating_add(nanoseconds(grace)),
        }
    }

    /// When the guard stops Asterisk by itself.
    pub fn stop_at_ns(self) -> u64 {
        self.grace_ends_ns
            .saturating_sub(nanoseconds(STOP_BEFORE_GRACE_ENDS))
            .max(self.at_ns)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slack_leash_takes_any_deadline_to_come() {
        assert_eq!(Deadline::SLACK.judge(11, 10), Verdict::Later);
    }

    #[test]
    fn a_passed_deadline_is_refused() {
        assert_eq!(Deadline::SLACK.judge(10, 10), Verdict::Passed);
        assert_eq!(Deadline::SLACK.judge(0, 10), Verdict::Passed);
        assert_eq!(Deadline::at(50).judge(9, 10), Verdict::Passed);
    }

    #[test]
    fn a_deadline_never_moves_backwards() {
        let mut deadline = Deadline::at(100);
        assert_eq!(deadline.judge(99, 10), Verdict::Covered);
        assert_eq!(deadline.judge(100, 10), Verdict::Covered);
        assert_eq!(deadline.judge(101, 10), Verdict::Later);
        deadline.raise(99);
        assert_eq!(deadline, Deadline::at(100));
        deadline.raise(101);
        assert_eq!(deadline, Deadline::at(101));
    }

    #[test]
    fn once_over_no_deadline_is_accepted() {
        assert_eq!(Deadline::at(100).judge(1_000, 99), Verdict::Later);
        assert_eq!(Deadline::at(100).judge(1_000, 100), Verdict::Passed);
    }

    #[test]
    fn the_backup_kill_is_due_50_ms_after_the_deadline() {
        assert_eq!(Deadline::SLACK.backup_kill_at_ns(), None);
        assert_eq!(Deadline::at(1).backup_kill_at_ns(), Some(50_000_001));
        assert_eq!(Deadline::at(u64::MAX).backup_kill_at_ns(), Some(u64::MAX));
    }

    #[test]
    fn the_guard_stops_2_s_before_the_grace_ends() {
        let termination = Termination::begin(5_000_000_000, Duration::from_secs(30));
        assert_eq!(termination.grace_ends_ns, 35_000_000_000);
        assert_eq!(termination.stop_at_ns(), 33_000_000_000);
    }

    #[test]
    fn a_grace_shorter_than_2_s_stops_at_once() {
        let termination = Termination::begin(5_000_000_000, Duration::from_secs(1));
        assert_eq!(termination.stop_at_ns(), 5_000_000_000);
    }
}
