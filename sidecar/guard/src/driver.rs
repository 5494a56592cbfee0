//! The sidecar's end of the protocol, between the core, which wants deadlines, and the guard, which knows runs: a pure machine.
//!
//! The core says "armed until", "stop", "start again"; whether that means a start with a deadline, or a later deadline for
//! the run that exists, depends on what the guard has confirmed. Nothing is assumed: after a lost connection the state is
//! unknown until the guard has told it, since the end of a socket is no proof of death.

use std::time::Duration;

use pbx_core::{BootTime, FoundAtStart, GuardEvent};

use crate::protocol::{Command, Event, ExitKind, RunId, StartRefusal};

/// A life shorter than this is a crash of the crash loop.
const QUICK_LIFE: Duration = Duration::from_secs(10);
/// A deadline is confirmed at least this often; what is armed between is told when the run ends, or refused.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What to do next, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send it to the guard.
    Send(Command),
    /// Tell the core.
    Core(GuardEvent),
    /// Tell the rest of the sidecar.
    Note(GuardNote),
}

/// What the rest of the sidecar learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardNote {
    /// Asterisk runs (again).
    Started,
    /// Asterisk does nothing any more; that it is gone follows.
    Ending,
    /// Asterisk is gone.
    Exited {
        /// It was told to.
        asked: bool,
        /// How it ended.
        status: ExitKind,
        /// Lives shorter than ten seconds in a row.
        quick_exits: u32,
    },
    /// Nothing runs, as the guard found it.
    Idle,
    /// Asterisk takes no new work any more, and lives until its calls have ended.
    Draining,
    /// The pod is told to end.
    Terminating {
        /// When everything is killed.
        grace_ends: BootTime,
    },
}

/// What the guard has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not connected yet, or again.
    Unknown,
    /// Nothing runs.
    Idle,
    /// A start was ordered.
    Starting,
    /// This run exists.
    Running(RunId),
    /// The core wants it gone; it is being closed to new work.
    Closing(RunId, BootTime),
    /// Closed for good, as the core was told: its calls may end in peace, until the kernel ends it.
    Draining(RunId),
    /// It executes nothing any more, as the core was told, but is not gone yet.
    Ending,
}

/// The machine.
#[derive(Debug)]
pub struct Driver {
    known: Known,
    /// The deadline the core wants, in force or still to be ordered.
    wanted: Option<BootTime>,
    /// The core wants Asterisk gone, and was not yet told that it is.
    is_stop_wanted: bool,
    started_at: BootTime,
    /// When this run's deadline was confirmed last.
    confirmed: Option<(RunId, BootTime)>,
    quick_exits: u32,
    not_before: BootTime,
}

impl Default for Driver {
    fn default() -> Self {
        Self {
            known: Known::Unknown,
            wanted: None,
            is_stop_wanted: false,
            started_at: BootTime(0),
            confirmed: None,
            quick_exits: 0,
            not_before: BootTime(0),
        }
    }
}

/// What a core that starts is told of the guard's first state.
pub fn found(event: &Event) -> FoundAtStart {
    match event {
        Event::State {
            run: Some(_),
            deadline_ns,
            ..
        } => FoundAtStart::Running {
            deadline: (*deadline_ns > 0).then_some(BootTime(*deadline_ns)),
        },
        _ => FoundAtStart::Nothing,
    }
}

impl Driver {
    /// The core wants Asterisk to serve until `deadline`: arms the run that exists, or starts one that is armed.
    pub fn arm(&mut self, now: BootTime, deadline: BootTime, orders: &mut Vec<Order>) {
        self.wanted = Some(
            self.wanted
                .map_or(deadline, |standing| standing.max(deadline)),
        );
        match self.known {
            Known::Running(run) => orders.push(Order::Send(self.later(now, run, deadline))),
            Known::Idle => self.start_if_due(now, orders),
            // Who is to serve again does not wait for old calls.
            Known::Draining(run) => orders.push(Order::Send(Command::Stop { run })),
            Known::Closing(..) | Known::Starting | Known::Ending | Known::Unknown => {}
        }
    }

    fn later(&self, now: BootTime, run: RunId, deadline: BootTime) -> Command {
        let deadline_ns = deadline.0;
        let is_confirmed = self
            .confirmed
            .is_some_and(|(of, at)| of == run && now < at.after(CONFIRM_INTERVAL));
        if is_confirmed {
            Command::Extend { run, deadline_ns }
        } else {
            Command::Arm { run, deadline_ns }
        }
    }

