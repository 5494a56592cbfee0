//! The status by situation.

use pbx_crds::report::{LINK_TOO_SLOW, Problem};
use pbx_crds::status::NodeState;

use super::*;
use crate::testing::{ago, now, observed, pod, pod_of, said, silence_active, take_over, uid};

fn node<'a>(status: &'a PbxClusterStatus, name: &str) -> &'a NodeStatus {
    status.nodes.iter().find(|node| node.name == name).unwrap()
}

fn state(status: &PbxClusterStatus, name: &str) -> (NodeState, String) {
    let node = node(status, name);
    (node.state, node.detail.clone())
}

fn condition(status: &PbxClusterStatus, type_: &str) -> (String, String) {
    let found = status.conditions.iter().find(|one| one.type_ == type_);
    let found = found.unwrap();
    (found.status.clone(), found.reason.clone())
}

fn words(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn a_whole_cluster_is_available_and_redundant() {
    let (status, _) = status_of(&observed(), now());
    assert_eq!(status.active.as_deref(), Some("office-0"));
    assert_eq!(status.epoch, Some(4));
    assert_eq!(status.ready.as_deref(), Some("1/1"));
    assert_eq!(status.version.as_deref(), Some("22.10.1"));
    assert_eq!(condition(&status, "Available"), words("True", "NodeServes"));
    assert_eq!(
        condition(&status, "Redundant"),
        words("True", "StandbyReady")
    );
    assert_eq!(
        condition(&status, "Progressing"),
        words("False", "Complete")
    );
}

#[test]
fn a_path_too_slow_is_said_and_takes_no_redundancy_away() {
    let mut observed = observed();
    let slow = Problem {
        reason: LINK_TOO_SLOW.into(),
        message: "link office-0 of office-1 is slow".into(),
    };
    said(&mut observed, "office-1").report.problem = Some(slow.clone());
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        condition(&status, "Redundant"),
        words("True", "LinkTooSlow")
    );
    let redundant = status
        .conditions
        .iter()
        .find(|one| one.type_ == "Redundant");
    let message = &redundant.unwrap().message;
    assert_eq!(
        *message,
        format!("1 of 1 standbys could take over; {}", slow.message)
    );
    said(&mut observed, "office-1").report.ready = false;
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        condition(&status, "Redundant"),
        words("False", "StandbyNotReady")
    );
}

#[test]
fn a_steady_cluster_gives_an_equal_status() {
    let observed = observed();
    let (status, _) = status_of(&observed, now());
    assert_eq!(status, observed.status);
}

#[test]
fn a_takeover_is_told_at_once_and_counted_once() {
    let mut observed = observed();
    silence_active(&mut observed);
    take_over(&mut observed);
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.active.as_deref(), Some("office-1"));
    assert_eq!(status.epoch, Some(5));
    assert_eq!(
        state(&status, "office-0"),
        (NodeState::Dead, "Silent".into())
    );
    assert_eq!(node(&status, "office-0").since, Some(Time(now())));
    assert_eq!(status.counts.failovers, 1);
    assert_eq!(status.ready.as_deref(), Some("0/1"));
    assert_eq!(
        condition(&status, "Redundant"),
        words("False", "StandbyMissing")
    );
    observed.status = status.clone();
    assert_eq!(status_of(&observed, now()).0, status);
}

#[test]
fn between_two_actives_is_only_while_a_standby_is_ready() {
    let mut observed = observed();
    assert!(!is_between_actives(&observed, &observed.status));
    said(&mut observed, "office-0").report.role = ReportedRole::Standby;
    said(&mut observed, "office-0").report.ready = false;
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.active, None);
    assert!(is_between_actives(&observed, &status));
    said(&mut observed, "office-1").report.ready = false;
    assert!(!is_between_actives(&observed, &status));
}

#[test]
fn a_planned_move_is_told_apart_from_a_failure() {
    let mut observed = observed();
    take_over(&mut observed);
    let (mut status, _) = status_of(&observed, now());
    for is_planned in [true, false] {
        let newest = status.failover_history.iter_mut();
        let newest = newest.max_by_key(|record| record.epoch).unwrap();
        (newest.planned, newest.from) = (is_planned, Some("office-0".into()));
        assert_eq!(tells_of_planned_move(&observed, &status), is_planned);
    }
    observed.status = status.clone();
    assert!(!tells_of_planned_move(&observed, &status), "told already");
}

#[test]
fn the_last_words_of_the_replaced_node_are_no_readiness() {
    let mut observed = observed();
    take_over(&mut observed);
    for role in [ReportedRole::Active, ReportedRole::Standby] {
        said(&mut observed, "office-0").report.role = role;
        let (status, _) = status_of(&observed, now());
        assert_eq!(status.active.as_deref(), Some("office-1"));
        assert_eq!(status.ready.as_deref(), Some("0/1"), "{role:?}");
        assert_eq!(
            condition(&status, "Redundant"),
            words("False", "StandbyNotReady")
        );
    }
    said(&mut observed, "office-0").report.epoch = 5;
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.ready.as_deref(), Some("1/1"));
}

#[test]
fn since_moves_only_with_the_state() {
    let mut observed = observed();
    said(&mut observed, "office-1").report.detail = "Restarting".into();
    let before = node(&observed.status, "office-1").since.clone();
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-1"),
        (NodeState::Standby, "Restarting".into())
    );
    assert_eq!(node(&status, "office-1").since, before);
}

#[test]
fn the_older_of_two_actives_is_not_believed() {
    let mut observed = observed();
    take_over(&mut observed);
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.active.as_deref(), Some("office-1"));
    assert_eq!(state(&status, "office-0").0, NodeState::Standby);
}

