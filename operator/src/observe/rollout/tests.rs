//! The next step by situation.

use pbx_crds::report::ReportedRole;

use super::*;
use crate::testing::{ago, now, observed, pod_of, said, uid};

/// Both pods have an old template.
fn outdated() -> Observed {
    let mut observed = observed();
    observed.template.revision = Some("r2".into());
    observed
}

fn step(observed: &Observed) -> Rollout {
    decide(observed, Some("office-0"), now())
}

fn replaced(rollout: &Rollout) -> Option<&str> {
    match rollout {
        Rollout::Replace { pod, .. } => Some(pod),
        _ => None,
    }
}

#[test]
fn pods_of_the_present_template_are_complete() {
    assert_eq!(step(&observed()), Rollout::Complete);
}

#[test]
fn the_standby_goes_first() {
    assert_eq!(replaced(&step(&outdated())), Some("office-1"));
}

#[test]
fn the_active_goes_last() {
    let mut observed = outdated();
    pod_of(&mut observed, "office-1").revision = Some("r2".into());
    assert_eq!(replaced(&step(&observed)), Some("office-0"));
}

#[test]
fn a_new_standby_proves_itself_before_the_active_goes() {
    let mut observed = outdated();
    let standby = pod_of(&mut observed, "office-1");
    standby.revision = Some("r2".into());
    standby.created_at = ago(9);
    assert!(matches!(step(&observed), Rollout::Rolling { .. }));
    pod_of(&mut observed, "office-1").created_at = ago(10);
    assert_eq!(replaced(&step(&observed)), Some("office-0"));
}

#[test]
fn nothing_is_deleted_while_a_pod_is_missing_or_ending() {
    let mut missing = outdated();
    missing.pods.remove("office-1");
    let mut ending = outdated();
    pod_of(&mut ending, "office-1").is_terminating = true;
    for observed in [missing, ending] {
        assert!(matches!(step(&observed), Rollout::Rolling { .. }));
    }
}

#[test]
fn nothing_is_deleted_while_a_standby_is_not_ready() {
    for revision in ["r1", "r2"] {
        let mut observed = outdated();
        pod_of(&mut observed, "office-1").revision = Some(revision.into());
        said(&mut observed, "office-1").report.ready = false;
        assert!(
            matches!(step(&observed), Rollout::Rolling { .. }),
            "{revision}"
        );
    }
}

#[test]
fn nothing_is_deleted_while_nobody_is_active() {
    let rollout = decide(&outdated(), None, now());
    assert!(matches!(rollout, Rollout::Rolling { .. }));
}

#[test]
fn nothing_is_deleted_before_the_new_revision_is_known() {
    let mut observed = outdated();
    observed.template.revision = None;
    assert!(matches!(step(&observed), Rollout::Creating { .. }));
}

#[test]
fn a_pod_that_never_became_ready_may_always_be_replaced() {
    let mut observed = outdated();
    for name in ["office-0", "office-1"] {
        let pod = pod_of(&mut observed, name);
        pod.is_ready = false;
        pod.was_never_ready = true;
    }
    observed.reports.clear();
    let first = decide(&observed, None, now());
    assert_eq!(replaced(&first), Some("office-0"));
    pod_of(&mut observed, "office-0").is_terminating = true;
    let next = decide(&observed, None, now());
    assert!(matches!(next, Rollout::Rolling { .. }), "one at a time");
}

#[test]
fn a_new_pod_that_never_becomes_ready_stops_the_roll_after_two_minutes() {
    let mut observed = outdated();
    said(&mut observed, "office-1").report.ready = false;
    let fresh = pod_of(&mut observed, "office-1");
    fresh.revision = Some("r2".into());
    fresh.was_never_ready = true;
    fresh.is_ready = false;
    fresh.created_at = ago(119);
    assert!(matches!(step(&observed), Rollout::Rolling { .. }));
    pod_of(&mut observed, "office-1").created_at = ago(120);
    let Rollout::Stuck { message } = step(&observed) else {
        panic!("the roll is stuck");
    };
    assert!(message.contains("office-1"));
}

#[test]
fn a_standby_lost_later_is_no_roll() {
    let mut observed = observed();
    observed.reports.remove(&uid("office-1"));
    pod_of(&mut observed, "office-1").is_ready = false;
    assert_eq!(step(&observed), Rollout::Complete);
}

#[test]
fn the_highest_standby_of_three_goes_first() {
    let mut observed = outdated();
    observed.nodes = 3;
    let mut third = observed.pods["office-1"].clone();
    third.name = "office-2".into();
    third.uid = uid("office-2");
    observed.pods.insert("office-2".into(), third);
    let mut report = observed.reports[&uid("office-1")].clone();
    report.report.role = ReportedRole::Standby;
    observed.reports.insert(uid("office-2"), report);
    assert_eq!(replaced(&step(&observed)), Some("office-2"));
}
