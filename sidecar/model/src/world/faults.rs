//! What can go wrong in the world, and a random choice of it.

use std::time::Duration;

use pbx_core::{Cause, Command, Input, MAX_NODES, OnQuorumLoss, Timing};

use super::event::Event;
use super::pod::Pod;
use super::{MS, SECOND, World};

/// One fault. Durations in nanoseconds of the world.
#[allow(
    missing_docs,
    reason = "the names of fields and plain variants say what they are"
)]
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The machine stops and comes back, without its tmpfs.
    Crash {
        seat: u8,
        for_ns: u64,
    },
    /// The same to whoever serves.
    CrashActive {
        for_ns: u64,
    },
    /// The sidecar's process dies.
    Sidecar {
        seat: u8,
        keeps_record: bool,
    },
    /// It dies between two effects of one step.
    SidecarMidway {
        seat: u8,
    },
    /// All its processes stand still; the kernel goes on.
    Pause {
        seat: u8,
        for_ns: u64,
    },
    PauseActive {
        for_ns: u64,
    },
    /// The whole machine stands still: processes, clock and the kernel's timers.
    StopClock {
        seat: u8,
        for_ns: u64,
    },
    StopClockOfActive {
        for_ns: u64,
    },
    /// The guard alone stands still: orders reach it late.
    PauseGuard {
        seat: u8,
        for_ns: u64,
    },
    /// The sidecar's connection to its guard breaks, and is made anew.
    LoseGuard {
        seat: u8,
    },
    /// One way.
    Cut {
        from: u8,
        to: u8,
        for_ns: u64,
    },
    CutBoth {
        one: u8,
        other: u8,
        for_ns: u64,
    },
    /// Whoever serves is cut from peers and API.
    IsolateActive {
        for_ns: u64,
    },
    ApiCut {
        seat: u8,
        for_ns: u64,
    },
    ApiDown {
        for_ns: u64,
    },
    AsteriskDies {
        seat: u8,
    },
    ActiveAsteriskDies,
    Switchover,
    Lossy {
        for_ns: u64,
    },
    /// An orderly replacement: Leave, and the next pod.
    Roll {
        seat: u8,
    },
    /// The pod object is deleted by force: a new pod comes while the old one goes on, with or without the API.
    ForceReplace {
        seat: u8,
        keeps_api: bool,
        /// For how long the old one goes on.
        for_ns: u64,
    },
    /// A person asks for another number of nodes.
    Resize {
        nodes: u8,
    },
    /// The Lease is lost; the operator makes it anew after this time, from the copy of the map in the status.
    LeaseDeleted {
        for_ns: u64,
    },
}

/// Faults of a random world end here.
pub const FAULTS_END: u64 = 25 * SECOND;

/// A world with noise and random faults.
pub fn random_world(nodes: u8, seed: u64) -> World {
    let mut timing = Timing::default();
    if !seed.is_multiple_of(4) {
        timing.witness_hold_alone = Duration::from_secs(4);
    }
    troubled_world(nodes, seed, timing, (200, 5_000))
}

/// The same with the shortest timing that is allowed, on a network that is quick enough for it. For 3 or 5 nodes.
pub fn hasty_world(nodes: u8, seed: u64) -> World {
    let [keepalive, warntime, deadtime] = [5, 10, 30].map(Duration::from_millis);
    let timing = Timing::from_detection(keepalive, warntime, deadtime);
    troubled_world(nodes, seed, timing, (50, 400))
}

fn troubled_world(nodes: u8, seed: u64, timing: Timing, network_us: (u64, u64)) -> World {
    let mut world = World::with_timing(nodes, seed, timing);
    world.weather.is_noisy = true;
    world.weather.network_us = network_us;
    world.traffic_needs_api = seed.is_multiple_of(3);
    if seed % 7 == 3 {
        world.on_quorum_loss = OnQuorumLoss::Continue;
    }
    if seed % 5 == 4 {
        world.stop_clocks();
    }
    if seed % 6 == 5 {
        world.resize_at_random();
    }
    for _ in 0..4 + seed % 16 {
        let at = world.random.between(SECOND / 10, FAULTS_END - SECOND);
        let fault = world.random_fault();
        world.at(at, Event::Fault(fault));
    }
    world
}

/// The number of nodes with the same quorum (R13).
pub fn pair_of(nodes: u8) -> u8 {
    if nodes.is_multiple_of(2) {
        nodes + 1
    } else {
        nodes - 1
    }
}

impl World {
    /// To the other number of the pair and back, several times.
    fn resize_at_random(&mut self) {
        let mut nodes = self.nodes;
        for _ in 0..self.random.between(1, 4) {
            nodes = pair_of(nodes);
            let at = self.random.between(2 * SECOND, FAULTS_END - SECOND);
            self.at(at, Event::Fault(Fault::Resize { nodes }));
        }
    }

