//! What the sidecar's shell does in the world: the effects of its node, the orders of its driver.

use pbx_core::{
    ApiCall, CallId, Command, Condition, Effect, Holder, Input, Message, Notice, Seats,
};
use pbx_guard::driver::{GuardNote, Order};
use pbx_guard::protocol::{Command as GuardCommand, Event as Said};

use super::event::Event;
use super::{MS, SECOND, World};

impl World {
    /// Carries out the effects of a step, in order; a sidecar may die in the midst of them.
    pub(super) fn carry_out(&mut self, pod: usize, effects: &mut Vec<Effect>) {
        // Who loses effects dies of it, and in a pod that ends nobody starts it again.
        let may_die = !self.pods[pod].is_terminating;
        let dies = may_die && self.pods[pod].dies_midway && effects.len() > 1;
        if dies {
            let kept = self.random.between(0, effects.len() as u64) as usize;
            effects.truncate(kept);
        }
        let local = self.pods[pod].clock.local(self.now);
        let mut orders = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Record(record) => self.pods[pod].record = Some(record),
                Effect::Send(message) => self.send(pod, &message),
                Effect::Call { id, call } => self.call(pod, id, call),
                Effect::Arm { deadline } | Effect::RestartInPlace { deadline } => {
                    self.pods[pod].driver.arm(local, deadline, &mut orders);
                }
                Effect::Stop => self.pods[pod].driver.stop(&mut orders),
                Effect::Notice(notice) => {
                    if self.is_traced {
                        println!(
                            "{:>10.3} ms pod {pod} {notice:?}",
                            self.now as f64 / MS as f64
                        );
                    }
                    self.notices.push((self.now, pod, notice));
                    self.note(pod, notice);
                }
            }
        }
        // What was written to the guard's socket is on its way, whoever dies now.
        self.follow(pod, &orders);
        if dies {
            return self.kill_sidecar(pod, true);
        }
        self.schedule_tick(pod);
    }

    /// Carries out the orders of the driver.
    pub(super) fn follow(&mut self, pod: usize, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Send(command) => self.send_to_guard(pod, *command),
                Order::Core(event) => self.pods[pod].inputs.push_back(Input::Guard(*event)),
                Order::Note(note) => self.on_note(pod, note),
            }
        }
    }

    fn on_note(&mut self, pod: usize, note: &GuardNote) {
        let is_gone = matches!(note, GuardNote::Exited { .. } | GuardNote::Idle);
        if is_gone || *note == GuardNote::Ending {
            let p = &mut self.pods[pod];
            p.condition.is_ready = false;
            p.inputs.push_back(Input::Condition(p.condition));
        }
        if is_gone {
            self.start_slack_later(pod, 300 * MS);
        }
    }

    /// The sidecar's process dies; the guard starts it again within 50 ms.
    pub fn kill_sidecar(&mut self, pod: usize, keeps_record: bool) {
        let p = &mut self.pods[pod];
        p.end_sidecar();
        p.dies_midway = false;
        let at = self.now + self.random.between(5 * MS, 50 * MS);
        self.at(at, Event::SidecarUp { pod, keeps_record });
    }

    pub(super) fn start_slack_later(&mut self, pod: usize, delay: u64) {
        let run = self.pods[pod].asterisk.run;
        self.at(self.now + delay, Event::StartSlack { pod, run });
    }

    pub(super) fn start_slack(&mut self, pod: usize, run: u64) {
        let p = &mut self.pods[pod];
        if p.asterisk.run == run && p.node.is_some() && !p.is_terminating {
            let mut orders = Vec::new();
            p.driver.start_slack(&mut orders);
            self.follow(pod, &orders);
        }
    }

    pub(super) fn shell_hears(&mut self, pod: usize, connection: u32, said: Said) {
        let p = &mut self.pods[pod];
        if p.connection != connection || p.node.is_none() {
            return;
        }
        let local = p.clock.local(self.now);
        let mut orders = Vec::new();
        p.driver.on_event(local, said, &mut orders);
        self.follow(pod, &orders);
        self.settle(pod);
        self.schedule_tick(pod);
    }

    /// The connection to the guard is lost, with all that is on its way in it, and made anew.
    pub(super) fn lose_guard(&mut self, pod: usize) {
        let p = &mut self.pods[pod];
        if p.node.is_none() {
            return;
        }
        p.connection += 1;
        p.guard_follows = p.connection;
        p.driver.on_lost();
        let connection = p.connection;
        let at = self.now + self.random.between(MS, 25 * MS);
        self.at(at, Event::Reconnected { pod, connection });
    }

    pub(super) fn reconnected(&mut self, pod: usize, connection: u32) {
        let p = &self.pods[pod];
        if p.connection == connection && p.node.is_some() {
            self.send_to_guard(pod, GuardCommand::Hello);
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

    fn note(&mut self, pod: usize, notice: Notice) {
        if notice == Notice::Left {
            self.pods[pod].is_terminating = true;
            self.at(self.now + 50 * MS, Event::EndPod { pod });
        }
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
        let due = node.next_deadline();
        let due = p.driver.next_deadline().map_or(due, |at| at.min(due));
        let at = p.clock.world(due);
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

    fn send_to_guard(&mut self, pod: usize, command: GuardCommand) {
        let delay = self.random.between(50_000, MS);
        let p = &mut self.pods[pod];
        let at = (self.now + delay).max(p.guard_busy_until);
        p.guard_busy_until = at;
        let connection = p.connection;
        self.at(
            at,
            Event::GuardHears {
                pod,
                connection,
                command,
            },
        );
    }

    fn tell_condition(&mut self, pod: usize) {
        let condition = self.pods[pod].condition;
        self.input(pod, Input::Condition(condition));
    }
}
