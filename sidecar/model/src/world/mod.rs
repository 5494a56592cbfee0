//! A deterministic virtual world around real nodes: clocks, network, API server, kernels, a StatefulSet and an operator.
//!
//! The world counts as *serving* every Asterisk that is alive under an armed leash, whether or not its node has
//! been told so: that is stricter than I1. What it leaves out: traffic, and whatever rests on it.

#![allow(
    clippy::large_types_passed_by_value,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a world is small and its times far from the limits"
)]

pub mod api;
pub mod event;
pub mod faults;
mod guard;
mod operator;
pub mod pod;
pub mod random;
mod serving;
mod shell;
mod trace;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use pbx_core::{
    BootTime, Condition, Effect, Epoch, Incarnation, Input, MAX_NODES, Node, Notice, Occupant,
    OnQuorumLoss, Seat, Seats, Settings, Start, Timing,
};

use pbx_guard::driver::{Driver, found};

use api::Api;
use event::{Event, Weather};
use guard::Process;
use pod::Pod;
use random::{Clock, Random};

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000 * MS;

/// The world: what there is, and what will happen when.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct World {
    /// Nanoseconds since it began; no node sees this clock.
    pub now: u64,
    /// All chance in it.
    pub random: Random,
    /// Of all nodes.
    pub timing: Timing,
    /// The number that the world begins with.
    pub nodes: u8,
    /// The number that is asked for now.
    pub wanted_nodes: u8,
    /// The operator changes the number of seats without waiting for the vote that goes (R13 dropped).
    pub resizes_early: bool,
    /// The operator's watch of the Lease: uid, version, since when it is unchanged.
    pub lease_watched: (u128, u64, u64),
    /// Another number was asked for at least once.
    pub has_resized: bool,
    /// As in [`Settings`].
    pub traffic_needs_api: bool,
    /// As in [`Settings`].
    pub preferred_seat: Option<Seat>,
    /// As in [`Settings`].
    pub on_quorum_loss: OnQuorumLoss,
    /// All that ever were.
    pub pods: Vec<Pod>,
    /// The API server.
    pub api: Api,
    /// The operator's copy of the seat map, in the status: what a lost Lease is made from.
    pub status: Seats,
    /// The highest epoch that the operator has been told of, in the status too.
    pub status_epoch: Epoch,
    /// The status has a number of seats that the Lease may not have yet.
    pub is_status_ahead: bool,
    /// Network and API.
    pub weather: Weather,
    /// Directed, by seat: no message passes until then.
    pub cut_until: Vec<Vec<u64>>,
    /// All notices: when, which pod.
    pub notices: Vec<(u64, usize, Notice)>,
    /// When whose memory was lost: a start without a record, an end.
    pub forgotten: Vec<(u64, usize)>,
    /// Sent so far.
    pub messages: u64,
    /// Inputs that nodes took so far.
    pub steps: u64,
    /// Switchovers that were ordered.
    pub switchovers: u64,
    /// Pods that were told to go, or replaced, or may find themselves outside of a Lease made anew.
    pub departures: u64,
    /// Machines that stood still, clock and all.
    pub clock_stops: u64,
    /// When two that served were last one again.
    pub contended_until: u64,
    /// For how long two served at most since all was healed and everybody thawed.
    pub longest_contention: u64,
    /// Since when nothing is broken any more.
    pub healed_at: Option<u64>,
    /// All pauses that were begun end here.
    pub thawed_at: u64,
    /// Prints what happens, for whoever looks into a seed.
    pub is_traced: bool,
    /// The first moment when two served, and who.
    pub overlap: Option<(u64, Vec<usize>)>,
    /// Since when, and who, or nobody, serves.
    pub serving_since: (u64, Option<usize>),
    /// The longest time without service since it was cleared.
    pub longest_gap: u64,
    contended_since: Option<u64>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    serial: u64,
    effects: Vec<Effect>,
}