    /// The core wants Asterisk gone.
    pub fn stop(&mut self, orders: &mut Vec<Order>) {
        self.wanted = None;
        match self.known {
            Known::Idle | Known::Ending | Known::Draining(_) => {
                orders.push(Order::Core(GuardEvent::Stopped));
            }
            Known::Running(run) | Known::Closing(run, _) => {
                self.known = Known::Running(run);
                self.is_stop_wanted = true;
                orders.push(Order::Send(Command::Stop { run }));
            }
            Known::Starting | Known::Unknown => self.is_stop_wanted = true,
        }
    }

    /// The core wants Asterisk gone, and its calls may end in peace until `until`: it is to be closed to new work, and the answer
    /// is given by [`Driver::on_closed`]. Returns whether there is one to close; else it is stopped.
    pub fn drain(&mut self, until: BootTime, orders: &mut Vec<Order>) -> bool {
        if let Known::Running(run) = self.known {
            self.wanted = None;
            self.known = Known::Closing(run, until);
            return true;
        }
        self.stop(orders);
        false
    }

    /// Asterisk is closed to new work, for good; or could not be closed, and is stopped. Closed is what counts as stopped (R4), once
    /// the kernel has its last deadline.
    pub fn on_closed(&mut self, is_closed: bool, orders: &mut Vec<Order>) {
        match self.known {
            Known::Closing(run, until) if is_closed => orders.push(Order::Send(Command::Arm {
                run,
                deadline_ns: until.0,
            })),
            Known::Closing(..) => self.stop(orders),
            _ => {}
        }
    }

    /// A standby's Asterisk that does not answer is to end; it is started again like any other. One that serves is the core's.
    pub fn stop_slack(&mut self, orders: &mut Vec<Order>) {
        if let (Known::Running(run), None) = (self.known, self.wanted) {
            orders.push(Order::Send(Command::Stop { run }));
        }
    }

    /// A standby's Asterisk is to run, without a deadline.
    pub fn start_slack(&mut self, orders: &mut Vec<Order>) {
        if self.known == Known::Idle {
            self.known = Known::Starting;
            orders.push(Order::Send(Command::Start { deadline_ns: None }));
        }
    }

    /// The guard ends its container, and Asterisk with it if it still runs.
    pub fn exit(orders: &mut Vec<Order>) {
        orders.push(Order::Send(Command::Exit));
    }

    /// The connection is gone: nothing is known, nothing is assumed.
    pub fn on_lost(&mut self) {
        self.known = Known::Unknown;
        self.confirmed = None;
    }

    /// When [`Driver::on_tick`] has something to do.
    pub fn next_deadline(&self) -> Option<BootTime> {
        (self.known == Known::Idle && self.wanted.is_some()).then_some(self.not_before)
    }

    /// A delayed start is due.
    pub fn on_tick(&mut self, now: BootTime, orders: &mut Vec<Order>) {
        if self.known == Known::Idle {
            self.start_if_due(now, orders);
        }
    }

    /// The guard reports.
    pub fn on_event(&mut self, now: BootTime, event: Event, orders: &mut Vec<Order>) {
        match event {
            Event::State {
                run, deadline_ns, ..
            } => self.on_state(run, deadline_ns, orders),
            Event::Started { run, .. } => self.on_started(now, run, orders),
            Event::Armed { run, deadline_ns } => {
                self.confirmed = Some((run, now));
                self.on_armed(run, BootTime(deadline_ns), orders);
            }
            Event::StartRefused { reason } => self.on_start_refused(reason, orders),
            // Its Exited is on the way, or the core has extended it since.
            Event::ArmRefused { .. } => {}
            Event::Doomed { run, at_ns, asked } => {
                self.on_doomed(run, BootTime(at_ns), asked, orders);
            }
            Event::Exited {
                status,
                at_ns,
                asked,
                ..
            } => self.on_exited(now, status, BootTime(at_ns), asked, orders),
            Event::Terminating { grace_ends_ns, .. } => {
                orders.push(Order::Note(GuardNote::Terminating {
                    grace_ends: BootTime(grace_ends_ns),
                }));
            }
        }
    }

