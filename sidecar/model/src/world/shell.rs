//! What the sidecar's shell, the guard and the kernel do in the world.

use pbx_core::{
    ApiCall, BootTime, CallId, Command, Condition, Effect, GuardEvent, Holder, Input, Message,
    Notice, Seats,
};

use pbx_guard::deadline::{Deadline, Verdict};

use super::event::{Event, Order};
use super::{MS, SECOND, World};

/// From start to fully booted (measured: 0.25 to 0.45 s).
const BOOT: u64 = 350 * MS;

impl World {
    /// Carries out the effects of a step, in order; a sidecar may die in the midst of them.
    pub(super) fn carry_out(&mut self, pod: usize, effects: &mut Vec<Effect>) {
        let mut dies = self.pods[pod].dies_midway && effects.len() > 1;
        if dies {
            let kept = self.random.between(0, effects.len() as u64) as usize;
            effects.truncate(kept);
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Record(record) => self.pods[pod].record = Some(record),
                Effect::Send(message) => self.send(pod, &message),
                Effect::Call { id, call } => self.call(pod, id, call),
                Effect::Arm { deadline } => self.order(pod, Order::Arm(deadline)),
                Effect::Stop => self.order(pod, Order::Stop),
                Effect::RestartInPlace { deadline } => self.order(pod, Order::Restart(deadline)),
                Effect::Notice(notice) => {
                    if self.is_traced {
                        println!(
                            "{:>10.3} ms pod {pod} {notice:?}",
                            self.now as f64 / MS as f64
                        );
                    }
                    self.notices.push((self.now, pod, notice));
                    dies |= self.note(pod, notice);
                }
            }
        }
        if dies && !self.pods[pod].is_terminating {
            return self.kill_sidecar(pod, true);
        }
        self.schedule_tick(pod);
    }

    /// The sidecar's process dies; the guard starts it again within 50 ms.
    pub fn kill_sidecar(&mut self, pod: usize, keeps_record: bool) {
        let p = &mut self.pods[pod];
        p.node = None;
        p.life += 1;
        p.dies_midway = false;
        let at = self.now + self.random.between(5 * MS, 50 * MS);
        self.at(at, Event::SidecarUp { pod, keeps_record });
    }

    /// Asterisk dies by itself.
    pub fn kill_asterisk(&mut self, pod: usize) {
        let asterisk = &mut self.pods[pod].asterisk;
        if asterisk.is_running {
            asterisk.is_running = false;
            asterisk.deadline = None;
            asterisk.timer += 1;
            let run = asterisk.run;
            self.at(self.now, Event::GuardSees { pod, run });
        }
        self.note_serving();
    }

    pub(super) fn guard_sees(&mut self, pod: usize, run: u64) {
        let p = &self.pods[pod];
        if p.asterisk.run == run && !p.asterisk.is_running && p.node.is_some() {
            let at = p.clock.local(self.now);
            self.guard_says(pod, GuardEvent::Exited { at });
        }
    }

    pub(super) fn start_slack_later(&mut self, pod: usize, delay: u64) {
        let run = self.pods[pod].asterisk.run;
        self.at(self.now + delay, Event::StartSlack { pod, run });
    }

    pub(super) fn start_slack(&mut self, pod: usize, run: u64) {
        let p = &mut self.pods[pod];
        let is_wanted = p.asterisk.run == run && !p.asterisk.is_running && p.node.is_some();
        if is_wanted && !p.is_terminating && !p.is_broken {
            self.start_asterisk(pod, None);
        }
    }

    /// The shell reports, and always says how the node is afterwards.
    pub(super) fn shell_hears(&mut self, pod: usize, life: u32, run: u64, event: GuardEvent) {
        let p = &self.pods[pod];
        if p.life != life || p.asterisk.run != run {
            return;
        }
        self.input(pod, Input::Guard(event));
        if matches!(event, GuardEvent::Exited { .. } | GuardEvent::Stopped) {
            self.pods[pod].condition.is_ready = false;
            self.tell_condition(pod);
            self.start_slack_later(pod, 300 * MS);
        }
    }

    pub(super) fn shell_is_ready(&mut self, pod: usize, run: u64) {
        let p = &mut self.pods[pod];
        if p.asterisk.run == run && p.asterisk.is_running {
            p.condition.is_ready = true;
            self.tell_condition(pod);
        }
    }

    /// Every 100 ms: is the API there?
    pub(super) fn shell_looks(&mut self, pod: usize) {
        if self.pods[pod].dead_since.is_some() {
            return;
        }
        self.at(self.now + 100 * MS, Event::ShellLooks { pod });
        self.shell_compares_maps(pod);
        let p = &mut self.pods[pod];
        let is_api_reachable = p.api_cut_until <= self.now;
        let condition = Condition {
            is_api_reachable,
            rank: p.rank,
            ..p.condition
        };
        if condition != p.condition {
            p.condition = condition;
            self.tell_condition(pod);
        }
    }

    /// Every five seconds it reads the Lease by itself.
    fn shell_compares_maps(&mut self, pod: usize) {
        let p = &self.pods[pod];
        let is_due = self.now % (5 * SECOND) < 100 * MS && p.api_cut_until <= self.now;
        let (Some(node), Some(lease)) = (&p.node, self.api.lease) else {
            return;
        };
        let seats = node.view(p.clock.local(self.now)).seats;
        let is_made_anew = lease.content.holder == Holder::Created;
        let differs = |seats: Seats| is_made_anew || seats != lease.content.seats;
        if is_due && seats.is_some_and(differs) {
            self.input(pod, Input::Command(Command::LookAtSeats));
        }
    }

    /// A new connection replaces the old one, with all that was on its way in it.
    pub(super) fn guard_hears(&mut self, pod: usize, life: u32, order: Order) {
        let p = &mut self.pods[pod];
        if p.dead_since.is_some() || life < p.guard_follows {
            return;
        }
        let local = p.clock.local(self.now);
        match order {
            Order::Arm(deadline) if !p.asterisk.is_running => {
                let _ = deadline;
                self.guard_says(pod, GuardEvent::Stopped);
            }
            Order::Arm(deadline) => self.arm(pod, local, deadline),
            Order::StartSlack(run) => self.start_slack(pod, run),
            Order::Stop => {
                p.asterisk.is_running = false;
                p.asterisk.deadline = None;
                p.asterisk.timer += 1;
                self.note_serving();
                self.guard_says(pod, GuardEvent::Stopped);
            }
            Order::Restart(deadline)
                if p.is_broken || Deadline::SLACK.judge(deadline.0, local.0) == Verdict::Passed =>
            {
                self.guard_says(pod, GuardEvent::Stopped);
            }
            Order::Restart(deadline) if p.asterisk.is_running => self.arm(pod, local, deadline),
            Order::Restart(deadline) => {
                self.start_asterisk(pod, Some(deadline));
                self.guard_says(pod, GuardEvent::Armed { deadline });
            }
        }
    }

    /// The kernel's timer: it asks nobody, whatever is paused.
    pub(super) fn kernel_kills(&mut self, pod: usize, timer: u64) {
        let p = &self.pods[pod];
        if p.asterisk.timer != timer || !p.asterisk.is_serving() {
            return;
        }
        let deadline = p.asterisk.deadline.expect("it serves");
        let due_at = p.clock.world(deadline);
        if due_at > self.now {
            // The machine stood still in between, and its timer with it.
            return self.at(due_at, Event::KernelKills { pod, timer });
        }
        self.kill_asterisk(pod);
    }

    pub(super) fn apply_call(&mut self, pod: usize, life: u32, id: CallId, call: &ApiCall) {
        let answer = self.api.apply(call);
        let delay = self.api_delay();
        let is_lost = self.pods[pod].api_cut_until > self.now
            || (self.weather.is_noisy && self.random.chance(3));
        if !is_lost {
            self.at(
                self.now + delay,
                Event::ApiAnswer {
                    pod,
                    life,
                    id,
                    answer,
                },
            );
        }
    }

    pub(super) fn end_pod(&mut self, pod: usize) {
        if self.pods[pod].dead_since.is_some() {
            return;
        }
        self.crash(pod);
        self.pods[pod].dead_since = Some(self.now);
        self.forgotten.push((self.now, pod));
        let seat = self.pods[pod].seat.0;
        if self.pod_in(seat) == pod {
            let at = self.now + self.random.between(500 * MS, 2 * SECOND);
            self.at(at, Event::NewPod { seat });
        }
    }

    /// Whether the sidecar ends by itself.
    fn note(&mut self, pod: usize, notice: Notice) -> bool {
        if notice == Notice::Left {
            self.pods[pod].is_terminating = true;
            self.at(self.now + 50 * MS, Event::EndPod { pod });
        }
        false
    }

    fn schedule_tick(&mut self, pod: usize) {
        let late = if self.weather.is_noisy {
            self.random.between(0, 2 * MS)
        } else {
            0
        };
        let p = &mut self.pods[pod];
        let Some(node) = &p.node else { return };
        p.tick_serial += 1;
        let serial = p.tick_serial;
        let at = p.clock.world(node.next_deadline());
        if at < u64::MAX {
            self.at(at.max(self.now) + late, Event::Tick { pod, serial });
        }
    }

    /// To whoever sits, or sat, at the address of the seat.
    fn send(&mut self, pod: usize, message: &Message) {
        self.messages += 1;
        let from = usize::from(self.pods[pod].seat.0);
        let to = usize::from(message.to.0);
        let loss = match (self.weather.lossy_until > self.now, self.weather.is_noisy) {
            (true, _) => 50,
            (false, true) => 2,
            (false, false) => 0,
        };
        for receiver in 0..self.pods.len() {
            let is_there =
                self.pods[receiver].seat == message.to && self.pods[receiver].dead_since.is_none();
            if is_there && self.cut_until[from][to] <= self.now && !self.random.chance(loss) {
                self.deliver_later(receiver, message);
            }
        }
    }

    fn deliver_later(&mut self, pod: usize, message: &Message) {
        let (low, high) = self.weather.network_us;
        let is_noisy = self.weather.is_noisy;
        let delay = if is_noisy && self.random.chance(1) {
            self.random.between(20 * MS, 4 * SECOND)
        } else {
            self.random.between(low, high) * 1_000
        };
        let event = Event::Deliver {
            pod,
            message: *message,
        };
        self.at(self.now + delay, event);
        if is_noisy && self.random.chance(2) {
            let delay = self.random.between(300_000, 5 * SECOND);
            self.at(self.now + delay, event);
        }
    }

    fn call(&mut self, pod: usize, id: CallId, call: ApiCall) {
        let life = self.pods[pod].life;
        let mut delay = self.api_delay();
        if self.weather.is_noisy && self.random.chance(3) {
            // Applied long after the client has given up.
            delay = self.random.between(100 * MS, 6 * SECOND);
        }
        if self.pods[pod].api_cut_until <= self.now {
            self.at(
                self.now + delay,
                Event::ApiApply {
                    pod,
                    life,
                    id,
                    call,
                },
            );
        }
    }

    fn api_delay(&mut self) -> u64 {
        let (low, high) = self.weather.api_us;
        self.random.between(low, high) * 1_000 / 2
    }

    pub(super) fn order(&mut self, pod: usize, order: Order) {
        let delay = self.random.between(50_000, MS);
        let at = (self.now + delay).max(self.pods[pod].guard_busy_until);
        self.pods[pod].guard_busy_until = at;
        let life = self.pods[pod].life;
        self.at(at, Event::GuardHears { pod, life, order });
    }

    fn guard_says(&mut self, pod: usize, event: GuardEvent) {
        let delay = self.random.between(50_000, MS);
        let at = (self.now + delay).max(self.pods[pod].guard_said_until);
        self.pods[pod].guard_said_until = at;
        let (life, run) = (self.pods[pod].life, self.pods[pod].asterisk.run);
        self.at(
            at,
            Event::GuardSays {
                pod,
                life,
                run,
                event,
            },
        );
    }

    /// The guard's own judgement: the timer takes only later deadlines, and refuses those that have passed.
    fn arm(&mut self, pod: usize, local: BootTime, deadline: BootTime) {
        let asterisk = &mut self.pods[pod].asterisk;
        let standing = asterisk
            .deadline
            .map_or(Deadline::SLACK, |at| Deadline::at(at.0));
        match standing.judge(deadline.0, local.0) {
            Verdict::Passed => return,
            Verdict::Covered => {}
            Verdict::Later => {
                asterisk.deadline = Some(deadline);
                asterisk.timer += 1;
                self.set_timer(pod, deadline);
            }
        }
        self.note_serving();
        self.guard_says(pod, GuardEvent::Armed { deadline });
    }

    fn set_timer(&mut self, pod: usize, deadline: BootTime) {
        let longest = self.timing.kill_margin.as_nanos() as u64 * 9 / 10;
        let latency = self.random.between(0, longest);
        let at = self.pods[pod].clock.world(deadline) + latency;
        let timer = self.pods[pod].asterisk.timer;
        self.at(at, Event::KernelKills { pod, timer });
    }

    fn start_asterisk(&mut self, pod: usize, deadline: Option<BootTime>) {
        let asterisk = &mut self.pods[pod].asterisk;
        asterisk.is_running = true;
        asterisk.deadline = deadline;
        asterisk.run += 1;
        asterisk.timer += 1;
        let run = asterisk.run;
        if let Some(deadline) = deadline {
            self.set_timer(pod, deadline);
        }
        self.at(self.now + BOOT, Event::Booted { pod, run });
        self.note_serving();
    }

    fn tell_condition(&mut self, pod: usize) {
        let condition = self.pods[pod].condition;
        self.input(pod, Input::Condition(condition));
    }
}
