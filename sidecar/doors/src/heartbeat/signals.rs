//! Signals to clients that asked for one with each message. By pidfd: a number that was given to another process meanwhile
//! is never hit.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};

/// A process that can be signalled.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The process of that number; `None`: it is in another pid namespace (the kernel then tells 0 or nothing), gone, or of a
    /// user whom this process may not signal.
    pub fn open(pid: Option<i32>) -> Option<Self> {
        let pid = Pid::from_raw(pid?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        test_kill_process(pid).ok()?;
        Some(Self(process))
    }

    /// Sends a signal below 32. A process that is gone will be seen to be by the end of its connection.
    pub fn signal(&self, number: u32) {
        let signal = i32::try_from(number).ok().and_then(Signal::from_named_raw);
        if let Some(signal) = signal
            && let Err(error) = pidfd_send_signal(&self.0, signal)
        {
            tracing::debug!(%error, number, "heartbeat client not signalled");
        }
    }
}
