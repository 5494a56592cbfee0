//! The systems and the faults of the failover benchmark, and what is wanted.

use std::time::Duration;

use anyhow::{Context, Result};
use pbx_crds::cluster::FailoverSpec;
use pbx_tests::cluster::freeze::Freezer;
use pbx_tests::failover::fixed::Fixed;
use pbx_tests::failover::heartbeat::{Heartbeat, Timing};
use pbx_tests::failover::keepalived::Keepalived;
use pbx_tests::failover::ours::Ours;
use pbx_tests::failover::pacemaker::Pacemaker;
use pbx_tests::failover::weather::Weather;
use pbx_tests::failover::{Contender, Fault};
use pbx_tests::images::Profile;

/// The peer that goals are held against.
pub(super) const PEER: &str = "keepalived-10ms";
/// The peer that the cost is held against: it beats as often as our defaults.
pub(super) const COST_PEER: &str = "keepalived-100ms";
/// Our system with every timing as it is by default.
pub(super) const DEFAULTS: &str = "pbx-ha-default";
/// Our system with the shortest timing that the rules allow.
pub(super) const SHORTEST: &str = "pbx-ha-30ms";
/// No system at all.
pub(super) const CONTROL: &str = "control";
const HEARTBEAT: &str = "heartbeat-500ms";
const HEARTBEAT_TIMING: Timing = Timing {
    keepalive: "100ms",
    warntime: "250ms",
    deadtime: "500ms",
};

/// One system.
pub(super) struct System {
    pub(super) name: &'static str,
    /// With our own programs compiled so.
    pub(super) start: fn(Profile) -> Result<Box<dyn Contender>>,
    /// Goals are for these.
    pub(super) is_ours: bool,
}

/// One fault and what is wanted of pbx-ha under it.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) fault: Fault,
    pub(super) goal: Goal,
    /// A move is: wanted, not wanted, or no matter.
    pub(super) moves: Option<bool>,
}

/// How long nobody may answer.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// No goal.
    None,
    /// The median is at most this, and at most half of the peer's.
    HalfOfPeer(f64),
    /// The longest is at most this with deadtime 300 ms; with the shortest deadtime, at most the peer's median and 10 ms.
    Detected(f64),
}

pub(super) const SYSTEMS: [System; 8] = [
    System {
        name: CONTROL,
        start: |_| Ok(Box::new(Fixed::start("foCtl", &responder()?)?)),
        is_ours: false,
    },
    System {
        name: PEER,
        start: |_| keepalived(Duration::from_millis(10)),
        is_ours: false,
    },
    System {
        name: COST_PEER,
        start: |_| keepalived(Duration::from_millis(100)),
        is_ours: false,
    },
    System {
        name: HEARTBEAT,
        start: |_| {
            Ok(Box::new(Heartbeat::start(
                "foHb",
                &responder()?,
                HEARTBEAT_TIMING,
            )?))
        },
        is_ours: false,
    },
    System {
        name: "pacemaker-300ms",
        start: |_| Ok(Box::new(Pacemaker::start("foPm", &responder()?)?)),
        is_ours: false,
    },
    System {
        name: DEFAULTS,
        start: |profile| {
            Ok(Box::new(Ours::start(
                "foUs",
                FailoverSpec::default(),
                profile,
            )?))
        },
        is_ours: true,
    },
    System {
        name: "pbx-ha-300ms",
        start: |profile| {
            Ok(Box::new(Ours::start(
                "foUs",
                timing("50ms", "150ms", "300ms")?,
                profile,
            )?))
        },
        is_ours: true,
    },
    System {
        name: SHORTEST,
        start: |profile| {
            Ok(Box::new(Ours::start(
                "foUs",
                timing("5ms", "10ms", "30ms")?,
                profile,
            )?))
        },
        is_ours: true,
    },
];

/// Shorter than every deadtime but the shortest.
const SHORT_PAUSE: Duration = Duration::from_millis(200);

pub(super) const FIGURES: [Figure; 14] = [
    figure("failover.control", Fault::None, Goal::None, Some(false)),
    figure(
        "failover.kill",
        Fault::Kill,
        Goal::HalfOfPeer(10.0),
        Some(true),
    ),
    figure(
        "failover.switchover",
        Fault::Switchover,
        Goal::HalfOfPeer(10.0),
        Some(true),
    ),
    figure(
        "failover.crash",
        Fault::Crash,
        Goal::Detected(330.0),
        Some(true),
    ),
    figure(
        "failover.partition",
        Fault::Partition,
        Goal::Detected(330.0),
        Some(true),
    ),
    figure(
        "failover.pause_200ms",
        Fault::Pause(Freezer::Unified, SHORT_PAUSE),
        Goal::None,
        Some(false),
    ),
    figure(
        "failover.pause_3s",
        Fault::Pause(Freezer::Unified, Duration::from_secs(3)),
        Goal::None,
        Some(true),
    ),
    figure(
        "failover.pause_3s_v1",
        Fault::Pause(Freezer::Old, Duration::from_secs(3)),
        Goal::None,
        Some(true),
    ),
    figure(
        "failover.stop_3s",
        Fault::Stop(Duration::from_secs(3)),
        Goal::None,
        Some(true),
    ),
    figure(
        "failover.degraded_deaf",
        Fault::Deaf,
        Goal::None,
        Some(true),
    ),
    figure(
        "failover.degraded_mute",
        Fault::Mute,
        Goal::None,
        Some(true),
    ),
    figure("failover.degraded_loss", Fault::Loss, Goal::None, None),
    figure(
        "failover.degraded_jitter",
        Fault::Weather(Weather::Jitter),
        Goal::None,
        Some(false),
    ),
    figure(
        "failover.degraded_disorder",
        Fault::Weather(Weather::Disorder),
        Goal::None,
        Some(false),
    ),
];

impl Figure {
    /// Whether the role is to move: no matter where the path is slower than the timing rules bear, as `LinkTooSlow` says, or the pause
    /// longer than deadtime.
    pub(super) fn moves_of(&self, system: &str) -> Option<bool> {
        let is_beyond = match self.fault {
            Fault::Weather(_) => true,
            Fault::Pause(_, length) => length == SHORT_PAUSE,
            _ => false,
        };
        self.moves.filter(|_| system != SHORTEST || !is_beyond)
    }
}

impl System {
    /// The control cannot fail over, two are there for their cost, and heartbeat does not watch its service.
    pub(super) fn suffers(&self, figure: &Figure) -> bool {
        match self.name {
            CONTROL | COST_PEER | DEFAULTS => figure.fault == Fault::None,
            HEARTBEAT => figure.fault != Fault::Kill,
            _ => true,
        }
    }
}

const fn figure(name: &'static str, fault: Fault, goal: Goal, moves: Option<bool>) -> Figure {
    Figure {
        name,
        fault,
        goal,
        moves,
    }
}

fn timing(keepalive: &str, warntime: &str, deadtime: &str) -> Result<FailoverSpec> {
    let text = format!("{{keepalive: {keepalive}, warntime: {warntime}, deadtime: {deadtime}}}");
    serde_yaml::from_str(&text).context("read the timing")
}

fn keepalived(advertise_every: Duration) -> Result<Box<dyn Contender>> {
    let started = Keepalived::start("foKa", &responder()?, advertise_every)?;
    Ok(Box::new(started))
}

/// This program itself is the small service.
pub(in crate::bench) fn responder() -> Result<Vec<String>> {
    let own = std::env::current_exe().context("find this program")?;
    Ok(vec![own.to_string_lossy().into_owned(), "responder".into()])
}
