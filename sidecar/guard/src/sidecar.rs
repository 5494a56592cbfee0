//! `pbx-guard sidecar`: PID 1 of the sidecar's container. It restarts the sidecar at once when it
//! dies, because kubelet's own restart takes longer than any authority lasts.
//!
//! Left out: any judgement of the sidecar's health; a sidecar that hangs is kubelet's to find.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use thiserror::Error;

use crate::backoff::Backoff;
use crate::child::{Reaped, exit_kind, reap, spawn_tied};
use crate::log::{Level, log};
use crate::memory::settle;
use crate::protocol::ExitKind;
use crate::signals::Signals;
use crate::{boot_now_ns, timespec_until};

/// The exit code that says: bad configuration, and no restart makes it better.
pub const EXIT_BAD_CONFIGURATION: u8 = 2;

/// Why the sidecar cannot be kept running.
#[derive(Debug, Error)]
pub enum SidecarError {
    /// Signals could not be set up.
    #[error("failed to block signals")]
    BlockSignals(#[source] io::Error),
    /// It could not become the parent of orphans.
    #[error("failed to become the reaper of orphans")]
    BecomeReaper(#[source] io::Error),
    /// Waiting failed.
    #[error("failed to wait for signals")]
    Poll(#[source] io::Error),
}

impl SidecarError {
    /// A stable name for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BlockSignals(_) => "BlockSignals",
            Self::BecomeReaper(_) => "BecomeReaper",
            Self::Poll(_) => "Poll",
        }
    }
}

/// Keeps `command` running; returns the code to exit with, once it ended after a `SIGTERM` or
/// `SIGINT`, or cannot run at all.
pub fn run(command: &[OsString]) -> Result<ExitCode, SidecarError> {
    let signals = Signals::block().map_err(SidecarError::BlockSignals)?;
    set_child_subreaper(Some(getpid())).map_err(|e| SidecarError::BecomeReaper(e.into()))?;
    let mut keeper = Keeper {
        command,
        state: State::Waiting { start_at_ns: 0 },
        backoff: Backoff::default(),
        is_terminating: false,
    };
    settle();
    loop {
        if let Some(code) = keeper.turn(&signals) {
            return Ok(ExitCode::from(code));
        }
        keeper.wait(&signals)?;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running(Pid),
    Waiting { start_at_ns: u64 },
}

struct Keeper<'a> {
    command: &'a [OsString],
    state: State,
    backoff: Backoff,
    is_terminating: bool,
}

impl Keeper<'_> {
    /// Does what there is to do; a code: exit with it.
    fn turn(&mut self, signals: &Signals) -> Option<u8> {
        if let Some(signal) = signals.take().terminate {
            self.forward(signal);
        }
        let ended = self.reap_all();
        if let Some(code) = ended.and_then(|kind| self.on_ended(kind)) {
            return Some(code);
        }
        match self.state {
            State::Waiting { .. } if self.is_terminating => Some(0),
            State::Waiting { start_at_ns } if start_at_ns <= boot_now_ns() => self.start(),
            State::Waiting { .. } | State::Running(_) => None,
        }
    }

    fn forward(&mut self, signal: Signal) {
        self.is_terminating = true;
        if let State::Running(pid) = self.state {
            // Not reaped yet, so the pid is still its; a dead one needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Reaps the sidecar and every orphan; returns how the sidecar ended, if it did.
    fn reap_all(&mut self) -> Option<ExitKind> {
        let mut ended = None;
        while let Reaped::Dead(pid, status) = reap() {
            if self.state == State::Running(pid) {
                ended = Some(exit_kind(status));
            }
        }
        ended
    }

    fn on_ended(&mut self, kind: ExitKind) -> Option<u8> {
        if self.is_terminating {
            return Some(exit_code(kind));
        }
        if kind == ExitKind::Code(i32::from(EXIT_BAD_CONFIGURATION)) {
            log(
                Level::Error,
                "the sidecar refuses its configuration, see its log above",
                &[],
            );
            return Some(EXIT_BAD_CONFIGURATION);
        }
        let status = format!("{kind:?}");
        self.restart_later("the sidecar ended, restarting it", &status);
        None
    }

    fn start(&mut self) -> Option<u8> {
        match spawn_tied(self.command) {
            Ok(pid) => {
                self.state = State::Running(pid);
                None
            }
            Err(error) if is_bad_command(&error) => {
                log(
                    Level::Error,
                    "the sidecar cannot be executed",
                    &[("error", &error)],
                );
                Some(EXIT_BAD_CONFIGURATION)
            }
            Err(error) => {
                self.restart_later("failed to start the sidecar", &error.to_string());
                None
            }
        }
    }

    fn restart_later(&mut self, message: &str, status: &str) {
        let now_ns = boot_now_ns();
        let delay = self.backoff.on_death(now_ns);
        let delay_ms = delay.as_millis() as u64;
        self.state = State::Waiting {
            start_at_ns: now_ns + delay_ms * 1_000_000,
        };
        log(
            Level::Warn,
            message,
            &[("status", &status), ("delay_ms", &delay_ms)],
        );
    }

    fn wait(&self, signals: &Signals) -> Result<(), SidecarError> {
        let timeout = match self.state {
            State::Waiting { start_at_ns } => Some(timespec_until(start_at_ns)),
            State::Running(_) => None,
        };
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(SidecarError::Poll(error.into())),
        }
    }
}

/// Whether the command itself is wrong, rather than the system short of something.
fn is_bad_command(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
        || error.raw_os_error() == Some(libc::ENOEXEC)
}

/// The code by which a shell would report this end.
fn exit_code(kind: ExitKind) -> u8 {
    match kind {
        ExitKind::Code(code) | ExitKind::SpawnError(code) => low_byte(code),
        ExitKind::Signal(signal) => 128_u8.wrapping_add(low_byte(signal)),
    }
}

/// All that an exit status carries.
fn low_byte(value: i32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_reported_as_a_shell_would() {
        assert_eq!(exit_code(ExitKind::Code(3)), 3);
        assert_eq!(exit_code(ExitKind::Signal(15)), 143);
    }

    #[test]
    fn only_a_wrong_command_is_not_tried_again() {
        let error = io::Error::from_raw_os_error;
        assert!(is_bad_command(&error(libc::ENOENT)));
        assert!(is_bad_command(&error(libc::EACCES)));
        assert!(is_bad_command(&error(libc::ENOEXEC)));
        assert!(!is_bad_command(&error(libc::EAGAIN)));
        assert!(!is_bad_command(&error(libc::ENOMEM)));
    }
}
