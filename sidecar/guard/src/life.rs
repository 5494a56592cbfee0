//! One life of Asterisk as the guard sees it: its leash, what is known of it, and its end.
//!
//! A life is over when the leash and Asterisk are reaped and no child of the guard is left: an
//! Asterisk that put itself into the background, or a program that it left behind, is killed too.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process};
use thiserror::Error;

use crate::child::{exit_kind, kill_children, yield_to_others};
use crate::deadline::Deadline;
use crate::doom::DoomWatch;
use crate::leash_link::{self, Order, Received, Report, receive_packet, send_packet};
use crate::log::{Level, log};
use crate::protocol::{ExitKind, RunId};

/// Why no leash could be started.
#[derive(Debug, Error)]
pub(crate) enum BeginError {
    #[error("failed to make the leash's socket")]
    Link(#[source] io::Error),
    #[error("failed to execute the leash; is /proc mounted?")]
    Execute(#[source] io::Error),
    #[error("failed to order the launch from the leash")]
    Launch,
}

impl BeginError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Link(_) => "Link",
            Self::Execute(_) => "Execute",
            Self::Launch => "Launch",
        }
    }
}

/// How a life ended, once it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It never began: its deadline had passed.
    TooLate,
    /// It ended like this.
    Exited(ExitKind),
}

/// The deadlines passed on to a leash, which answers each, in their order: so many of either, and up to which one somebody waits.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    ordered: u64,
    given: u64,
    awaited: u64,
}

impl Answers {
    fn is_awaited(self) -> bool {
        self.given < self.awaited
    }
}

/// Whether the guard has killed this life, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KillOrder {
    None,
    /// Its deadline passed, or its leash could not be talked to.
    ByGuard,
    /// It was to end.
    Asked,
}

#[derive(Debug)]
pub(crate) struct Life {
    run: RunId,
    leash: Pid,
    /// `None` once the leash closed it.
    link: Option<OwnedFd>,
    asterisk: Option<Pid>,
    /// `None` before Asterisk is executed, and once it was seen to end.
    doom: Option<DoomWatch>,
    armed: Deadline,
    answers: Answers,
    /// The latest that the sidecar was told.
    told: Deadline,
    is_leash_reaped: bool,
    is_asterisk_reaped: bool,
    kill_order: KillOrder,
    end: Option<End>,
}

