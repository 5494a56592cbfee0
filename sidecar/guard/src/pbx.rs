//! `pbx-guard pbx`: PID 1 of the PBX container. One loop carries out the sidecar's orders and
//! reports what becomes of Asterisk.
//!
//! It never starts Asterisk by itself, never ends because Asterisk did, and stops it only when told
//! to, when its deadline has passed and the kernel did not (the backup), or shortly before kubelet
//! would. Loss of the sidecar's connection changes nothing: the deadline stands.
//!
//! Each turn of the loop looks at what is ready in a fixed order, without waiting: ended threads, signals and
//! dead children, then the leash's reports, then the sidecar, then the time. A leash's last words are thus
//! read before its life is settled, and its confirmations before its deadline is judged. Confirmations that the
//! sidecar does not wait for end no wait: they are read in the next turn, which the next order brings.

use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{getpid, set_child_subreaper};

use crate::child::{Reaped, reap};
use crate::connection::{Connection, ConnectionError, listen};
use crate::deadline::{Termination, Verdict};
use crate::doom::WATCHED_THREADS;
use crate::leash_link::Report;
use crate::life::{End, Life, log_exit};
use crate::log::{Level, log, log_error};
use crate::memory::settle;
use crate::protocol::{Command, Event, RunId, StartRefusal};
use crate::schedule::run_ahead;
use crate::signals::Signals;
use crate::{boot_now_ns, timespec_until};

mod error;

pub use self::error::PbxError;

/// How often the remains of a life are looked at again: a process that was just left behind makes
/// no signal.
const REMAINS_INTERVAL_NS: u64 = 5_000_000;
/// Signals, listener, connection and the leash's link.
const FIXED_DESCRIPTORS: usize = 4;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PbxOptions {
    /// Where the sidecar connects.
    pub socket: PathBuf,
    /// The pod's grace period.
    pub grace: Duration,
    /// Asterisk and its arguments.
    pub command: Vec<OsString>,
}

/// Runs the guard until the sidecar orders its exit or the grace period ends.
pub fn run(options: PbxOptions) -> Result<(), PbxError> {
    run_ahead();
    let mut guard = Guard::prepare(options)?;
    settle();
    loop {
        let ready = guard.wait()?;
        guard.look_after_processes(ready);
        if ready.listener {
            guard.accept();
        }
        if ready.connection {
            guard.obey();
        }
        guard.keep_time();
        if guard.is_leaving && guard.life.is_none() {
            return Ok(());
        }
    }
}

/// What there is to look at besides the leash. Looking at nothing else saves a third of what a renewed deadline costs.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states"
)]
struct Ready {
    signals: bool,
    listener: bool,
    connection: bool,
    thread: bool,
}

struct Guard {
    options: PbxOptions,
    signals: Signals,
    listener: UnixListener,
    connection: Option<Connection>,
    life: Option<Life>,
    last_run: RunId,
    termination: Option<Termination>,
    is_leaving: bool,
}

impl Guard {
    fn prepare(options: PbxOptions) -> Result<Self, PbxError> {
        let signals = Signals::block().map_err(PbxError::BlockSignals)?;
        // Whoever outlives the leash becomes the guard's child: PID 1 is given them anyway.
        set_child_subreaper(Some(getpid())).map_err(|e| PbxError::BecomeReaper(e.into()))?;
        let listener = listen(&options.socket).map_err(|source| PbxError::Listen {
            path: options.socket.clone(),
            source,
        })?;
        log(
            Level::Info,
            "guard ready",
            &[("socket", &options.socket.display())],
        );
        Ok(Self {
            options,
            signals,
            listener,
            connection: None,
            life: None,
            last_run: RunId(0),
            termination: None,
            is_leaving: false,
        })
    }

