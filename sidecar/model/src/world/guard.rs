//! The guard of a pod, as `pbx-guard` is one: it obeys commands, holds one run, and tells what becomes of it. What stands between it and
//! the core is the driver that the sidecar has.

use pbx_core::BootTime;
use pbx_guard::deadline::{Deadline, Verdict};
use pbx_guard::protocol::{Command, Event as Said, ExitKind, RunId, StartRefusal};

use super::event::Event;
use super::{MS, World};

/// From start to fully booted (measured: 0.25 to 0.45 s).
const BOOT: u64 = 350 * MS;
/// From the end that the guard sees to the last process reaped, at most (measured: 15 to 50 ms).
const TAKING_APART: u64 = 50 * MS;
const SIGKILL: i32 = 9;

/// Asterisk under its leash, and what the guard holds of it.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Alive.
    pub is_running: bool,
    /// The guard holds a run: from the order to start until everything of it is gone.
    pub is_held: bool,
    /// The kernel's deadline, on the pod's clock.
    pub deadline: Deadline,
    /// Counts the runs.
    pub run: u64,
    /// Counts the settings of the timer.
    pub timer: u64,
    /// The sidecar ordered its end.
    is_asked: bool,
    /// The latest that it was told.
    told: Deadline,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            is_running: false,
            is_held: false,
            deadline: Deadline::SLACK,
            run: 0,
            timer: 0,
            is_asked: false,
            told: Deadline::SLACK,
        }
    }
}

impl Process {
    /// Armed and alive: what I1 allows once.
    pub fn is_serving(&self) -> bool {
        self.is_running && !self.deadline.is_slack()
    }

    fn id(&self) -> RunId {
        RunId(self.run)
    }
}

impl World {
    /// What the guard says to `Hello`.
    pub(super) fn guard_state(&self, pod: usize) -> Said {
        let p = &self.pods[pod];
        let held = Some(p.asterisk).filter(|asterisk| asterisk.is_held);
        Said::State {
            run: held.map(|asterisk| asterisk.id()),
            pid: u32::from(held.is_some()),
            deadline_ns: held.map_or(0, |asterisk| asterisk.deadline.as_ns()),
            terminating: p.is_terminating,
            boot_now_ns: p.clock.local(self.now).0,
        }
    }

    /// A new connection replaces the old one, with all that was on its way in it.
    pub(super) fn guard_hears(&mut self, pod: usize, connection: u32, command: Command) {
        let p = &self.pods[pod];
        if p.dead_since.is_some() || connection < p.guard_follows {
            return;
        }
        match command {
            Command::Hello => self.guard_says(pod, self.guard_state(pod)),
            Command::Start { deadline_ns } => self.obey_start(pod, deadline_ns),
            Command::Arm { run, deadline_ns } => self.obey_arm(pod, run, deadline_ns, false),
            Command::Extend { run, deadline_ns } => self.obey_arm(pod, run, deadline_ns, true),
            Command::Stop { run } => self.obey_stop(pod, run),
            Command::Exit => {}
        }
    }

    fn obey_start(&mut self, pod: usize, deadline_ns: Option<u64>) {
        let p = &self.pods[pod];
        let local = p.clock.local(self.now);
        let refusal = if p.asterisk.is_held {
            Some(StartRefusal::AlreadyRunning)
        } else if deadline_ns.is_some_and(|at| at <= local.0) {
            Some(StartRefusal::DeadlinePassed)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.guard_says(pod, Said::StartRefused { reason });
        }
        let run = RunId(p.asterisk.run + 1);
        let deadline = Deadline::at(deadline_ns.unwrap_or(0));
        self.pods[pod].asterisk = Process {
            is_running: true,
            is_held: true,
            deadline,
            run: run.0,
            timer: p.asterisk.timer + 1,
            told: deadline,
            ..Process::default()
        };
        let booted = Event::Booted { pod, run: run.0 };
        self.at(self.now + BOOT, booted);
        self.note_serving();
        self.guard_says(pod, Said::Started { run, pid: 1 });
        if let Some(deadline_ns) = deadline_ns {
            self.set_timer(pod);
            self.guard_says(pod, Said::Armed { run, deadline_ns });
        }
    }

    /// The guard's judgement and the leash's: the timer takes only later deadlines, and refuses those that have passed.
    fn obey_arm(&mut self, pod: usize, run: RunId, deadline_ns: u64, is_withheld: bool) {
        let p = &mut self.pods[pod];
        let local = p.clock.local(self.now);
        let asterisk = &mut p.asterisk;
        let is_its = asterisk.is_held && asterisk.id() == run && !asterisk.is_asked;
        let verdict = asterisk.deadline.judge(deadline_ns, local.0);
        if !is_its || verdict == Verdict::Passed {
            return self.guard_says(pod, Said::ArmRefused { run, deadline_ns });
        }
        if !asterisk.is_running {
            // The end of its run overtakes it.
            return;
        }
        asterisk.deadline.raise(deadline_ns);
        if verdict == Verdict::Later {
            asterisk.timer += 1;
            self.set_timer(pod);
        }
        self.note_serving();
        if !is_withheld {
            self.tell_armed(pod);
        }
    }