    fn on_state(&mut self, run: Option<RunId>, deadline_ns: u64, orders: &mut Vec<Order>) {
        let Some(run) = run else {
            // The answer to a stop that found its run gone already, and older than the start that was ordered since: to believe it would
            // be to give the role away while Asterisk starts.
            if self.known == Known::Starting {
                return;
            }
            self.known = Known::Idle;
            self.is_stop_wanted = false;
            // The core hears that nothing runs: what it wants from then on is meant for the next run.
            self.wanted = None;
            orders.push(Order::Core(GuardEvent::Stopped));
            orders.push(Order::Note(GuardNote::Idle));
            return;
        };
        self.known = Known::Running(run);
        let deadline = (deadline_ns > 0).then_some(BootTime(deadline_ns));
        orders.push(Order::Core(GuardEvent::Adopted { deadline }));
        orders.push(Order::Note(GuardNote::Started));
        self.settle(run, deadline, orders);
    }

    fn on_started(&mut self, now: BootTime, run: RunId, orders: &mut Vec<Order>) {
        self.known = Known::Running(run);
        self.started_at = now;
        orders.push(Order::Note(GuardNote::Started));
        self.settle(run, None, orders);
    }

    /// What was wanted while the run was not known yet.
    fn settle(&mut self, run: RunId, deadline: Option<BootTime>, orders: &mut Vec<Order>) {
        if self.is_stop_wanted {
            orders.push(Order::Send(Command::Stop { run }));
        } else if let Some(wanted) = self.wanted.filter(|wanted| Some(*wanted) != deadline) {
            orders.push(Order::Send(Command::Arm {
                run,
                deadline_ns: wanted.0,
            }));
        }
    }

    fn on_armed(&mut self, run: RunId, deadline: BootTime, orders: &mut Vec<Order>) {
        match self.known {
            Known::Closing(known, until) if known == run && until == deadline => {
                self.known = Known::Draining(run);
                orders.push(Order::Core(GuardEvent::Stopped));
                orders.push(Order::Note(GuardNote::Draining));
            }
            Known::Running(known) | Known::Closing(known, _) if known == run => {
                orders.push(Order::Core(GuardEvent::Armed { deadline }));
            }
            // The core was told of this run's end.
            _ => {}
        }
    }

    fn on_start_refused(&mut self, reason: StartRefusal, orders: &mut Vec<Order>) {
        self.known = Known::Unknown;
        if reason == StartRefusal::DeadlinePassed {
            self.wanted = None;
        }
        // The state says what is, whatever the reason was.
        orders.push(Order::Send(Command::Hello));
    }

    fn on_doomed(&mut self, run: RunId, at: BootTime, asked: bool, orders: &mut Vec<Order>) {
        let is_told = match self.known {
            Known::Running(known) | Known::Closing(known, _) if known == run => false,
            Known::Draining(known) if known == run => true,
            _ => return,
        };
        self.known = Known::Ending;
        if !is_told {
            self.tell_end(at, asked, orders);
        }
        orders.push(Order::Note(GuardNote::Ending));
    }

    /// What the core wants from now on is meant for the next run.
    fn tell_end(&mut self, at: BootTime, asked: bool, orders: &mut Vec<Order>) {
        self.wanted = None;
        let is_stop = std::mem::take(&mut self.is_stop_wanted) || asked;
        orders.push(Order::Core(if is_stop {
            GuardEvent::Stopped
        } else {
            GuardEvent::Exited { at }
        }));
    }

    fn on_exited(
        &mut self,
        now: BootTime,
        status: ExitKind,
        at: BootTime,
        asked: bool,
        orders: &mut Vec<Order>,
    ) {
        let is_drained = matches!(self.known, Known::Draining(_));
        let was_quick = !asked && !is_drained && now.since(self.started_at) < QUICK_LIFE;
        self.quick_exits = if was_quick { self.quick_exits + 1 } else { 0 };
        self.not_before = now.after(delay(self.quick_exits));
        if self.known != Known::Ending && !is_drained {
            self.tell_end(at, asked, orders);
        }
        self.known = Known::Idle;
        orders.push(Order::Note(GuardNote::Exited {
            asked,
            status,
            quick_exits: self.quick_exits,
        }));
        self.start_if_due(now, orders);
    }

    fn start_if_due(&mut self, now: BootTime, orders: &mut Vec<Order>) {
        let Some(deadline) = self.wanted.filter(|_| now >= self.not_before) else {
            return;
        };
        self.known = Known::Starting;
        orders.push(Order::Send(Command::Start {
            deadline_ns: Some(deadline.0),
        }));
    }
}

/// The first start after a crash is immediate: 0.4 s of outage instead of a failover. A crash loop is held back.
fn delay(quick_exits: u32) -> Duration {
    match quick_exits {
        0 | 1 => Duration::ZERO,
        more => LONGEST_DELAY.min(Duration::from_millis(250) * (1 << (more - 2).min(6))),
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
