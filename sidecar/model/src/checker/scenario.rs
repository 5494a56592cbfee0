//! What is explored: how many nodes, from which moment on, and how many faults of each kind.

use std::time::Duration;

use pbx_core::{MAX_NODES, OnQuorumLoss, Rule, Timing};

use super::state::{Ticks, Used};

/// From where the exploration starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Somebody serves, with the votes of the others.
    Serving,
    /// The same, long alone: on a long hold of the witness; the others have just come back.
    Alone,
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// Configured.
    pub nodes: u8,
    /// In whole steps of the clock where it matters.
    pub timing: Timing,
    /// The node in seat 0 has the slowest clock allowed, all others the fastest.
    pub drifts: bool,
    /// The first state.
    pub from: From,
    /// How many faults of each kind.
    pub limits: Used,
    /// Messages that one link holds; more push the oldest out.
    pub letters_per_link: usize,
    /// Orders take time to the guard: it acts at any later moment.
    pub slow_guard: bool,
    /// How often one seat goes above its own epoch of the first state, as far as that is explored.
    pub most_raises: u64,
    /// A rule that is dropped.
    pub without: Option<Rule>,
    /// As in [`pbx_core::Settings`].
    pub on_quorum_loss: OnQuorumLoss,
    /// The guard takes deadlines that have passed (R3 dropped).
    pub guard_takes_late: bool,
}

/// The step of all clocks, where they run alike.
pub const STEP: Duration = Duration::from_millis(200);
/// No faults but loss, delay, reordering and failing calls.
pub const NOTHING: Used = Used {
    crashes: 0,
    restarts: 0,
    amnesias: 0,
    pauses: 0,
    stops: 0,
    deaths: 0,
    switchovers: 0,
    duplicates: 0,
    replacements: 0,
    leases: 0,
    leaves: 0,
    resizes: 0,
};

/// T is four steps, warntime two: everything happens at a step, or in no time. Legal to the core, as a test asserts.
pub const TIMING: Timing = Timing {
    keepalive: STEP,
    warntime: Duration::from_millis(400),
    deadtime: Duration::from_millis(800),
    witness_hold: Duration::from_millis(800),
    witness_hold_alone: Duration::from_millis(1_600),
    api_deadline: Duration::from_millis(70),
    kill_margin: Duration::from_millis(50),
    stop_margin: Duration::from_millis(250),
    rank_delay: Duration::from_millis(20),
    clock_drift_ppm: 0,
};

const PLAIN: Scenario = Scenario {
    name: "",
    nodes: 2,
    timing: TIMING,
    drifts: false,
    from: From::Serving,
    limits: NOTHING,
    letters_per_link: 1,
    slow_guard: false,
    most_raises: 2,
    without: None,
    on_quorum_loss: OnQuorumLoss::Demote,
    guard_takes_late: false,
};

/// All that is checked, smallest first.
pub const SCENARIOS: [Scenario; 18] = [
    Scenario {
        name: "two",
        limits: Used {
            deaths: 1,
            duplicates: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "two-guard",
        limits: Used {
            switchovers: 1,
            ..NOTHING
        },
        slow_guard: true,
        ..PLAIN
    },
    Scenario {
        name: "two-restarts",
        limits: Used {
            crashes: 1,
            restarts: 1,
            amnesias: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "two-pause",
        limits: Used {
            pauses: 2,
            ..NOTHING
        },
        slow_guard: true,
        ..PLAIN
    },
    Scenario {
        name: "two-stops",
        limits: Used {
            stops: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "two-drift",
        timing: Timing {
            clock_drift_ppm: 60_000,
            ..TIMING
        },
        drifts: true,
        slow_guard: true,
        ..PLAIN
    },
    Scenario {
        name: "three",
        nodes: 3,
        limits: Used {
            deaths: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "three-stops",
        nodes: 3,
        limits: Used {
            stops: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "continue",
        on_quorum_loss: OnQuorumLoss::Continue,
        ..PLAIN
    },
    Scenario {
        name: "alone",
        from: From::Alone,
        limits: Used {
            crashes: 1,
            restarts: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "seats",
        limits: Used {
            replacements: 1,
            crashes: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "grow",
        limits: Used {
            resizes: 1,
            crashes: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "shrink",
        nodes: 3,
        limits: Used {
            leaves: 1,
            resizes: 1,
            crashes: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "grow-shrink",
        limits: Used {
            leaves: 1,
            resizes: 2,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "three-seats",
        nodes: 3,
        limits: Used {
            replacements: 1,
            crashes: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "seats-again",
        limits: Used {
            replacements: 2,
            ..NOTHING
        },
        ..PLAIN
    },
    Scenario {
        name: "seats-pause",
        limits: Used {
            replacements: 1,
            pauses: 1,
            ..NOTHING
        },
        slow_guard: true,
        ..PLAIN
    },
    Scenario {
        name: "lease",
        limits: Used {
            leases: 1,
            amnesias: 1,
            ..NOTHING
        },
        ..PLAIN
    },
];

impl Scenario {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        SCENARIOS.into_iter().find(|scenario| scenario.name == name)
    }

    /// How far each seat's clock goes in one step.
    pub fn ticks(&self) -> Ticks {
        let drift = i64::from(self.timing.clock_drift_ppm);
        let drifted = |by: i64| {
            let step = STEP.as_nanos() as i64;
            Duration::from_nanos((step + step * by / 1_000_000).cast_unsigned())
        };
        let of_seat = |seat: usize| match (self.drifts, seat) {
            (false, _) => STEP,
            (true, 0) => drifted(-drift),
            (true, _) => drifted(drift),
        };
        let mut ticks = [STEP; MAX_NODES];
        for (seat, tick) in ticks.iter_mut().enumerate() {
            *tick = of_seat(seat);
        }
        ticks
    }
}