    fn obey_stop(&mut self, pod: usize, run: RunId) {
        let asterisk = &mut self.pods[pod].asterisk;
        if !asterisk.is_held || asterisk.id() != run {
            return self.guard_says(pod, self.guard_state(pod));
        }
        asterisk.is_asked = true;
        self.kill_asterisk(pod);
    }

    /// Asterisk dies: by itself, by its guard, by the kernel.
    pub fn kill_asterisk(&mut self, pod: usize) {
        let asterisk = &mut self.pods[pod].asterisk;
        if asterisk.is_running {
            asterisk.is_running = false;
            asterisk.timer += 1;
            let run = asterisk.run;
            self.at(self.now, Event::GuardSees { pod, run });
        }
        self.note_serving();
    }

    /// The kernel's timer: it asks nobody, whatever is paused.
    pub(super) fn kernel_kills(&mut self, pod: usize, timer: u64) {
        let p = &self.pods[pod];
        if p.asterisk.timer != timer || !p.asterisk.is_serving() {
            return;
        }
        let due_at = p.clock.world(BootTime(p.asterisk.deadline.as_ns()));
        if due_at > self.now {
            // The machine stood still in between, and its timer with it.
            return self.at(due_at, Event::KernelKills { pod, timer });
        }
        self.kill_asterisk(pod);
    }

    /// That Asterisk has ended: half of the ends are announced before everything of it is gone.
    pub(super) fn guard_sees(&mut self, pod: usize, run: u64) {
        let p = &self.pods[pod];
        if !p.asterisk.is_held || p.asterisk.run != run || p.asterisk.is_running {
            return;
        }
        if self.random.chance(50) {
            return self.guard_reaps(pod, run);
        }
        let p = &self.pods[pod];
        let (at, asked) = (p.clock.local(self.now), p.asterisk.is_asked);
        self.tell_withheld(pod);
        self.guard_says(
            pod,
            Said::Doomed {
                run: RunId(run),
                at_ns: at.0,
                asked,
            },
        );
        let gone_at = self.now + self.random.between(MS, TAKING_APART);
        self.at(gone_at, Event::GuardReaps { pod, run });
    }

    /// Nothing is left of it.
    pub(super) fn guard_reaps(&mut self, pod: usize, run: u64) {
        let p = &self.pods[pod];
        if !p.asterisk.is_held || p.asterisk.run != run {
            return;
        }
        let (at, asked) = (p.clock.local(self.now), p.asterisk.is_asked);
        self.tell_withheld(pod);
        self.pods[pod].asterisk.is_held = false;
        self.guard_says(
            pod,
            Said::Exited {
                run: RunId(run),
                status: ExitKind::Signal(SIGKILL),
                at_ns: at.0,
                asked,
            },
        );
    }

    /// The sidecar learns the latest deadline before it learns of the end.
    fn tell_withheld(&mut self, pod: usize) {
        let asterisk = &self.pods[pod].asterisk;
        if asterisk.deadline.as_ns() > asterisk.told.as_ns() {
            self.tell_armed(pod);
        }
    }

    fn tell_armed(&mut self, pod: usize) {
        let asterisk = &mut self.pods[pod].asterisk;
        let (run, deadline_ns) = (asterisk.id(), asterisk.deadline.as_ns());
        asterisk.told.raise(deadline_ns);
        self.guard_says(pod, Said::Armed { run, deadline_ns });
    }

    fn set_timer(&mut self, pod: usize) {
        let longest = self.timing.kill_margin.as_nanos() as u64 * 9 / 10;
        let latency = self.random.between(0, longest);
        let p = &self.pods[pod];
        let deadline = BootTime(p.asterisk.deadline.as_ns());
        let at = p.clock.world(deadline) + latency;
        let timer = p.asterisk.timer;
        self.at(at, Event::KernelKills { pod, timer });
    }

    fn guard_says(&mut self, pod: usize, said: Said) {
        let delay = self.random.between(50_000, MS);
        let p = &mut self.pods[pod];
        let at = (self.now + delay).max(p.guard_said_until);
        p.guard_said_until = at;
        let connection = p.connection;
        self.at(
            at,
            Event::GuardSays {
                pod,
                connection,
                said,
            },
        );
    }
}