impl World {
    /// A fresh cluster: the Lease is made, the pods boot within 20 ms of each other.
    pub fn new(nodes: u8, seed: u64) -> Self {
        Self::with_timing(nodes, seed, Timing::default())
    }

    /// The same with another timing.
    pub fn with_timing(nodes: u8, seed: u64, timing: Timing) -> Self {
        let weather = Weather {
            is_noisy: false,
            lossy_until: 0,
            network_us: (100, 1_000),
            api_us: (4_000, 30_000),
        };
        let mut world = Self {
            now: 0,
            random: Random::new(seed),
            timing,
            nodes,
            wanted_nodes: nodes,
            resizes_early: false,
            lease_watched: (0, 0, 0),
            has_resized: false,
            traffic_needs_api: false,
            preferred_seat: None,
            on_quorum_loss: OnQuorumLoss::Demote,
            pods: Vec::new(),
            api: Api::new(nodes, timing.witness_hold_alone),
            status: Api::empty_seats(nodes),
            status_epoch: Epoch(0),
            is_status_ahead: false,
            weather,
            cut_until: vec![vec![0; MAX_NODES]; MAX_NODES],
            notices: Vec::new(),
            forgotten: Vec::new(),
            messages: 0,
            steps: 0,
            switchovers: 0,
            departures: 0,
            clock_stops: 0,
            contended_until: 0,
            longest_contention: 0,
            healed_at: None,
            thawed_at: 0,
            is_traced: false,
            overlap: None,
            serving_since: (0, None),
            longest_gap: 0,
            contended_since: None,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            serial: 0,
            effects: Vec::new(),
        };
        for seat in 0..nodes {
            let at = world.random.between(0, 20 * MS);
            world.at(at, Event::NewPod { seat });
        }
        world.at(500 * MS, Event::Operator);
        world
    }

