//! The timing rules, and the margins that R1 derives from them.
//!
//! All derived figures are integers rounded to the safe side: what is counted on is rounded down,
//! what others must wait for is rounded up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All durations of the protocol. Made once, checked by [`Timing::problems`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// A beat leaves this often; while all is well, every [`Timing::calm_keepalive`].
    pub keepalive: Duration,
    /// Silence of a peer that is worth acting on: the witness is looked at, the heir is not chosen.
    pub warntime: Duration,
    /// T: how long a voter keeps a grant after the last beat.
    pub deadtime: Duration,
    /// `T_w`: how long a hold of the witness counts.
    pub witness_hold: Duration,
    /// `T_w'`: the same for an active that is alone.
    pub witness_hold_alone: Duration,
    /// A call to the API fails after it.
    pub api_deadline: Duration,
    /// Above the longest time from the kernel's timer to a dead Asterisk.
    pub kill_margin: Duration,
    /// When an orderly stop begins before the authority ends; above `kill_margin`.
    pub stop_margin: Duration,
    /// By how much a lesser candidate defers, per rank; above a round trip.
    pub rank_delay: Duration,
    /// Bound on the rate of a node's clock, in parts per million (rho).
    pub clock_drift_ppm: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_millis(100),
            warntime: Duration::from_millis(400),
            deadtime: Duration::from_millis(800),
            witness_hold: Duration::from_millis(800),
            witness_hold_alone: Duration::from_secs(15),
            api_deadline: Duration::from_millis(140),
            kill_margin: Duration::from_millis(50),
            stop_margin: Duration::from_millis(100),
            rank_delay: Duration::from_millis(20),
            clock_drift_ppm: 5_000,
        }
    }
}

/// A timing rule that does not hold, with what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingProblem {
    /// One lost beat would already count as silence.
    #[error(
        "warntime {warntime:?} is below twice keepalive {keepalive:?}: raise warntime to {fix:?}"
    )]
    WarntimeBelowTwiceKeepalive {
        /// As configured.
        warntime: Duration,
        /// As configured.
        keepalive: Duration,
        /// The least that holds.
        fix: Duration,
    },
    /// The warning would come with, or after, the loss.
    #[error("deadtime {deadtime:?} is not above warntime {warntime:?}: raise deadtime to {fix:?}")]
    DeadtimeNotAboveWarntime {
        /// As configured.
        deadtime: Duration,
        /// As configured.
        warntime: Duration,
        /// A value that holds.
        fix: Duration,
    },
    /// A hold of the witness would outlive a grant.
    #[error(
        "witness hold {hold:?} is above deadtime {deadtime:?}: lower the witness hold to {deadtime:?}"
    )]
    HoldAboveDeadtime {
        /// As configured.
        hold: Duration,
        /// As configured.
        deadtime: Duration,
    },
    /// The lone active's hold would be the shorter one.
    #[error("lone witness hold {alone:?} is below witness hold {hold:?}: raise it to {hold:?}")]
    HoldAloneBelowHold {
        /// As configured.
        alone: Duration,
        /// As configured.
        hold: Duration,
    },
    /// The kernel would kill before the orderly stop begins.
    #[error(
        "stop margin {stop:?} is not above kill margin {kill:?}: raise the stop margin to {fix:?}"
    )]
    StopMarginNotAboveKillMargin {
        /// As configured.
        stop: Duration,
        /// As configured.
        kill: Duration,
        /// A value that holds.
        fix: Duration,
    },
    /// A grant leaves no time to serve.
    #[error(
        "deadtime {deadtime:?} leaves no time to serve with stop margin {stop:?}: raise deadtime to {fix:?}"
    )]
    NothingLeftToServe {
        /// As configured.
        deadtime: Duration,
        /// As configured.
        stop: Duration,
        /// The least that holds.
        fix: Duration,
    },
    /// After the warning, the witness could not be taken before the authority ends.
    #[error(
        "deadtime {deadtime:?} leaves {left:?} after warntime and stop margin, less than two API deadlines of {api:?}: \
         raise deadtime to {fix:?}"
    )]
    NoTimeToTakeWitness {
        /// As configured.
        deadtime: Duration,
        /// What is left.
        left: Duration,
        /// As configured.
        api: Duration,
        /// The least that holds.
        fix: Duration,
    },
    /// A failed renewal of the witness could not be repeated before the hold ends.
    #[error(
        "witness hold {hold:?} leaves {left:?} to renew, less than two API deadlines of {api:?}: \
         raise the witness hold (and deadtime) to {fix:?}"
    )]
    NoTimeToRenewWitness {
        /// As configured.
        hold: Duration,
        /// What is left.
        left: Duration,
        /// As configured.
        api: Duration,
        /// The least that holds.
        fix: Duration,
    },
    /// A clock that may run at any rate bounds nothing.
    #[error("clock drift of {ppm} ppm is not below 100000 ppm: lower it to 5000")]
    DriftTooLarge {
        /// As configured.
        ppm: u32,
    },
}