impl Life {
    /// Starts a leash and orders the launch. `deadline_ns` 0 leaves it slack.
    pub(crate) fn begin(
        run: RunId,
        command: &[OsString],
        deadline_ns: u64,
    ) -> Result<Self, BeginError> {
        let (link, leash_end) = leash_link::pair().map_err(|e| BeginError::Link(e.into()))?;
        let leash = Command::new("/proc/self/exe")
            .arg0("pbx-guard")
            .args(["leash", "--"])
            .args(command)
            .stdin(Stdio::from(leash_end))
            .spawn()
            .map_err(BeginError::Execute)?;
        let leash = Pid::from_child(&leash);
        if !send_packet(&link, Order::Launch { deadline_ns }) {
            // The closed link ends it as well; the loop reaps it.
            let _ = kill_process(leash, Signal::KILL);
            return Err(BeginError::Launch);
        }
        Ok(Self {
            run,
            leash,
            link: Some(link),
            asterisk: None,
            doom: None,
            armed: Deadline::SLACK,
            // The leash answers the deadline of its launch as any other.
            answers: Answers {
                ordered: u64::from(deadline_ns != 0),
                ..Answers::default()
            },
            told: Deadline::SLACK,
            is_leash_reaped: false,
            is_asterisk_reaped: false,
            kill_order: KillOrder::None,
            end: None,
        })
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Asterisk's pid; 0 while it is not executed yet.
    pub(crate) fn pid(&self) -> u32 {
        self.asterisk
            .map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// The deadline that the leash confirmed.
    pub(crate) fn armed(&self) -> Deadline {
        self.armed
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.kill_order == KillOrder::Asked
    }

    /// What to poll for the leash's reports, and what of it is worth waking for: a confirmation that nobody waits for is read with the next
    /// order, a closed link at once.
    pub(crate) fn link(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let interest = if self.asterisk.is_none() || self.answers.is_awaited() {
            PollFlags::IN
        } else {
            PollFlags::RDHUP
        };
        self.link.as_ref().map(|link| (link.as_fd(), interest))
    }

    /// What to poll for the end of a thread of Asterisk.
    pub(crate) fn threads(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.doom.iter().flat_map(DoomWatch::threads)
    }

    /// Watches Asterisk's threads from now on: worth it for one that serves.
    pub(crate) fn watch_threads(&mut self) {
        if let Some(doom) = &mut self.doom {
            doom.attach();
        }
    }

    /// A thread of Asterisk has ended: whether all of it has. Tells it once.
    pub(crate) fn on_thread_ended(&mut self) -> bool {
        let is_doomed = self.doom.as_mut().is_some_and(DoomWatch::on_thread_ended);
        if is_doomed {
            self.doom = None;
        }
        is_doomed
    }

    /// Passes a deadline on, whose answer may be waited for; false: the leash does not take it.
    pub(crate) fn arm(&mut self, deadline_ns: u64, is_answer_awaited: bool) -> bool {
        let order = Order::Arm { deadline_ns };
        let is_taken = !self.is_killed()
            && self
                .link
                .as_ref()
                .is_some_and(|link| send_packet(link, order));
        self.answers.ordered += u64::from(is_taken);
        if is_taken && is_answer_awaited {
            self.answers.awaited = self.answers.ordered;
        }
        is_taken
    }

    /// Whether the answer that was heard last is waited for, or came before such a one.
    pub(crate) fn is_answer_awaited(&self) -> bool {
        self.answers.given <= self.answers.awaited
    }

    /// The sidecar is told this deadline.
    pub(crate) fn tell(&mut self, deadline_ns: u64) {
        self.told.raise(deadline_ns);
    }

    /// The confirmed deadline, if the sidecar was not told of it.
    pub(crate) fn untold(&self) -> Option<(RunId, u64)> {
        let is_untold = self.armed.as_ns() > self.told.as_ns();
        is_untold.then(|| (self.run, self.armed.as_ns()))
    }

    /// The leash's next report, after noting what it says.
    pub(crate) fn next_report(&mut self) -> Option<Report> {
        match receive_packet(self.link.as_ref()?) {
            Received::Packet(report) => {
                self.note(report);
                Some(report)
            }
            Received::Empty => None,
            Received::Closed => {
                self.link = None;
                // Usually dead already. A leash that cannot be talked to must not go on.
                self.kill();
                None
            }
        }
    }

    /// Notes that a process was reaped, if it belongs to this life.
    pub(crate) fn on_reaped(&mut self, pid: Pid, status: WaitStatus) {
        if pid == self.leash {
            self.is_leash_reaped = true;
        } else if Some(pid) == self.asterisk {
            self.is_asterisk_reaped = true;
            self.end.get_or_insert(End::Exited(exit_kind(status)));
        }
    }

    /// Kills because somebody asked for it.
    pub(crate) fn kill_as_asked(&mut self) {
        self.kill_order = KillOrder::Asked;
        self.kill();
    }

    /// Kills the leash; its death kills Asterisk, and what is then left is the guard's to kill.
    pub(crate) fn kill(&mut self) {
        self.kill_order = self.kill_order.max(KillOrder::ByGuard);
        if !self.is_leash_reaped {
            // Not reaped, so the pid is still the leash's.
            let _ = kill_process(self.leash, Signal::KILL);
            self.let_others_go_first();
        }
    }

    /// To give back the memory and the sockets of a hundred threads takes a processor some ten milliseconds, just when an heir on this
    /// machine, the sidecars and all who are told of the move want it: what dies may take a little longer.
    fn let_others_go_first(&self) {
        // One whose end was told may be another's pid by now.
        if let Some(asterisk) = self.asterisk.filter(|_| self.end.is_none()) {
            yield_to_others(asterisk);
        }
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.kill_order != KillOrder::None
    }

    /// Whether the leash is gone, so that only remains are waited for.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_leash_reaped
    }

    /// Kills what the leash left behind, and returns how it ended once nothing is left. Call it
    /// after reaping (`has_children`: whether that left any) and after the last report.
    pub(crate) fn settle(&mut self, has_children: bool) -> Option<End> {
        if !self.is_leash_reaped {
            return None;
        }
        let is_gone = !has_children || self.kill_remains();
        let killed = End::Exited(ExitKind::Signal(libc::SIGKILL));
        is_gone.then(|| self.end.unwrap_or(killed))
    }

    /// Kills every child of the guard; true if none was left that it could kill, and Asterisk is
    /// not among those it could not.
    fn kill_remains(&self) -> bool {
        match kill_children() {
            Ok(reached) => reached == 0 && (self.asterisk.is_none() || self.is_asterisk_reaped),
            // Without /proc only Asterisk's own pid is known: not reaped, so it is still its.
            Err(_) => match self.asterisk {
                Some(pid) if !self.is_asterisk_reaped => {
                    kill_process(pid, Signal::KILL) == Err(Errno::SRCH)
                }
                Some(_) => true,
                None => false,
            },
        }
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::LaunchTooLate => self.end = Some(End::TooLate),
            Report::Spawned { pid } => {
                self.asterisk = Pid::from_raw(pid.cast_signed());
                self.doom = self.asterisk.map(DoomWatch::new);
            }
            Report::SpawnFailed { errno } => self.finish(ExitKind::SpawnError(errno)),
            Report::Armed { standing_ns } => {
                self.answers.given += 1;
                self.armed.raise(standing_ns);
            }
            Report::ArmRefused { .. } => self.answers.given += 1,
            Report::Exited { code } => self.finish(ExitKind::Code(code)),
            Report::Killed { signal } => self.finish(ExitKind::Signal(signal)),
        }
    }

    /// The leash reaped Asterisk, or never had one.
    fn finish(&mut self, kind: ExitKind) {
        self.is_asterisk_reaped = true;
        self.end = Some(End::Exited(kind));
    }
}

/// For people: an end that nobody asked for is a warning.
pub(crate) fn log_exit(run: RunId, status: ExitKind, asked: bool) {
    let level = if asked { Level::Info } else { Level::Warn };
    let status = format!("{status:?}");
    log(
        level,
        "Asterisk is gone",
        &[("run", &run.0), ("status", &status), ("asked", &asked)],
    );
}
