//! A random world from its seed to its verdict, and many of them on all cores.
//!
//! Each world suffers its faults for 25 s, is healed, and has then to serve within [`RECOVERY`] and to stay as it is.
//! Checked on every step: I1, and the core's own invariants; at the end: I2, I3 and I4.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pbx_core::{Cause, Epoch, Notice, OnQuorumLoss};

use crate::world::faults::FAULTS_END;
use crate::world::pod::Pod;
use crate::world::{MS, World};

/// Within this time of the last fault somebody serves: the longest hold of the witness, watched, and a start.
pub const RECOVERY: Duration = Duration::from_secs(22);

/// After the last fault, and the last thaw, two serve for no longer than this. Nodes that know each other need milliseconds; a
/// stranger, whose pod was replaced meanwhile, is looked up in the Lease every two seconds at most.
pub const CONTENTION: Duration = Duration::from_secs(3);

/// From the recovery to the end: a newly made Lease is watched and freed, replaced pods are seated.
const SETTLING_MS: u64 = 25_000;
/// At the very end: nothing may move, and nothing be written.
const CALM_MS: u64 = 5_000;

/// What a world came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Inputs that nodes took.
    pub steps: u64,
    /// Promotions.
    pub promotions: u64,
    /// From the last fault to service.
    pub recovery: Duration,
}

/// What is wrong with a world.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// I1.
    #[error("I1: pods {pods:?} served together at {at_ms} ms")]
    TwoServe {
        /// Of the world.
        at_ms: u64,
        /// Who.
        pods: Vec<usize>,
    },
    /// I2.
    #[error("I2: epoch {} was promoted by the pods {pods:?}", epoch.0)]
    EpochTwice {
        /// Which.
        epoch: Epoch,
        /// By whom.
        pods: (usize, usize),
    },
    /// I3.
    #[error("I3: {promotions} promotions because of {cause:?}, ordered were {ordered}")]
    MoveWithoutCause {
        /// As said.
        cause: Cause,
        /// How many.
        promotions: u64,
        /// How many there should be at most.
        ordered: u64,
    },
    /// I4.
    #[error("I4: {writes} writes to the API in a calm time")]
    WritesInPeace {
        /// How many.
        writes: u64,
    },
    /// R15: nobody stops for a rival where there is none.
    #[error("R15: pod {pod} gave way at {at_ms} ms, and no clock ever stood still")]
    NoRival {
        /// Which.
        pod: usize,
        /// Of the world.
        at_ms: u64,
    },
    /// R15: two that serve find out as soon as they can.
    #[error("R15: two serve for {for_ms} ms after they could know")]
    StillTwo {
        /// How long.
        for_ms: u64,
    },
    /// R13.
    #[error("R13: {wanted} nodes were asked for, the Lease has {count:?}")]
    NotResized {
        /// In the end.
        wanted: u8,
        /// There.
        count: Option<u8>,
    },
    /// No progress.
    #[error("nobody serves {RECOVERY:?} after the last fault")]
    NobodyServes,
    /// No peace.
    #[error(
        "it still moves at the end: serving {serving:?}, promotions in the calm time {promotions}"
    )]
    Unstable {
        /// Who.
        serving: Vec<usize>,
        /// How many.
        promotions: usize,
    },
    /// The core's own invariants, and anything else that ends a sidecar.
    #[error("a node broke: {0}")]
    Panicked(String),
}

/// A world that failed: the same two numbers give it again.
#[derive(Clone, Debug)]
pub struct FailedSeed {
    /// The configured number of nodes.
    pub nodes: u8,
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub failure: Failure,
}

impl fmt::Display for FailedSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nodes,
            seed,
            failure,
        } = self;
        write!(f, "nodes {nodes} seed {seed}: {failure}")
    }
}

/// All worlds together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many were run.
    pub worlds: u64,
    /// Their inputs.
    pub steps: u64,
    /// Their promotions.
    pub promotions: u64,
    /// The longest recovery, and whose.
    pub worst: Option<(Duration, u8, u64)>,
    /// Those that failed, in no order.
    pub failed: Vec<FailedSeed>,
}

/// Makes a world of so many nodes from a seed, as [`crate::world::faults`] does.
pub type MakeWorld = fn(u8, u64) -> World;

/// Runs one world to its end; with `is_traced`, prints what happens in it.
pub fn run_world(
    make: MakeWorld,
    nodes: u8,
    seed: u64,
    is_traced: bool,
) -> Result<Outcome, Failure> {
    let mut world = make(nodes, seed);
    world.is_traced = is_traced;
    let run = catch_unwind(AssertUnwindSafe(|| run_to_verdict(&mut world)));
    run.unwrap_or_else(|panic| Err(Failure::Panicked(message_of(panic.as_ref()))))
}