/// Of the kill, or of the fence: the kernel's ticks are 4 ms with most kernels and 10 ms at most, and both round to the safe side.
const SHORTEST_KILL_MARGIN: Duration = Duration::from_millis(5);
const LONGEST_KILL_MARGIN: Duration = Duration::from_millis(50);
/// The shortest API deadline that a healthy API server keeps (measured: a write takes 4–10 ms, 60 ms when busy).
const SHORTEST_API_DEADLINE: Duration = Duration::from_millis(100);
const LONGEST_API_DEADLINE: Duration = Duration::from_secs(5);

impl Timing {
    /// All margins, from the three durations that people choose.
    ///
    /// Sensible from a deadtime of 30 ms (three nodes with floating addresses) to 60 s; an even number of
    /// nodes needs the time of API calls on top, which [`Timing::problems`] says.
    pub fn from_detection(keepalive: Duration, warntime: Duration, deadtime: Duration) -> Self {
        let kill_margin = (deadtime / 16).clamp(SHORTEST_KILL_MARGIN, LONGEST_KILL_MARGIN);
        let mut timing = Self {
            keepalive,
            warntime,
            deadtime,
            witness_hold: deadtime,
            witness_hold_alone: Self::default().witness_hold_alone.max(deadtime),
            kill_margin,
            stop_margin: kill_margin * 2,
            rank_delay: (deadtime / 40).clamp(Duration::from_millis(1), Duration::from_millis(100)),
            ..Self::default()
        };
        let longest = timing.time_to_take().min(timing.time_to_renew()) / 2;
        timing.api_deadline = longest.clamp(SHORTEST_API_DEADLINE, LONGEST_API_DEADLINE);
        timing
    }

    /// What does not hold for a cluster of `nodes`, each with its fix; empty when all is well.
    pub fn problems(&self, nodes: u8) -> Vec<TimingProblem> {
        let mut problems = self.detection_problems();
        problems.extend(self.margin_problems());
        if nodes.is_multiple_of(2) {
            problems.extend(self.witness_problems());
        }
        problems
    }

    /// `Tc`: how long a candidate counts on a grant, from the send time of its beat (R1).
    pub fn counted_grant(&self) -> Duration {
        shrink(self.deadtime, self.clock_drift_ppm)
    }

    /// `Tq`: how long a voter that booted without its record stays in quarantine (R1, R7).
    pub fn quarantine(&self) -> Duration {
        stretch(self.deadtime, self.clock_drift_ppm)
    }

    /// How long others observe a hold of the witness before they take it (R1, R9).
    pub fn observed_hold(&self, hold: Duration) -> Duration {
        stretch(hold, self.clock_drift_ppm)
    }

    /// The lead of the orderly stop before the kernel's deadline.
    pub fn stop_lead(&self) -> Duration {
        self.stop_margin.saturating_sub(self.kill_margin)
    }

    /// How often who serves beats while every peer acknowledged its last beat before the next: what a beat costs is mostly the
    /// waking. A lost one is repeated after [`Timing::calm_patience`], and that one comes before warntime.
    ///
    /// Authority counts from the last beat: where a pause would use it up the sooner for that (deadtime below eight keepalives), beats
    /// leave as often as ever.
    pub fn calm_keepalive(&self) -> Duration {
        if self.keepalive * 8 > self.deadtime {
            return self.keepalive;
        }
        let repeat_arrives_after = self.calm_patience() + self.keepalive / 5;
        self.warntime
            .saturating_sub(repeat_arrives_after)
            .clamp(self.keepalive, self.keepalive * 10 / 3)
    }

    /// When a beat after a long pause is repeated, unless it is acknowledged: its peers have waited longer than for any other.
    pub(crate) fn calm_patience(&self) -> Duration {
        self.keepalive / 2
    }

    /// After this a peer counts as silent for who would hand over to it: warntime, and by how much calm beats leave later, and half a
    /// keepalive. Fewer beats must not make a late answer look like none, nor one hello that was lost, which nothing repeats, a peer
    /// that is away.
    pub fn silence(&self) -> Duration {
        let later = self.calm_keepalive().saturating_sub(self.keepalive);
        if later.is_zero() {
            return self.warntime;
        }
        self.warntime + later + self.keepalive / 2
    }

