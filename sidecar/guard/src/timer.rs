//! The timer that the kernel holds: it kills this process at an absolute moment, however stopped or
//! frozen the process is. Left out: which moments are accepted (`deadline.rs`).

use std::io;

/// A POSIX timer on `CLOCK_BOOTTIME` that sends `SIGKILL` to this process.
///
/// It has no `Drop`: it ends with the process, and nothing may disarm it. PID 1 ignores a `SIGKILL`
/// of its own timer, so this must not be PID 1.
#[derive(Debug)]
pub(crate) struct KillTimer {
    id: libc::timer_t,
}

impl KillTimer {
    /// Makes the timer, not armed.
    #[allow(unsafe_code, reason = "rustix has no timer_create")]
    pub(crate) fn new() -> io::Result<Self> {
        let mut id = std::ptr::null_mut();
        // SAFETY: all-zero is a valid sigevent; both pointers are live and of the right types. The
        // kernel checks the clock and the signal.
        let result = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = libc::SIGKILL;
            libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, &raw mut id)
        };
        if result == 0 {
            Ok(Self { id })
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Sets the moment, in `CLOCK_BOOTTIME` nanoseconds; one that has passed kills at once.
    #[allow(unsafe_code, reason = "rustix has no timer_settime")]
    pub(crate) fn set(&self, deadline_ns: u64) -> io::Result<()> {
        let at = libc::timespec {
            tv_sec: (deadline_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (deadline_ns % 1_000_000_000).cast_signed(),
        };
        let once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = libc::itimerspec {
            it_interval: once,
            it_value: at,
        };
        // SAFETY: `id` came from timer_create and is never deleted; the setting is live, and the
        // old one is not asked for.
        let result = unsafe {
            libc::timer_settime(
                self.id,
                libc::TIMER_ABSTIME,
                &raw const setting,
                std::ptr::null_mut(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
