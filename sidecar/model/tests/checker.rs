//! A short exploration of every configuration, and of each with one rule dropped: then two must serve.
//!
//! Longer: `cargo xtask model`.

use std::time::Duration;

use pbx_core::Rule;
use pbx_model::checker::{SCENARIOS, Scenario, TIMING, explore};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_checked_timing_is_legal_to_the_core() {
    assert_eq!(TIMING.problems(2), []);
    assert_eq!(TIMING.problems(3), []);
}

#[test]
fn no_short_exploration_shows_two_serving() {
    for scenario in SCENARIOS {
        let explored = explore(scenario, 60_000, 2, LIMIT);
        assert_eq!(explored.violation, None, "{}", scenario.name);
        assert!(explored.unique > 1_000, "{}: {explored:?}", scenario.name);
    }
}

fn check_without(rule: Rule, name: &str) {
    let scenario = Scenario::named(name).expect("a configuration");
    let broken = Scenario {
        without: Some(rule),
        ..scenario
    };
    let explored = explore(broken, 3_000_000, 2, LIMIT);
    println!("{rule:?} in {name}: {explored:?}");
    assert!(explored.violation.is_some(), "{rule:?} can be dropped unnoticed");
}

#[test]
fn r1_without_drift_margin_two_serve() {
    check_without(Rule::DriftMargin, "two-drift");
}

#[test]
fn r2_without_send_time_two_serve() {
    check_without(Rule::SendTime, "two");
}

#[test]
fn r3_without_the_refusal_of_late_deadlines_two_serve() {
    let scenario = Scenario::named("two-pause").expect("a configuration");
    let broken = Scenario {
        guard_takes_late: true,
        ..scenario
    };
    let explored = explore(broken, 3_000_000, 2, LIMIT);
    println!("R3: {explored:?}");
    assert!(explored.violation.is_some());
}

#[test]
fn r4_without_stop_first_two_serve() {
    check_without(Rule::StopFirst, "two-guard");
}

#[test]
fn r6_without_one_grant_two_serve() {
    check_without(Rule::OneGrant, "two");
}

#[test]
fn r7_without_quarantine_two_serve() {
    check_without(Rule::Quarantine, "two-restarts");
}

#[test]
fn r9_without_watching_two_serve() {
    check_without(Rule::WatchHold, "alone");
}