    /// Whole machines stand still, above all the one that serves.
    fn stop_clocks(&mut self) {
        for _ in 0..self.random.between(1, 4) {
            let at = self.random.between(3 * SECOND, FAULTS_END - SECOND);
            let for_ns = self.random.between(200 * MS, 5 * SECOND);
            let seat = self.random.between(0, self.nodes.into()) as u8;
            let fault = if self.random.chance(70) {
                Fault::StopClockOfActive { for_ns }
            } else {
                Fault::StopClock { seat, for_ns }
            };
            self.at(at, Event::Fault(fault));
        }
    }

    /// A random fault for this world.
    pub fn random_fault(&mut self) -> Fault {
        let nodes = u64::from(self.nodes);
        let seat = self.random.between(0, nodes) as u8;
        let other = ((u64::from(seat) + self.random.between(1, nodes)) % nodes) as u8;
        let long = self.random.chance(50);
        let for_ns = if long {
            self.random.between(200 * MS, 9 * SECOND)
        } else {
            self.random.between(20 * MS, 2 * SECOND)
        };
        match self.random.between(0, 23) {
            0 => Fault::Crash { seat, for_ns },
            1 => Fault::CrashActive { for_ns },
            2 => Fault::Sidecar {
                seat,
                keeps_record: true,
            },
            3 => Fault::Sidecar {
                seat,
                keeps_record: false,
            },
            4 | 19 => Fault::SidecarMidway { seat },
            5 => Fault::Pause { seat, for_ns },
            6 => Fault::PauseActive { for_ns },
            7 => Fault::Cut {
                from: seat,
                to: other,
                for_ns,
            },
            8 | 9 => Fault::CutBoth {
                one: seat,
                other,
                for_ns,
            },
            10 => Fault::IsolateActive { for_ns },
            11 => Fault::ApiCut { seat, for_ns },
            12 => Fault::ApiDown { for_ns },
            13 => Fault::AsteriskDies { seat },
            14 => Fault::ActiveAsteriskDies,
            16 => Fault::Lossy { for_ns },
            17 => Fault::Roll { seat },
            18 => Fault::ForceReplace {
                seat,
                keeps_api: long,
                for_ns: for_ns * 3,
            },
            20 => Fault::LeaseDeleted { for_ns: for_ns / 4 },
            21 => Fault::PauseGuard { seat, for_ns },
            22 => Fault::LoseGuard { seat },
            _ => Fault::Switchover,
        }
    }

    fn api_down(&mut self, for_ns: u64) {
        for pod in &mut self.pods {
            pod.api_cut_until = pod.api_cut_until.max(self.now + for_ns);
        }
    }

