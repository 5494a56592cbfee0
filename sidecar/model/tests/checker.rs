//! A short exploration of every configuration, and of each with one rule dropped: then two must serve.
//!
//! Longer: `cargo xtask model`.

use std::time::Duration;

use pbx_core::Rule;
use pbx_model::checker::{HEEDED, NOTHING, ONE_SERVES, SCENARIOS, Scenario, TIMING, Used, explore};

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn the_checked_timing_is_legal_to_the_core() {
    assert_eq!(TIMING.problems(2), []);
    assert_eq!(TIMING.problems(3), []);
}

#[test]
fn no_short_exploration_shows_two_serving() {
    for scenario in SCENARIOS {
        let explored = explore(scenario, 30_000, 2, LIMIT);
        assert_eq!(explored.violation, None, "{}", scenario.name);
        assert!(explored.unique > 1_000, "{}: {explored:?}", scenario.name);
    }
}

/// With just the faults that it takes, so that the shortest path is found soon.
fn check_without(rule: Rule, name: &str, limits: Used) {
    let broken = Scenario {
        without: Some(rule),
        limits,
        ..scenario(name)
    };
    let violation = explore(broken, 3_000_000, 2, LIMIT).violation;
    let violation = violation.unwrap_or_else(|| panic!("{rule:?} can be dropped unnoticed"));
    println!("without {rule:?}, {name}: {violation}");
    assert!(violation.contains(ONE_SERVES));
}

fn scenario(name: &str) -> Scenario {
    Scenario::named(name).expect("a configuration")
}

#[test]
fn r1_without_drift_margin_two_serve() {
    check_without(Rule::DriftMargin, "two-drift", NOTHING);
}

#[test]
fn r2_without_send_time_two_serve() {
    check_without(Rule::SendTime, "two-guard", NOTHING);
}

#[test]
fn r3_without_the_refusal_of_late_deadlines_two_serve() {
    let broken = Scenario {
        guard_takes_late: true,
        limits: NOTHING,
        ..scenario("two-guard")
    };
    let violation = explore(broken, 3_000_000, 2, LIMIT).violation;
    let violation = violation.expect("R3 can be dropped unnoticed");
    println!("without R3: {violation}");
}

#[test]
fn r4_without_stop_first_two_serve() {
    let limits = Used {
        switchovers: 1,
        ..NOTHING
    };
    check_without(Rule::StopFirst, "two-guard", limits);
}

#[test]
fn r6_without_one_grant_two_serve() {
    check_without(Rule::OneGrant, "two", NOTHING);
}

#[test]
fn r7_without_quarantine_two_serve() {
    let limits = Used {
        amnesias: 1,
        ..NOTHING
    };
    check_without(Rule::Quarantine, "two-restarts", limits);
}

#[test]
fn r9_without_watching_two_serve() {
    check_without(Rule::WatchHold, "alone", NOTHING);
}

#[test]
fn r15_who_does_not_heed_its_rival_goes_on() {
    for name in ["two-stops", "continue"] {
        let broken = Scenario {
            without: Some(Rule::HeedRivals),
            ..scenario(name)
        };
        let violation = explore(broken, 3_000_000, 2, LIMIT).violation;
        let violation = violation.unwrap_or_else(|| panic!("{name}: R15 can be dropped unnoticed"));
        println!("without HeedRivals, {name}: {violation}");
        assert!(violation.contains(HEEDED));
    }
}
