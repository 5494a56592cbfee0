//! Signals as something to poll: a signalfd, and the mask that belongs to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// `sizeof(struct signalfd_siginfo)`; its first field is the signal's number (signalfd(2)).
const RECORD_SIZE: usize = 128;

/// `SIGTERM`, `SIGINT` and `SIGCHLD`, blocked and readable.
///
/// PID 1 does not get a signal that it neither handles nor blocks; a blocked one always arrives.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
}

/// What arrived since the last look. `SIGCHLD` is not told: whoever looks reaps anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// The last of `SIGTERM` and `SIGINT`.
    pub(crate) terminate: Option<Signal>,
}

impl Signals {
    /// Blocks the three signals in this thread and opens the descriptor.
    #[allow(unsafe_code, reason = "rustix has neither sigprocmask nor signalfd")]
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: the set is written by sigemptyset before it is read, and lives through the calls;
        // signalfd returns a new descriptor, which nothing else owns.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
            })
        }
    }

    /// Takes what arrived; never waits.
    pub(crate) fn take(&self) -> Arrived {
        let mut arrived = Arrived::default();
        let mut records = [0_u8; 8 * RECORD_SIZE];
        while let Ok(size) = rustix::io::read(&self.fd, &mut records) {
            for record in records[..size].chunks_exact(RECORD_SIZE) {
                match i32::from_ne_bytes([record[0], record[1], record[2], record[3]]) {
                    libc::SIGTERM => arrived.terminate = Some(Signal::TERM),
                    libc::SIGINT => arrived.terminate = Some(Signal::INT),
                    _ => {}
                }
            }
        }
        arrived
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives every signal its default disposition and empties the mask: what a freshly executed program
/// may expect, and what a guard that blocks signals (or was started by nohup) would not pass on.
///
/// Only system calls, so it may run between fork and exec.
#[allow(unsafe_code, reason = "rustix has neither sigaction nor sigprocmask")]
pub(crate) fn restore_defaults() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is no handler, so nothing of ours can be called. SIGKILL, SIGSTOP and the
        // signals that libc keeps for itself are refused, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is written by sigemptyset before it is read, and lives through the call.
    let result = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