#[test]
fn an_active_is_not_believed_against_knowledge_of_a_newer_epoch() {
    let mut observed = observed();
    let peer = &mut said(&mut observed, "office-1").report;
    peer.epoch = 5;
    peer.active = Some("office-1".into());
    assert_eq!(status_of(&observed, now()).0.active, None);
}

#[test]
fn a_bid_that_raises_the_epoch_takes_nothing_from_the_active() {
    let mut observed = observed();
    said(&mut observed, "office-1").report.epoch = 7;
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.active.as_deref(), Some("office-0"));
}

#[test]
fn a_lost_stream_alone_changes_nothing() {
    let mut observed = observed();
    said(&mut observed, "office-0").is_connected = false;
    said(&mut observed, "office-1").is_connected = false;
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.active.as_deref(), Some("office-0"));
    assert_eq!(
        state(&status, "office-0"),
        (NodeState::Active, "Serving".into())
    );
    assert_eq!(
        state(&status, "office-1"),
        (NodeState::Standby, "Ready".into())
    );
}

#[test]
fn a_peer_vouches_for_an_active_that_does_not_reach_us() {
    let mut observed = observed();
    observed.reports.remove(&uid("office-0"));
    observed.status = PbxClusterStatus::default();
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.active.as_deref(), Some("office-0"));
}

#[test]
fn an_operator_that_starts_keeps_the_state_until_it_hears() {
    let mut observed = observed();
    observed.reports.clear();
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.nodes, observed.status.nodes);
    assert_eq!(status.active, observed.status.active);
    assert_eq!(status.failover_history, observed.status.failover_history);
}

#[test]
fn silence_that_kubelet_confirms_is_death() {
    let mut observed = observed();
    observed.reports.clear();
    pod_of(&mut observed, "office-0").is_ready = false;
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-0"),
        (NodeState::Dead, "Silent".into())
    );
    assert_eq!(status.active, None);
    assert_eq!(condition(&status, "Available"), words("False", "NoActive"));
}

#[test]
fn a_node_without_pod_is_dead() {
    let mut observed = observed();
    observed.pods.remove("office-1");
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-1"),
        (NodeState::Dead, "NoPod".into())
    );
}

#[test]
fn a_new_cluster_is_starting_before_it_is_dead() {
    let mut observed = observed();
    observed.status = PbxClusterStatus::default();
    observed.reports.clear();
    observed.pods.clear();
    observed.created_at = ago(1);
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-0"),
        (NodeState::Standby, "Starting".into())
    );
    assert_eq!(condition(&status, "Available"), words("False", "Starting"));
    assert!(next_change(&observed, now()).is_some());
    observed.created_at = ago(31);
    observed.status = status;
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-0"),
        (NodeState::Dead, "NoPod".into())
    );
}

#[test]
fn a_pod_never_heard_is_dead_after_initdead() {
    let mut observed = observed();
    observed.status = PbxClusterStatus::default();
    observed.reports.remove(&uid("office-1"));
    let late = pod_of(&mut observed, "office-1");
    late.is_ready = false;
    late.created_at = ago(29);
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-1"),
        (NodeState::Standby, "Starting".into())
    );
    assert_eq!(next_change(&observed, now()), Some(ago(-1)));
    observed.status = status;
    let (status, _) = status_of(&observed, ago(-1));
    assert_eq!(
        state(&status, "office-1"),
        (NodeState::Dead, "NotSeen".into())
    );
}

#[test]
fn a_replaced_pod_starts_though_the_old_one_was_heard() {
    let mut observed = observed();
    let mut fresh = pod("office-1");
    fresh.uid = "another".into();
    fresh.address = Some("10.0.0.99".into());
    fresh.is_ready = false;
    fresh.created_at = ago(1);
    observed.pods.insert("office-1".into(), fresh);
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        state(&status, "office-1"),
        (NodeState::Standby, "Starting".into())
    );
}

#[test]
fn what_keeps_the_cluster_from_starting_is_the_reason() {
    let problem = |reason: &str| Problem {
        reason: reason.into(),
        message: "create it".into(),
    };
    let mut observed = observed();
    observed.status = PbxClusterStatus::default();
    observed.reports.clear();
    pod_of(&mut observed, "office-0").problem = Some(problem("ImageUnavailable"));
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        condition(&status, "Available"),
        words("False", "ImageUnavailable")
    );
    observed.objects.problem = Some(problem("ConfigMapMissing"));
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        condition(&status, "Available"),
        words("False", "ConfigMapMissing")
    );
    assert_eq!(
        condition(&status, "Progressing"),
        words("False", "ConfigMapMissing")
    );
}

#[test]
fn an_unready_standby_is_not_redundancy() {
    let mut observed = observed();
    said(&mut observed, "office-1").report.ready = false;
    let (status, _) = status_of(&observed, now());
    assert_eq!(
        condition(&status, "Redundant"),
        words("False", "StandbyNotReady")
    );
    assert_eq!(status.ready.as_deref(), Some("0/1"));
}

#[test]
fn counts_survive_a_restart_of_operator_and_sidecars() {
    let mut observed = observed();
    take_over(&mut observed);
    observed.status = status_of(&observed, now()).0;
    for name in ["office-0", "office-1"] {
        said(&mut observed, name).report.ledger = Ledger::default();
    }
    let (status, _) = status_of(&observed, now());
    assert_eq!(status.counts.failovers, 1);
    assert_eq!(node(&status, "office-1").counts.promotions, 1);
}
