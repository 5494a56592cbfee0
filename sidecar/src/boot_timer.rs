//! A moment of the boot-time clock to wait for, as a descriptor of the kernel's.
//!
//! Not tokio's own timers: those wake a thread twice for every wait of more than 64 ms (once to refine it), and are rounded to
//! milliseconds; a core that waits ten times a second pays for it all day. This one also counts a suspended machine's sleep.

use std::io;
use std::os::fd::OwnedFd;

use pbx_core::BootTime;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::input_watch::watch_input;

/// The timer. It needs the runtime that it was made in.
pub struct BootTimer {
    descriptor: AsyncFd<OwnedFd>,
    /// What the kernel waits for; `None` after it has fired.
    set_to: Option<BootTime>,
}

impl BootTimer {
    /// One that waits for nothing.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self {
            descriptor: watch_input(descriptor)?,
            set_to: None,
        })
    }

    /// Resolves at `moment`, or at once when it has passed. Cancel-safe: an unchanged moment is not set again.
    pub async fn until(&mut self, moment: BootTime) {
        if self.set_to != Some(moment) {
            self.set(moment);
        }
        loop {
            let mut ready = self
                .descriptor
                .readable()
                .await
                .expect("the runtime lives as long as its timers");
            let mut expirations = [0; 8];
            // Nothing to read: it was set anew since it became readable.
            let read = ready
                .try_io(|timer| rustix::io::read(timer, &mut expirations).map_err(io::Error::from));
            if let Ok(Ok(_)) = read {
                // It fires once: until it is set again there is nothing to look for.
                ready.clear_ready();
                self.set_to = None;
                return;
            }
        }
    }

    fn set(&mut self, moment: BootTime) {
        let zero = Timespec::default();
        let it_value = Timespec {
            tv_sec: (moment.0 / 1_000_000_000).cast_signed(),
            // All zero would disarm it; a nanosecond after boot has passed as well.
            tv_nsec: (moment.0 % 1_000_000_000).cast_signed().max(1),
        };
        let value = Itimerspec {
            it_interval: zero,
            it_value,
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::ABSTIME, &value)
            .expect("the descriptor is a timer and the moment is in range");
        self.set_to = Some(moment);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn in_ms(milliseconds: u64) -> BootTime {
        BootTime(pbx_guard::boot_now_ns()).after(Duration::from_millis(milliseconds))
    }

    #[tokio::test]
    async fn it_fires_at_its_moment_and_again() {
        let mut timer = BootTimer::new().unwrap();
        let begin = Instant::now();
        timer.until(in_ms(30)).await;
        assert!(begin.elapsed() >= Duration::from_millis(29));
        timer.until(in_ms(30)).await;
        assert!(begin.elapsed() >= Duration::from_millis(59));
        for passed in [BootTime(0), in_ms(0)] {
            tokio::time::timeout(Duration::from_secs(5), timer.until(passed))
                .await
                .expect("what has passed is due");
        }
    }

    #[tokio::test]
    async fn a_later_moment_replaces_an_earlier_one() {
        let mut timer = BootTimer::new().unwrap();
        let early = timer.until(in_ms(20));
        tokio::time::timeout(Duration::from_millis(5), early)
            .await
            .unwrap_err();
        let begin = Instant::now();
        timer.until(in_ms(80)).await;
        assert!(begin.elapsed() >= Duration::from_millis(79));
    }

    #[tokio::test]
    async fn the_far_future_never_comes() {
        let mut timer = BootTimer::new().unwrap();
        let never = timer.until(BootTime::FAR_FUTURE);
        tokio::time::timeout(Duration::from_millis(30), never)
            .await
            .unwrap_err();
    }
}