    /// How often an handover is repeated until the heir beats.
    pub(crate) fn handover_repeat(&self) -> Duration {
        self.keepalive.min(Duration::from_millis(40))
    }

    /// From the warning to the orderly stop: the witness must be taken within it.
    fn time_to_take(&self) -> Duration {
        self.counted_grant()
            .saturating_sub(self.warntime + self.stop_margin)
    }

    /// From a renewal due after a third of the hold to the orderly stop.
    fn time_to_renew(&self) -> Duration {
        (self.witness_hold * 2 / 3).saturating_sub(self.stop_margin)
    }

    fn detection_problems(&self) -> Vec<TimingProblem> {
        let (keepalive, warntime, deadtime) = (self.keepalive, self.warntime, self.deadtime);
        let mut problems = Vec::new();
        if warntime < keepalive * 2 {
            problems.push(TimingProblem::WarntimeBelowTwiceKeepalive {
                warntime,
                keepalive,
                fix: keepalive * 2,
            });
        }
        if deadtime <= warntime {
            problems.push(TimingProblem::DeadtimeNotAboveWarntime {
                deadtime,
                warntime,
                fix: warntime * 2,
            });
        }
        if self.clock_drift_ppm >= 100_000 {
            problems.push(TimingProblem::DriftTooLarge {
                ppm: self.clock_drift_ppm,
            });
        }
        problems
    }

    fn margin_problems(&self) -> Vec<TimingProblem> {
        let (stop, kill) = (self.stop_margin, self.kill_margin);
        let mut problems = Vec::new();
        if stop <= kill {
            let fix = kill * 2;
            problems.push(TimingProblem::StopMarginNotAboveKillMargin { stop, kill, fix });
        }
        if self.counted_grant() < stop + self.keepalive * 2 {
            problems.push(TimingProblem::NothingLeftToServe {
                deadtime: self.deadtime,
                stop,
                fix: round_up(stretch(stop + self.keepalive * 2, self.clock_drift_ppm)),
            });
        }
        problems
    }

    fn witness_problems(&self) -> Vec<TimingProblem> {
        let (hold, api, deadtime) = (self.witness_hold, self.api_deadline, self.deadtime);
        let mut problems = Vec::new();
        if hold > deadtime {
            problems.push(TimingProblem::HoldAboveDeadtime { hold, deadtime });
        }
        if self.witness_hold_alone < hold {
            let alone = self.witness_hold_alone;
            problems.push(TimingProblem::HoldAloneBelowHold { alone, hold });
        }
        if self.time_to_take() < api * 2 {
            let needed = self.warntime + self.stop_margin + api * 2;
            problems.push(TimingProblem::NoTimeToTakeWitness {
                deadtime,
                left: self.time_to_take(),
                api,
                fix: round_up(stretch(needed, self.clock_drift_ppm)),
            });
        }
        if self.time_to_renew() < api * 2 {
            problems.push(TimingProblem::NoTimeToRenewWitness {
                hold,
                left: self.time_to_renew(),
                api,
                fix: round_up((api * 2 + self.stop_margin) * 3 / 2),
            });
        }
        problems
    }
}

/// `duration / r`, rounded down and a nanosecond less.
fn shrink(duration: Duration, drift_ppm: u32) -> Duration {
    let (slow, fast) = clock_rates(drift_ppm);
    Duration::from_nanos((scaled(duration, slow, fast)).saturating_sub(1))
}

/// `duration * r`, rounded up and a nanosecond more.
fn stretch(duration: Duration, drift_ppm: u32) -> Duration {
    let (slow, fast) = clock_rates(drift_ppm);
    Duration::from_nanos((scaled(duration, fast, slow)).saturating_add(2))
}

/// The slowest and the fastest clock, in parts of a million seconds.
fn clock_rates(drift_ppm: u32) -> (u128, u128) {
    let drift = u128::from(drift_ppm.min(999_999));
    (1_000_000 - drift, 1_000_000 + drift)
}

/// `duration * times / over` in nanoseconds, rounded down.
fn scaled(duration: Duration, times: u128, over: u128) -> u64 {
    u64::try_from(duration.as_nanos() * times / over).unwrap_or(u64::MAX)
}

/// To the next whole 10 ms (a whole ms below 100 ms): what a person would write.
fn round_up(duration: Duration) -> Duration {
    let step: u128 = if duration < Duration::from_millis(100) {
        1_000_000
    } else {
        10_000_000
    };
    Duration::from_nanos((duration.as_nanos().div_ceil(step) * step) as u64)
}