    /// Queues an event.
    pub fn at(&mut self, at: u64, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, place)));
    }

    /// Runs for so many milliseconds of the world.
    pub fn run_for(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds * MS;
        self.run_until(end);
    }

    /// Runs until this moment of the world.
    pub fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, _, place))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.free.push(place);
            let event = self.events[place].take().expect("queued once");
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = end;
    }

    /// Runs until the condition holds, at most so many milliseconds; how long it took.
    pub fn run_until_that(
        &mut self,
        limit_ms: u64,
        is_done: impl Fn(&World) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while self.now < start + limit_ms * MS {
            if is_done(self) {
                return Some(Duration::from_nanos(self.now - start));
            }
            let next = self.now + MS / 4;
            self.run_until(next);
        }
        None
    }

    /// All whose Asterisk is armed and alive.
    pub fn serving(&self) -> Vec<usize> {
        (0..self.pods.len())
            .filter(|pod| self.pods[*pod].asterisk.is_serving())
            .collect()
    }

    /// The one that serves.
    pub fn active(&self) -> Option<usize> {
        self.serving().first().copied()
    }

    /// The pod that the StatefulSet has in a seat now.
    pub fn pod_in(&self, seat: u8) -> usize {
        (0..self.pods.len())
            .rev()
            .find(|pod| self.pods[*pod].seat == Seat(seat))
            .expect("a pod")
    }

    /// The pod that the StatefulSet has in a seat lives, or may come back.
    pub fn is_inhabited(&self, seat: u8) -> bool {
        let mut pods = self.pods.iter().rev();
        let newest = pods.find(|pod| pod.seat == Seat(seat));
        newest.is_some_and(|pod| pod.dead_since.is_none())
    }

    /// A pod's running node.
    pub fn node(&self, pod: usize) -> &Node {
        self.pods[pod].node.as_ref().expect("the sidecar runs")
    }

    /// One input to a pod's node, and what follows in the same step.
    pub fn input(&mut self, pod: usize, input: Input) {
        self.pods[pod].inputs.push_back(input);
        self.settle(pod);
    }

    /// Tells the node what waits for it, one after the other: effects before the next input, as the daemon does it.
    fn settle(&mut self, pod: usize) {
        if std::mem::replace(&mut self.pods[pod].is_stepping, true) {
            return;
        }
        let local = self.pods[pod].clock.local(self.now);
        let mut effects = std::mem::take(&mut self.effects);
        while let Some(input) = self.pods[pod].inputs.pop_front() {
            let Some(node) = self.pods[pod].node.as_mut() else {
                continue;
            };
            effects.clear();
            node.step(local, input, &mut effects);
            self.steps += 1;
            self.carry_out(pod, &mut effects);
        }
        self.effects = effects;
        self.pods[pod].is_stepping = false;
    }

    /// The `StatefulSet` makes a pod: new identity, new machine, new clock.
    pub fn new_pod(&mut self, seat: u8) -> usize {
        // Room for clocks that stand still.
        let offset = 1_000 * SECOND + self.random.between(SECOND, 1_000 * SECOND);
        let drift = i64::from(self.timing.clock_drift_ppm);
        let random = self.random.between(0, 2 * drift as u64 + 1) as i64 - drift;
        let rate_ppm = self.random.pick(&[-drift, drift, random]);
        let occupant = Occupant(1_000 + self.pods.len() as u128);
        self.pods.push(Pod {
            seat: Seat(seat),
            occupant,
            clock: Clock { offset, rate_ppm },
            node: None,
            driver: Driver::default(),
            inputs: VecDeque::new(),
            is_stepping: false,
            life: 0,
            record: None,
            asterisk: Process::default(),
            condition: Condition::default(),
            dead_since: None,
            paused_until: 0,
            behind_until: BootTime::default(),
            guard_paused_until: 0,
            connection: 0,
            guard_follows: 0,
            api_cut_until: 0,
            is_terminating: false,
            dies_midway: false,
            tick_serial: 0,
            guard_busy_until: 0,
            guard_said_until: 0,
            rank: 0,
        });
        let pod = self.pods.len() - 1;
        self.start_sidecar(pod, false);
        self.start_slack_later(pod, 50 * MS);
        self.at(self.now + 10 * MS, Event::ShellLooks { pod });
        pod
    }

    /// The guard starts the sidecar again.
    pub fn start_sidecar(&mut self, pod: usize, keeps_record: bool) {
        // The wall clock may be behind that of the former life.
        let wall = if self.random.chance(10) {
            self.now / 2
        } else {
            self.now
        };
        let first = self.guard_state(pod);
        let p = &mut self.pods[pod];
        if p.dead_since.is_some() {
            return;
        }
        p.life += 1;
        p.connection += 1;
        p.guard_follows = p.connection;
        p.driver = Driver::default();
        p.inputs.clear();
        p.record = p.record.filter(|_| keeps_record);
        let has_forgotten = p.record.is_none();
        p.condition = Condition {
            rank: p.rank,
            ..Condition::default()
        };
        let settings = Settings {
            seat: p.seat,
            occupant: p.occupant,
            nodes: self.wanted_nodes.max(p.seat.0 + 1),
            timing: self.timing,
            traffic_needs_api: self.traffic_needs_api,
            preferred_seat: self.preferred_seat,
            on_quorum_loss: self.on_quorum_loss,
            fixed_seats: None,
        };
        let start = Start {
            now: p.clock.local(self.now),
            incarnation: Incarnation(wall + u64::from(p.life) + 1),
            record: p.record,
            guard: found(&first),
        };
        if has_forgotten {
            self.forgotten.push((self.now, pod));
        }
        let mut effects = Vec::new();
        p.node = Some(Node::new(settings, start, &mut effects));
        let mut orders = Vec::new();
        p.driver.on_event(start.now, first, &mut orders);
        self.carry_out(pod, &mut effects);
        self.follow(pod, &orders);
        self.settle(pod);
        if self.pods[pod].asterisk.is_running {
            let run = self.pods[pod].asterisk.run;
            self.at(self.now + 30 * MS, Event::Booted { pod, run });
        } else {
            self.start_slack_later(pod, 300 * MS);
        }
    }

    /// The machine stops: Asterisk is dead, tmpfs is lost.
    pub fn crash(&mut self, pod: usize) {
        let p = &mut self.pods[pod];
        p.end_sidecar();
        p.record = None;
        p.paused_until = 0;
        p.guard_paused_until = 0;
        p.guard_follows = p.connection;
        self.kill_asterisk(pod);
        self.pods[pod].asterisk.is_held = false;
    }

    fn happen(&mut self, event: Event) {
        if let Some(until) = self.postponed(&event) {
            return self.at(until, event);
        }
        if self.is_traced {
            self.trace(&event);
        }
        match event {
            Event::Tick { pod, serial } if serial == self.pods[pod].tick_serial => self.tick(pod),
            Event::Tick { .. } => {}
            Event::Deliver { pod, message } => self.input(pod, Input::Message(message)),
            Event::ApiApply {
                pod,
                life,
                id,
                call,
            } => self.apply_call(pod, life, id, &call),
            Event::ApiAnswer {
                pod,
                life,
                id,
                answer,
            } => {
                if self.pods[pod].life == life {
                    self.input(pod, Input::Api { call: id, answer });
                }
            }
            Event::GuardHears {
                pod,
                connection,
                command,
            } => self.guard_hears(pod, connection, command),
            Event::GuardSees { pod, run } => self.guard_sees(pod, run),
            Event::GuardReaps { pod, run } => self.guard_reaps(pod, run),
            Event::GuardSays {
                pod,
                connection,
                said,
            } => self.shell_hears(pod, connection, said),
            Event::Reconnected { pod, connection } => self.reconnected(pod, connection),
            Event::KernelKills { pod, timer } => self.kernel_kills(pod, timer),
            Event::StartSlack { pod, run } => self.start_slack(pod, run),
            Event::Booted { pod, run } => self.shell_is_ready(pod, run),
            Event::SidecarUp { pod, keeps_record } => self.start_sidecar(pod, keeps_record),
            Event::ShellLooks { pod } => self.shell_looks(pod),
            Event::Operator => self.operate(),
            Event::NewPod { seat } => {
                if seat < self.wanted_nodes && !self.is_inhabited(seat) {
                    self.new_pod(seat);
                }
            }
            Event::NewLease => self.new_lease(),
            Event::EndPod { pod } => self.end_pod(pod),
            Event::Fault(fault) => self.inflict(fault),
        }
    }

    fn tick(&mut self, pod: usize) {
        let p = &mut self.pods[pod];
        if p.node.is_some() {
            let mut orders = Vec::new();
            p.driver.on_tick(p.clock.local(self.now), &mut orders);
            self.follow(pod, &orders);
        }
        self.input(pod, Input::Tick);
    }

    /// A paused process gets everything when it is thawed, in order.
    fn postponed(&self, event: &Event) -> Option<u64> {
        if let Event::GuardHears { pod, .. }
        | Event::GuardSees { pod, .. }
        | Event::GuardReaps { pod, .. }
        | Event::SidecarUp { pod, .. } = event
        {
            let p = &self.pods[*pod];
            return Some(p.paused_until.max(p.guard_paused_until))
                .filter(|until| *until > self.now);
        }
        let (Event::Tick { pod, .. }
        | Event::Deliver { pod, .. }
        | Event::ApiAnswer { pod, .. }
        | Event::GuardSays { pod, .. }
        | Event::Reconnected { pod, .. }
        | Event::StartSlack { pod, .. }
        | Event::ShellLooks { pod }
        | Event::Booted { pod, .. }) = event
        else {
            return None;
        };
        Some(self.pods[*pod].paused_until).filter(|until| *until > self.now)
    }
}
