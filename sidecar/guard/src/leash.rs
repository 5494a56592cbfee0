//! The leash: the process between guard and Asterisk that the kernel kills at the deadline, and
//! Asterisk with it.
//!
//! Three ties, none of which needs a process to act: the timer kills the leash; the leash's death
//! kills Asterisk (`PR_SET_PDEATHSIG`); the guard's death kills the leash. It is a process of its own
//! because PID 1 is immune to its own timer, and so that any image of Asterisk works.
//! The guard's socket is its standard input. Whatever goes wrong here ends the leash: slack is only
//! what was never armed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use thiserror::Error;

use crate::boot_now_ns;
use crate::child::{Reaped, exit_kind, reap, spawn_tied};
use crate::deadline::{Deadline, Verdict};
use crate::leash_link::{Order, Received, Report, receive_packet, send_packet};
use crate::memory::settle;
use crate::protocol::ExitKind;
use crate::schedule::run_ahead;
use crate::timer::KillTimer;

/// Why a leash ended without Asterisk's own end.
#[derive(Debug, Error)]
pub enum LeashError {
    /// Without it the guard's death would leave Asterisk behind.
    #[error("failed to tie the leash to the guard's life")]
    Tie(#[source] io::Error),
    /// Without it no deadline can be kept.
    #[error("failed to create the kill timer")]
    CreateTimer(#[source] io::Error),
    /// The kernel did not take a deadline.
    #[error("failed to set the kill timer")]
    SetTimer(#[source] io::Error),
    /// Asterisk's end could not be watched.
    #[error("failed to watch Asterisk's process")]
    Watch(#[source] io::Error),
    /// Waiting failed.
    #[error("failed to wait for orders")]
    Poll(#[source] io::Error),
    /// The guard is gone, or the leash was started by somebody else.
    #[error("no guard on standard input: a leash is started by the guard only")]
    GuardGone,
}

impl LeashError {
    /// A stable name for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Tie(_) => "Tie",
            Self::CreateTimer(_) => "CreateTimer",
            Self::SetTimer(_) => "SetTimer",
            Self::Watch(_) => "Watch",
            Self::Poll(_) => "Poll",
            Self::GuardGone => "GuardGone",
        }
    }
}

/// Runs the leash until Asterisk ends (or the kernel ends the leash).
pub fn run(command: &[OsString]) -> Result<(), LeashError> {
    // A name that people find in `ps`; without it the leash runs as well.
    let _ = rustix::thread::set_name(c"pbx-leash");
    run_ahead();
    // If the guard died before this, its end of the socket is closed, which `serve` sees.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| LeashError::Tie(e.into()))?;
    let timer = KillTimer::new().map_err(LeashError::CreateTimer)?;
    let mut leash = Leash {
        link: io::stdin(),
        timer,
        deadline: Deadline::SLACK,
    };
    match leash.launch(command)? {
        Some(asterisk) => leash.serve(asterisk),
        None => Ok(()),
    }
}

struct Leash {
    link: io::Stdin,
    timer: KillTimer,
    deadline: Deadline,
}

impl Leash {
    /// Waits for the order to launch and carries it out; `None`: nothing runs, and it was said why.
    fn launch(&mut self, command: &[OsString]) -> Result<Option<Pid>, LeashError> {
        let deadline_ns = self.wait_for_launch()?;
        if deadline_ns != 0 {
            if self.deadline.judge(deadline_ns, boot_now_ns()) == Verdict::Passed {
                self.report(Report::LaunchTooLate)?;
                return Ok(None);
            }
            self.set_timer(deadline_ns)?;
            self.report(Report::Armed {
                standing_ns: deadline_ns,
            })?;
        }
        match spawn_tied(command) {
            Ok(pid) => {
                self.report(Report::Spawned {
                    pid: pid.as_raw_nonzero().get().cast_unsigned(),
                })?;
                Ok(Some(pid))
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                self.report(Report::SpawnFailed { errno })?;
                Ok(None)
            }
        }
    }

    fn wait_for_launch(&self) -> Result<u64, LeashError> {
        loop {
            match receive_packet(&self.link) {
                Received::Packet(Order::Launch { deadline_ns }) => return Ok(deadline_ns),
                Received::Packet(Order::Arm { .. }) | Received::Closed => {
                    return Err(LeashError::GuardGone);
                }
                Received::Empty => {
                    wait(&mut [PollFd::new(&self.link, PollFlags::IN)])?;
                }
            }
        }
    }

    /// Takes orders until Asterisk has ended, and reports how.
    fn serve(&mut self, asterisk: Pid) -> Result<(), LeashError> {
        let watch: OwnedFd =
            pidfd_open(asterisk, PidfdFlags::empty()).map_err(|e| LeashError::Watch(e.into()))?;
        settle();
        loop {
            let mut ready = [
                PollFd::new(&self.link, PollFlags::IN),
                PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            ];
            wait(&mut ready)?;
            let has_ended = !ready[1].revents().is_empty();
            self.obey()?;
            if has_ended && let Reaped::Dead(_, status) = reap() {
                return self.report(match exit_kind(status) {
                    ExitKind::Code(code) | ExitKind::SpawnError(code) => Report::Exited { code },
                    ExitKind::Signal(signal) => Report::Killed { signal },
                });
            }
        }
    }

    fn obey(&mut self) -> Result<(), LeashError> {
        loop {
            match receive_packet(&self.link) {
                Received::Packet(Order::Arm { deadline_ns }) => self.arm(deadline_ns)?,
                Received::Packet(Order::Launch { .. }) | Received::Closed => {
                    return Err(LeashError::GuardGone);
                }
                Received::Empty => return Ok(()),
            }
        }
    }

    fn arm(&mut self, deadline_ns: u64) -> Result<(), LeashError> {
        match self.deadline.judge(deadline_ns, boot_now_ns()) {
            Verdict::Passed => self.report(Report::ArmRefused { deadline_ns }),
            Verdict::Covered => self.report(Report::Armed {
                standing_ns: self.deadline.as_ns(),
            }),
            Verdict::Later => {
                self.set_timer(deadline_ns)?;
                self.report(Report::Armed {
                    standing_ns: deadline_ns,
                })
            }
        }
    }

    fn set_timer(&mut self, deadline_ns: u64) -> Result<(), LeashError> {
        self.timer.set(deadline_ns).map_err(LeashError::SetTimer)?;
        self.deadline.raise(deadline_ns);
        Ok(())
    }

    fn report(&self, report: Report) -> Result<(), LeashError> {
        if send_packet(&self.link, report) {
            Ok(())
        } else {
            Err(LeashError::GuardGone)
        }
    }
}

fn wait(ready: &mut [PollFd<'_>]) -> Result<(), LeashError> {
    match poll(ready, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(LeashError::Poll(error.into())),
    }
}
