//! Between the core, which wants deadlines, and the guard, which knows runs: a pure machine.
//!
//! The core says "armed until", "stop", "start again"; whether that means a start with a deadline, or a later deadline for
//! the run that exists, depends on what the guard has confirmed. Nothing is assumed: after a lost connection the state is
//! unknown until the guard has told it, since the end of a socket is no proof of death.

use std::time::Duration;

use pbx_core::{BootTime, GuardEvent};
use pbx_guard::protocol::{Command, Event, ExitKind, RunId, StartRefusal};

/// A life shorter than this is a crash of the crash loop.
const QUICK_LIFE: Duration = Duration::from_secs(10);
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
            quick_exits: 0,
            not_before: BootTime(0),
        }
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
            Known::Running(run) => orders.push(Order::Send(Command::Arm {
                run,
                deadline_ns: deadline.0,
            })),
            Known::Idle => self.start_if_due(now, orders),
            Known::Starting | Known::Ending | Known::Unknown => {}
        }
    }

    /// The core wants Asterisk gone.
    pub fn stop(&mut self, orders: &mut Vec<Order>) {
        self.wanted = None;
        match self.known {
            Known::Idle | Known::Ending => orders.push(Order::Core(GuardEvent::Stopped)),
            Known::Running(run) => {
                self.is_stop_wanted = true;
                orders.push(Order::Send(Command::Stop { run }));
            }
            Known::Starting | Known::Unknown => self.is_stop_wanted = true,
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
            Event::Armed { deadline_ns, .. } => {
                orders.push(Order::Core(GuardEvent::Armed {
                    deadline: BootTime(deadline_ns),
                }));
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
            self.known = Known::Idle;
            self.is_stop_wanted = false;
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

    fn on_start_refused(&mut self, reason: StartRefusal, orders: &mut Vec<Order>) {
        self.known = Known::Unknown;
        if reason == StartRefusal::DeadlinePassed {
            self.wanted = None;
        }
        // The state says what is, whatever the reason was.
        orders.push(Order::Send(Command::Hello));
    }

    fn on_doomed(&mut self, run: RunId, at: BootTime, asked: bool, orders: &mut Vec<Order>) {
        if self.known == Known::Running(run) {
            self.known = Known::Ending;
            self.tell_end(at, asked, orders);
            orders.push(Order::Note(GuardNote::Ending));
        }
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
        let was_quick = !asked && now.since(self.started_at) < QUICK_LIFE;
        self.quick_exits = if was_quick { self.quick_exits + 1 } else { 0 };
        self.not_before = now.after(delay(self.quick_exits));
        if self.known != Known::Ending {
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
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(1_000_000_000_000);
    const RUN: RunId = RunId(7);

    fn in_ms(milliseconds: u64) -> BootTime {
        NOW.after(Duration::from_millis(milliseconds))
    }

    fn state(run: Option<RunId>, deadline_ns: u64) -> Event {
        Event::State {
            run,
            pid: 0,
            deadline_ns,
            terminating: false,
            boot_now_ns: NOW.0,
        }
    }

    fn exited(asked: bool) -> Event {
        Event::Exited {
            run: RUN,
            status: ExitKind::Signal(9),
            at_ns: NOW.0,
            asked,
        }
    }

    fn idle() -> Driver {
        let mut driver = Driver::default();
        driver.on_event(NOW, state(None, 0), &mut Vec::new());
        driver
    }

    fn running() -> Driver {
        let mut driver = idle();
        driver.start_slack(&mut Vec::new());
        driver.on_event(NOW, Event::Started { run: RUN, pid: 1 }, &mut Vec::new());
        driver
    }

    fn orders(act: impl FnOnce(&mut Vec<Order>)) -> Vec<Order> {
        let mut orders = Vec::new();
        act(&mut orders);
        orders
    }

    #[test]
    fn a_running_standby_is_armed() {
        let mut driver = running();
        let got = orders(|out| driver.arm(NOW, in_ms(700), out));
        assert_eq!(
            got,
            [Order::Send(Command::Arm {
                run: RUN,
                deadline_ns: in_ms(700).0
            })]
        );
    }

    #[test]
    fn a_stopped_one_is_started_with_its_deadline() {
        let mut driver = idle();
        let got = orders(|out| driver.arm(NOW, in_ms(700), out));
        assert_eq!(
            got,
            [Order::Send(Command::Start {
                deadline_ns: Some(in_ms(700).0)
            })]
        );
    }

    #[test]
    fn what_is_wanted_during_a_start_follows_it() {
        let mut driver = idle();
        driver.start_slack(&mut Vec::new());
        assert_eq!(orders(|out| driver.arm(NOW, in_ms(700), out)), []);
        let got = orders(|out| driver.on_event(NOW, Event::Started { run: RUN, pid: 1 }, out));
        assert!(
            got.contains(&Order::Send(Command::Arm {
                run: RUN,
                deadline_ns: in_ms(700).0
            })),
            "{got:?}"
        );
    }

    #[test]
    fn a_stop_is_confirmed_by_the_exit_alone() {
        let mut driver = running();
        assert_eq!(
            orders(|out| driver.stop(out)),
            [Order::Send(Command::Stop { run: RUN })]
        );
        let got = orders(|out| driver.on_event(NOW, exited(true), out));
        assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
        assert_eq!(
            orders(|out| driver.stop(out)),
            [Order::Core(GuardEvent::Stopped)]
        );
    }

    #[test]
    fn a_doomed_run_is_told_at_once_and_the_next_starts_when_it_is_gone() {
        let mut driver = running();
        let doomed = Event::Doomed {
            run: RUN,
            at_ns: NOW.0,
            asked: false,
        };
        let got = orders(|out| driver.on_event(NOW, doomed, out));
        assert_eq!(
            got,
            [
                Order::Core(GuardEvent::Exited { at: NOW }),
                Order::Note(GuardNote::Ending)
            ]
        );
        assert_eq!(orders(|out| driver.arm(NOW, in_ms(700), out)), []);
        let got = orders(|out| driver.on_event(in_ms(30), exited(false), out));
        assert!(
            matches!(
                got[..],
                [
                    Order::Note(GuardNote::Exited { asked: false, .. }),
                    Order::Send(Command::Start {
                        deadline_ns: Some(_)
                    })
                ]
            ),
            "{got:?}"
        );
    }

    #[test]
    fn a_stop_is_confirmed_by_doom() {
        let mut driver = running();
        driver.stop(&mut Vec::new());
        let doomed = Event::Doomed {
            run: RUN,
            at_ns: NOW.0,
            asked: true,
        };
        let got = orders(|out| driver.on_event(NOW, doomed, out));
        assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
        assert_eq!(
            orders(|out| driver.stop(out)),
            [Order::Core(GuardEvent::Stopped)]
        );
    }

    #[test]
    fn a_lost_connection_proves_nothing() {
        let mut driver = running();
        driver.on_lost();
        assert_eq!(orders(|out| driver.stop(out)), []);
        let got = orders(|out| driver.on_event(NOW, state(Some(RUN), 0), out));
        assert!(
            got.contains(&Order::Send(Command::Stop { run: RUN })),
            "{got:?}"
        );
        assert!(!got.contains(&Order::Core(GuardEvent::Stopped)), "{got:?}");
    }

    #[test]
    fn a_crash_loop_is_held_back_and_an_extended_deadline_is_used() {
        let mut driver = running();
        driver.on_event(NOW, exited(false), &mut Vec::new());
        assert_eq!(
            orders(|out| driver.arm(NOW, in_ms(700), out)).len(),
            1,
            "the first start is immediate"
        );
        driver.on_event(NOW, Event::Started { run: RUN, pid: 2 }, &mut Vec::new());
        driver.on_event(NOW, exited(false), &mut Vec::new());
        assert_eq!(orders(|out| driver.arm(NOW, in_ms(700), out)), []);
        assert_eq!(orders(|out| driver.arm(in_ms(100), in_ms(800), out)), []);
        assert_eq!(driver.next_deadline(), Some(in_ms(250)));
        let got = orders(|out| driver.on_tick(in_ms(250), out));
        assert_eq!(
            got,
            [Order::Send(Command::Start {
                deadline_ns: Some(in_ms(800).0)
            })]
        );
    }
}