    fn wait(&self) -> Result<Ready, PbxError> {
        let connection = self.connection.as_ref();
        let link = self.life.as_ref().and_then(Life::link);
        // What is not there is not asked for.
        let nothing = || PollFd::new(&self.signals, PollFlags::empty());
        let mut polled: [PollFd<'_>; FIXED_DESCRIPTORS + WATCHED_THREADS] = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
            connection.map_or_else(nothing, |it| PollFd::new(it, it.interest())),
            link.map_or_else(nothing, |(it, interest)| {
                PollFd::from_borrowed_fd(it, interest)
            }),
            nothing(),
            nothing(),
            nothing(),
        ];
        let threads = self.life.iter().flat_map(Life::threads);
        for (slot, thread) in polled[FIXED_DESCRIPTORS..].iter_mut().zip(threads) {
            *slot = PollFd::from_borrowed_fd(thread, PollFlags::IN);
        }
        let timeout = self.next_wakeup_ns().map(timespec_until);
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(PbxError::Poll(error.into())),
        }
        let [signals, listener, connection, _, threads @ ..] =
            polled.map(|it| !it.revents().is_empty());
        Ok(Ready {
            signals,
            listener,
            connection,
            thread: threads.contains(&true),
        })
    }

    fn next_wakeup_ns(&self) -> Option<u64> {
        let life = self.life.as_ref();
        let backup = life
            .filter(|life| !life.is_killed())
            .and_then(|life| life.armed().backup_kill_at_ns());
        let remains = life
            .filter(|life| life.is_ending())
            .map(|_| boot_now_ns() + REMAINS_INTERVAL_NS);
        let grace = self
            .termination
            .filter(|_| !self.is_leaving)
            .map(Termination::stop_at_ns);
        [backup, remains, grace].into_iter().flatten().min()
    }

    /// Takes signals, reaps the dead, hears the leash, and settles a life that is over.
    fn look_after_processes(&mut self, ready: Ready) {
        if ready.thread {
            self.hear_leash();
            self.on_thread_ended();
        }
        let is_ending = self.life.as_ref().is_some_and(Life::is_ending);
        let has_dead = ready.signals || is_ending;
        if ready.signals && self.signals.take().terminate.is_some() {
            self.on_terminate();
        }
        let has_children = !has_dead || self.reap_all();
        self.hear_leash();
        self.settle(has_children);
    }

    fn hear_leash(&mut self) {
        while let Some(report) = self.life.as_mut().and_then(Life::next_report) {
            self.on_report(report);
        }
    }

    /// Told at once when Asterisk ends with it: a failover need not wait until the kernel has taken it apart.
    fn on_thread_ended(&mut self) {
        let Some(life) = &mut self.life else {
            return;
        };
        if life.on_thread_ended() {
            let event = Event::Doomed {
                run: life.run(),
                at_ns: boot_now_ns(),
                asked: life.is_asked(),
            };
            self.tell_withheld();
            self.emit(event);
        }
    }

    fn reap_all(&mut self) -> bool {
        loop {
            match reap() {
                Reaped::Dead(pid, status) => {
                    if let Some(life) = &mut self.life {
                        life.on_reaped(pid, status);
                    }
                }
                Reaped::AllAlive => return true,
                Reaped::NoChild => return false,
            }
        }
    }

    fn on_terminate(&mut self) {
        if self.termination.is_some() {
            return;
        }
        let termination = Termination::begin(boot_now_ns(), self.options.grace);
        self.termination = Some(termination);
        log(Level::Info, "told to terminate, Asterisk goes on", &[]);
        self.emit(termination.into());
    }

    fn on_report(&mut self, report: Report) {
        let Some(life) = &self.life else {
            return;
        };
        let (run, armed, is_started) = (life.run(), life.armed(), life.pid() != 0);
        match report {
            Report::Spawned { pid } => {
                self.emit(Event::Started { run, pid });
                if !armed.is_slack() {
                    self.tell_armed(run, armed.as_ns());
                }
            }
            // The launch's own deadline is announced after Started.
            Report::Armed { standing_ns } if is_started => {
                if life.is_answer_awaited() {
                    self.tell_armed(run, standing_ns);
                }
                // Last: whoever takes over does not wait until a hundred threads are listed.
                if let Some(life) = &mut self.life {
                    life.watch_threads();
                }
            }
            Report::ArmRefused { deadline_ns } => {
                self.emit(Event::ArmRefused { run, deadline_ns });
            }
            Report::Armed { .. }
            | Report::LaunchTooLate
            | Report::SpawnFailed { .. }
            | Report::Exited { .. }
            | Report::Killed { .. } => {}
        }
    }

    /// Reports the end of a life, once nothing of it is left.
    fn settle(&mut self, has_children: bool) {
        let Some(life) = &mut self.life else {
            return;
        };
        let Some(end) = life.settle(has_children) else {
            return;
        };
        let (run, asked) = (life.run(), life.is_asked());
        self.tell_withheld();
        self.life = None;
        match end {
            End::TooLate => self.refuse_start(StartRefusal::DeadlinePassed),
            End::Exited(status) => {
                log_exit(run, status, asked);
                self.emit(Event::Exited {
                    run,
                    status,
                    at_ns: boot_now_ns(),
                    asked,
                });
            }
        }
    }

    /// A new connection replaces the old one: the sidecar was restarted.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            match Connection::new(stream) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    log(
                        Level::Warn,
                        "failed to accept the sidecar",
                        &[("error", &error)],
                    );
                }
            }
        }
    }

    fn obey(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        match connection.flush().and_then(|()| connection.receive()) {
            Ok(commands) => commands
                .into_iter()
                .for_each(|command| self.on_command(command)),
            Err(error) => self.disconnect(&error),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Hello => self.on_hello(),
            Command::Start { deadline_ns } => self.on_start(deadline_ns),
            Command::Arm { run, deadline_ns } => {
                self.on_arm(run, deadline_ns, true);
            }
            Command::Extend { run, deadline_ns } => {
                self.on_arm(run, deadline_ns, false);
            }
            Command::Stop { run } => self.on_stop(run),
            Command::Exit => self.leave(),
        }
    }

    fn on_hello(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.greet();
        }
        self.emit(self.state());
        if let Some(termination) = self.termination {
            self.emit(termination.into());
        }
    }

    fn on_start(&mut self, deadline_ns: Option<u64>) {
        if self.life.is_some() {
            self.refuse_start(StartRefusal::AlreadyRunning);
        } else if deadline_ns.is_some_and(|at_ns| at_ns <= boot_now_ns()) {
            self.refuse_start(StartRefusal::DeadlinePassed);
        } else if self.is_leaving {
            self.refuse_start(StartRefusal::SpawnFailed);
        } else {
            self.begin_life(deadline_ns.unwrap_or(0));
        }
    }

    fn begin_life(&mut self, deadline_ns: u64) {
        // The boot time is above every run of an earlier guard.
        let run = RunId(boot_now_ns().max(self.last_run.0 + 1));
        match Life::begin(run, &self.options.command, deadline_ns) {
            Ok(life) => {
                self.last_run = run;
                self.life = Some(life);
            }
            Err(error) => {
                log_error(
                    Level::Error,
                    "failed to start a leash",
                    error.reason(),
                    &error,
                );
                self.refuse_start(StartRefusal::SpawnFailed);
            }
        }
    }

    fn on_arm(&mut self, run: RunId, deadline_ns: u64, is_answer_awaited: bool) {
        let is_passed_on = self.life.as_mut().is_some_and(|life| {
            life.run() == run
                && life.armed().judge(deadline_ns, boot_now_ns()) != Verdict::Passed
                && life.arm(deadline_ns, is_answer_awaited)
        });
        if !is_passed_on {
            self.emit(Event::ArmRefused { run, deadline_ns });
        }
    }

    /// The sidecar learns the latest deadline before it learns of the end.
    fn tell_withheld(&mut self) {
        if let Some((run, deadline_ns)) = self.life.as_ref().and_then(Life::untold) {
            self.tell_armed(run, deadline_ns);
        }
    }

    fn tell_armed(&mut self, run: RunId, deadline_ns: u64) {
        if let Some(life) = &mut self.life {
            life.tell(deadline_ns);
        }
        self.emit(Event::Armed { run, deadline_ns });
    }

    fn on_stop(&mut self, run: RunId) {
        match &mut self.life {
            Some(life) if life.run() == run => life.kill_as_asked(),
            _ => self.emit(self.state()),
        }
    }

    fn leave(&mut self) {
        self.is_leaving = true;
        if let Some(life) = &mut self.life {
            life.kill_as_asked();
        }
    }

    fn keep_time(&mut self) {
        let now_ns = boot_now_ns();
        if let Some(life) = &mut self.life
            && !life.is_killed()
            && life
                .armed()
                .backup_kill_at_ns()
                .is_some_and(|at_ns| at_ns <= now_ns)
        {
            log(
                Level::Error,
                "the kernel did not keep the deadline, killing",
                &[],
            );
            life.kill();
        }
        let is_grace_over = self.termination.is_some_and(|t| t.stop_at_ns() <= now_ns);
        if is_grace_over && !self.is_leaving {
            log(Level::Warn, "the grace period ends, killing Asterisk", &[]);
            self.leave();
        }
    }

    fn state(&self) -> Event {
        let life = self.life.as_ref();
        Event::State {
            run: life.map(Life::run),
            pid: life.map_or(0, Life::pid),
            deadline_ns: life.map_or(0, |life| life.armed().as_ns()),
            terminating: self.termination.is_some(),
            boot_now_ns: boot_now_ns(),
        }
    }

    fn refuse_start(&mut self, reason: StartRefusal) {
        self.emit(Event::StartRefused { reason });
    }

    fn emit(&mut self, event: Event) {
        let outcome = self
            .connection
            .as_mut()
            .map_or(Ok(()), |connection| connection.send(event));
        if let Err(error) = outcome {
            self.disconnect(&error);
        }
    }

    fn disconnect(&mut self, error: &ConnectionError) {
        self.connection = None;
        log_error(Level::Warn, "lost the sidecar", error.reason(), error);
    }
}