/// Runs the seeds for each number of nodes on so many threads; `report` is told now and then how many are done.
pub fn run_many(
    make: MakeWorld,
    nodes: &[u8],
    seeds: Range<u64>,
    threads: usize,
    report: impl Fn(u64) + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            for count in nodes {
                let result = run_world(make, *count, seed, false);
                let mut summary = summary.lock().expect("no thread panics with it");
                summary.add(*count, seed, result);
            }
            if (seed - seeds.start) % 1_000 == 999 {
                report(seed - seeds.start + 1);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    summary.into_inner().expect("no thread panics with it")
}

impl Summary {
    fn add(&mut self, nodes: u8, seed: u64, result: Result<Outcome, Failure>) {
        self.worlds += 1;
        match result {
            Ok(outcome) => {
                self.steps += outcome.steps;
                self.promotions += outcome.promotions;
                self.worst = self.worst.max(Some((outcome.recovery, nodes, seed)));
            }
            Err(failure) => self.failed.push(FailedSeed {
                nodes,
                seed,
                failure,
            }),
        }
    }
}

fn run_to_verdict(world: &mut World) -> Result<Outcome, Failure> {
    world.run_until(FAULTS_END);
    world.heal();
    let healed_at = world.now;
    let recovery = world.run_until_that(RECOVERY.as_millis() as u64, |world| {
        world.active().is_some()
    });
    let recovery = recovery.ok_or(Failure::NobodyServes)?;
    world.run_until(healed_at + (RECOVERY.as_millis() as u64 + SETTLING_MS) * MS);
    let (promoted, writes) = (promotions(world).count(), world.api.writes);
    world.run_for(CALM_MS);
    check_single(world)?;
    check_count(world)?;
    check_calm(world, promoted, writes)?;
    check_epochs(world)?;
    check_causes(world)?;
    check_rivals(world)?;
    Ok(Outcome {
        steps: world.steps,
        promotions: promotions(world).count() as u64,
        recovery,
    })
}

fn check_single(world: &World) -> Result<(), Failure> {
    match &world.overlap {
        None => Ok(()),
        Some((at, pods)) => Err(Failure::TwoServe {
            at_ms: at / MS,
            pods: pods.clone(),
        }),
    }
}

/// The number of nodes that was asked for last came to be, in the Lease and in what all go by (R13).
fn check_count(world: &World) -> Result<(), Failure> {
    let wanted = world.wanted_nodes;
    let in_lease = world.api.lease.map(|lease| lease.content.seats.count);
    let is_followed = |pod: &Pod| {
        let seats = pod
            .node
            .as_ref()
            .map(|node| node.view(pod.clock.local(world.now)).seats);
        seats.is_none_or(|seats| seats.is_some_and(|seats| seats.count == wanted))
    };
    let are_there = (0..wanted).all(|seat| world.is_inhabited(seat));
    if in_lease == Some(wanted) && are_there && world.pods.iter().all(is_followed) {
        return Ok(());
    }
    Err(Failure::NotResized {
        wanted,
        count: in_lease,
    })
}

fn check_calm(world: &World, promoted: usize, writes: u64) -> Result<(), Failure> {
    let promotions = promotions(world).count() - promoted;
    let serving = world.serving();
    let (since, _) = world.serving_since;
    if serving.len() != 1 || promotions > 0 || since + CALM_MS * MS > world.now {
        return Err(Failure::Unstable {
            serving,
            promotions,
        });
    }
    match world.api.writes - writes {
        0 => Ok(()),
        writes => Err(Failure::WritesInPeace { writes }),
    }
}

/// Each epoch names one active, as long as nobody who saw it has lost its memory (I2).
fn check_epochs(world: &World) -> Result<(), Failure> {
    let mut seen = HashMap::new();
    for promotion in promotions(world) {
        let Some(before) = seen.insert(promotion.epoch, promotion) else {
            continue;
        };
        let between = before.at..=promotion.at;
        if !world.forgotten.iter().any(|(at, _)| between.contains(at)) {
            return Err(Failure::EpochTwice {
                epoch: promotion.epoch,
                pods: (before.pod, promotion.pod),
            });
        }
    }
    Ok(())
}

/// A planned move was ordered by somebody (I3).
fn check_causes(world: &World) -> Result<(), Failure> {
    for (cause, ordered) in [
        (Cause::Switchover, world.switchovers),
        (Cause::PodDeleted, world.departures),
        (Cause::Drill, 0),
        (Cause::Preferred, 0),
    ] {
        let is_such = |promotion: &Promotion| promotion.cause == cause;
        let promotions = promotions(world).filter(is_such).count() as u64;
        if promotions > ordered {
            return Err(Failure::MoveWithoutCause {
                cause,
                promotions,
                ordered,
            });
        }
    }
    Ok(())
}

/// Two serve only where a clock stood still, or where quorum is not asked for, and not for long after they can hear each other (R15).
fn check_rivals(world: &World) -> Result<(), Failure> {
    if world.longest_contention > CONTENTION.as_nanos() as u64 {
        let for_ms = world.longest_contention / MS;
        return Err(Failure::StillTwo { for_ms });
    }
    let gives_way = |notice: &Notice| matches!(notice, Notice::Demoted { cause, .. } if *cause == Cause::Contention);
    let first = world
        .notices
        .iter()
        .find(|(.., notice)| gives_way(notice))
        .filter(|_| world.clock_stops == 0 && world.on_quorum_loss == OnQuorumLoss::Demote);
    match first {
        Some((at, pod, _)) => Err(Failure::NoRival {
            pod: *pod,
            at_ms: at / MS,
        }),
        None => Ok(()),
    }
}

#[derive(Clone, Copy)]
struct Promotion {
    at: u64,
    pod: usize,
    epoch: Epoch,
    cause: Cause,
}

fn promotions(world: &World) -> impl Iterator<Item = Promotion> {
    let promotion = |(at, pod, notice): &(u64, usize, Notice)| match *notice {
        Notice::Promoted { epoch, cause, .. } => Some(Promotion {
            at: *at,
            pod: *pod,
            epoch,
            cause,
        }),
        _ => None,
    };
    world.notices.iter().filter_map(promotion)
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}
