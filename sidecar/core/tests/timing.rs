//! The timing rules: defaults hold, derived timings hold, and each broken rule names its fix.

use std::time::Duration;

use pbx_core::Timing;
use proptest::prelude::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn the_defaults_hold_for_every_size() {
    for nodes in 2..=5 {
        assert_eq!(Timing::default().problems(nodes), vec![]);
    }
}

#[test]
fn timings_derived_from_detection_hold() {
    let cases = [
        // keepalive, warntime, deadtime, nodes
        (5, 10, 30, 3),
        (10, 30, 60, 3),
        (20, 60, 120, 5),
        (100, 400, 800, 2),
        (100, 400, 800, 3),
        (200, 1_000, 2_000, 4),
        (1_000, 5_000, 10_000, 2),
        (2_000, 20_000, 60_000, 2),
    ];
    for (keepalive, warntime, deadtime, nodes) in cases {
        let timing = Timing::from_detection(ms(keepalive), ms(warntime), ms(deadtime));
        assert_eq!(
            timing.problems(nodes),
            vec![],
            "deadtime {deadtime} ms, {nodes} nodes"
        );
    }
}

/// Sound timings with one broken rule each, and what is said of it.
fn broken() -> Vec<(Timing, &'static str)> {
    let good = Timing::default();
    let with = |change: fn(&mut Timing)| {
        let mut timing = good;
        change(&mut timing);
        timing
    };
    vec![
        (
            with(|t| t.warntime = ms(150)),
            "warntime 150ms is below twice keepalive 100ms: raise warntime to 200ms",
        ),
        (
            with(|t| t.warntime = ms(800)),
            "deadtime 800ms is not above warntime 800ms: raise deadtime to 1.6s",
        ),
        (
            with(|t| t.witness_hold = ms(900)),
            "witness hold 900ms is above deadtime 800ms: lower the witness hold to 800ms",
        ),
        (
            with(|t| t.witness_hold_alone = ms(500)),
            "lone witness hold 500ms is below witness hold 800ms: raise it to 800ms",
        ),
        (
            with(|t| t.stop_margin = ms(50)),
            "stop margin 50ms is not above kill margin 50ms: raise the stop margin to 100ms",
        ),
        (
            with(|t| t.api_deadline = ms(200)),
            "less than two API deadlines of 200ms: raise deadtime to 910ms",
        ),
        (
            with(|t| t.witness_hold = ms(500)),
            "less than two API deadlines of 140ms: raise the witness hold (and deadtime) to 570ms",
        ),
        (
            with(|t| t.clock_drift_ppm = 100_000),
            "clock drift of 100000 ppm is not below 100000 ppm: lower it to 5000",
        ),
        (
            with(|t| {
                t.deadtime = ms(401);
                t.warntime = ms(200);
                t.stop_margin = ms(300);
            }),
            "deadtime 401ms leaves no time to serve with stop margin 300ms: raise deadtime to 510ms",
        ),
    ]
}

#[test]
fn each_broken_rule_says_what_to_change() {
    for (timing, fix) in broken() {
        let said: Vec<String> = timing.problems(2).iter().map(ToString::to_string).collect();
        assert!(
            said.iter().any(|problem| problem.contains(fix)),
            "{fix}: {said:?}"
        );
    }
}

proptest! {
    #[test]
    fn a_counted_grant_ends_before_any_voters(deadtime_us in 1_000u64..60_000_000, ppm in 0u32..50_000) {
        let deadtime = Duration::from_micros(deadtime_us);
        let timing = Timing { deadtime, clock_drift_ppm: ppm, ..Timing::default() };
        let nanoseconds = |duration: Duration| duration.as_nanos();
        let (slow, fast) = (1_000_000 - u128::from(ppm), 1_000_000 + u128::from(ppm));
        // The candidate's slowest clock against the voter's fastest, and the other way round.
        prop_assert!(nanoseconds(timing.counted_grant()) * fast <= nanoseconds(deadtime) * slow);
        prop_assert!(nanoseconds(timing.quarantine()) * slow >= nanoseconds(deadtime) * fast);
    }
}