    /// Makes it happen now.
    pub fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Crash { seat, for_ns } => self.crash_for(self.pod_in(seat), for_ns),
            Fault::CrashActive { for_ns } => {
                self.active_suffers(|world, pod| world.crash_for(pod, for_ns));
            }
            Fault::Sidecar { seat, keeps_record } => {
                let pod = self.pod_in(seat);
                if self.pods[pod].node.is_some() {
                    self.kill_sidecar(pod, keeps_record);
                }
            }
            Fault::SidecarMidway { seat } => {
                let pod = self.pod_in(seat);
                self.pods[pod].dies_midway = true;
            }
            Fault::Pause { seat, for_ns } => self.pause(self.pod_in(seat), for_ns),
            Fault::PauseActive { for_ns } => {
                self.active_suffers(|world, pod| world.pause(pod, for_ns));
            }
            Fault::StopClock { seat, for_ns } => self.stop_clock(self.pod_in(seat), for_ns),
            Fault::StopClockOfActive { for_ns } => {
                self.active_suffers(|world, pod| world.stop_clock(pod, for_ns));
            }
            Fault::PauseGuard { seat, for_ns } => {
                self.pause_guard(self.pod_in(seat), for_ns);
            }
            Fault::LoseGuard { seat } => self.lose_guard(self.pod_in(seat)),
            Fault::Cut { from, to, for_ns } => self.cut(from, to, for_ns),
            Fault::CutBoth { one, other, for_ns } => {
                self.cut(one, other, for_ns);
                self.cut(other, one, for_ns);
            }
            Fault::IsolateActive { for_ns } => {
                self.active_suffers(|world, pod| world.isolate(pod, for_ns));
            }
            Fault::ApiCut { seat, for_ns } => {
                let pod = self.pod_in(seat);
                self.pods[pod].api_cut_until = self.now + for_ns;
            }
            Fault::ApiDown { for_ns } => self.api_down(for_ns),
            Fault::AsteriskDies { seat } => self.kill_asterisk(self.pod_in(seat)),
            Fault::ActiveAsteriskDies => self.active_suffers(World::kill_asterisk),
            Fault::Switchover => self.active_suffers(|world, pod| {
                world.switchovers += 1;
                let command = Command::Switchover {
                    to: None,
                    cause: Cause::Switchover,
                };
                world.command(pod, command);
            }),
            Fault::Lossy { for_ns } => self.weather.lossy_until = self.now + for_ns,
            Fault::Roll { seat } => self.roll(self.pod_in(seat)),
            Fault::ForceReplace {
                seat,
                keeps_api,
                for_ns,
            } => self.force_replace(seat, keeps_api, for_ns),
            Fault::Resize { nodes } => {
                self.wanted_nodes = nodes;
                self.has_resized = true;
            }
            Fault::LeaseDeleted { for_ns } => {
                if self.api.lease.take().is_some() {
                    self.at(self.now + for_ns, Event::NewLease);
                }
            }
        }
    }

    /// Everything that was broken is whole again; old occupants are certainly gone. A pause that has begun goes on
    /// to its end: what was held up by it must not be overtaken.
    pub fn heal(&mut self) {
        self.healed_at = Some(self.now);
        self.weather.is_noisy = false;
        self.weather.lossy_until = 0;
        self.cut_until
            .iter_mut()
            .flatten()
            .for_each(|until| *until = 0);
        for pod in 0..self.pods.len() {
            self.pods[pod].dies_midway = false;
            let is_old = self.pod_in(self.pods[pod].seat.0) != pod;
            if is_old {
                self.end_pod(pod);
            } else {
                self.pods[pod].api_cut_until = 0;
            }
        }
    }

    /// A command to a pod's node, lost while it is paused.
    pub fn command(&mut self, pod: usize, command: Command) {
        if self.pods[pod].paused_until <= self.now {
            self.input(pod, Input::Command(command));
        }
    }

    /// As kubelet does: told to leave, ended when it has left or its grace is over.
    pub fn roll(&mut self, pod: usize) {
        if self.pods[pod].is_terminating || self.pods[pod].dead_since.is_some() {
            return;
        }
        self.pods[pod].is_terminating = true;
        self.departures += 1;
        self.command(pod, Command::Leave);
        self.at(self.now + 12 * SECOND, Event::EndPod { pod });
    }

    /// Again and again, but in one seat at a time: more would need the remaining node that the rule is about.
    fn force_replace(&mut self, seat: u8, keeps_api: bool, for_ns: u64) {
        let is_old_elsewhere = (0..self.pods.len()).any(|pod| {
            let Pod {
                seat: own,
                dead_since,
                ..
            } = &self.pods[pod];
            own.0 != seat && dead_since.is_none() && self.pod_in(own.0) != pod
        });
        let old = self.pod_in(seat);
        if is_old_elsewhere || self.pods[old].dead_since.is_some() {
            return;
        }
        if !keeps_api {
            self.pods[old].api_cut_until = u64::MAX;
        }
        self.departures += 1;
        self.at(self.now + for_ns, Event::EndPod { pod: old });
        self.new_pod(seat);
    }

    fn active_suffers(&mut self, inflict: impl FnOnce(&mut World, usize)) {
        if let Some(pod) = self.active() {
            inflict(self, pod);
        }
    }

    fn crash_for(&mut self, pod: usize, for_ns: u64) {
        if self.pods[pod].node.is_some() && self.pods[pod].dead_since.is_none() {
            self.crash(pod);
            self.at(
                self.now + for_ns,
                Event::SidecarUp {
                    pod,
                    keeps_record: false,
                },
            );
        }
    }

    /// What stands still already, stands still to the later end: its clock may have been stopped with it.
    fn pause(&mut self, pod: usize, for_ns: u64) {
        let until = self.now + for_ns;
        let p = &mut self.pods[pod];
        p.paused_until = p.paused_until.max(until);
    }

    fn pause_guard(&mut self, pod: usize, for_ns: u64) {
        let until = self.now + for_ns;
        let p = &mut self.pods[pod];
        p.guard_paused_until = p.guard_paused_until.max(until);
    }

    /// What was due on its clock is due that much later, the kernel's kill included.
    fn stop_clock(&mut self, pod: usize, for_ns: u64) {
        let p = &mut self.pods[pod];
        if p.paused_until > self.now {
            return;
        }
        let until = self.now + for_ns;
        // As its clock counts: at its end it shows what it showed at the beginning.
        p.clock.offset -= p.clock.local(until).0 - p.clock.local(self.now).0;
        p.paused_until = p.paused_until.max(until);
        p.guard_paused_until = p.guard_paused_until.max(until);
        let timing = &self.timing;
        let longest = timing.witness_hold_alone.max(timing.deadtime);
        p.behind_until = p.clock.local(until).after(longest);
        self.clock_stops += 1;
        self.thawed_at = self.thawed_at.max(until);
    }

    fn cut(&mut self, from: u8, to: u8, for_ns: u64) {
        self.cut_until[usize::from(from)][usize::from(to)] = self.now + for_ns;
    }

    fn isolate(&mut self, pod: usize, for_ns: u64) {
        let seat = self.pods[pod].seat.0;
        for other in 0..MAX_NODES as u8 {
            self.cut(seat, other, for_ns);
            self.cut(other, seat, for_ns);
        }
        self.pods[pod].api_cut_until = self.now + for_ns;
    }
}
