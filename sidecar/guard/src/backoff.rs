//! How long to wait before the sidecar is started again. Pure: the caller brings the time.
//!
//! The first restarts come at once, because kubelet's own would take longer than any authority
//! lasts; a sidecar that keeps dying may cost at most one start a second.

use std::collections::VecDeque;
use std::time::Duration;

/// Deaths longer ago than this are forgotten.
const WINDOW_NS: u64 = 10_000_000_000;
/// The wait after the n-th death within the window; the last one stands for all that follow.
const DELAYS_MS: [u64; 10] = [0, 10, 20, 40, 40, 80, 160, 320, 640, 1000];

/// The deaths of the last 10 s.
#[derive(Debug, Default)]
pub struct Backoff {
    deaths_ns: VecDeque<u64>,
}

impl Backoff {
    /// Notes a death at `now_ns` and returns how long to wait before the next start.
    pub fn on_death(&mut self, now_ns: u64) -> Duration {
        self.deaths_ns
            .retain(|&at_ns| now_ns.saturating_sub(at_ns) < WINDOW_NS);
        let delay_ms = DELAYS_MS[self.deaths_ns.len().min(DELAYS_MS.len() - 1)];
        self.deaths_ns.push_back(now_ns);
        if self.deaths_ns.len() > DELAYS_MS.len() {
            self.deaths_ns.pop_front();
        }
        Duration::from_millis(delay_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn the_first_restart_is_immediate() {
        assert_eq!(Backoff::default().on_death(7), Duration::ZERO);
    }

    #[test]
    fn the_first_five_restarts_in_10_s_come_within_50_ms() {
        let mut backoff = Backoff::default();
        for death in 0..5 {
            assert!(backoff.on_death(death) < Duration::from_millis(50));
        }
        assert_eq!(backoff.on_death(5), Duration::from_millis(80));
    }

    #[test]
    fn a_crash_loop_settles_at_one_start_a_second() {
        let mut backoff = Backoff::default();
        let mut now_ns = 0;
        for _ in 0..200 {
            now_ns += backoff.on_death(now_ns).as_nanos() as u64;
        }
        assert_eq!(backoff.on_death(now_ns), Duration::from_secs(1));
        assert!(backoff.deaths_ns.len() <= DELAYS_MS.len());
    }

    #[test]
    fn ten_quiet_seconds_forget_the_deaths() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.on_death(SECOND_NS);
        }
        assert_eq!(backoff.on_death(11 * SECOND_NS), Duration::ZERO);
    }
}
