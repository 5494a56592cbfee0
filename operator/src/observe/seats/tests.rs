//! The seat map: the copy in the status, and the seat of a dead occupant.

use pbx_crds::quorum::SeatsRecord;

use super::*;
use crate::testing::{observed, uid};

const QUARANTINE: Duration = Duration::from_millis(1600);

fn record(occupants: &[&str], requested: &[bool]) -> QuorumRecord {
    let seats = SeatsRecord {
        count: 2,
        occupants: occupants
            .iter()
            .map(|uid| (!uid.is_empty()).then(|| (*uid).to_owned()))
            .collect(),
        requested: requested.to_vec(),
    };
    QuorumRecord::created(0, seats)
}

fn copy(record: &QuorumRecord, old: Option<&WitnessStatus>) -> WitnessStatus {
    remembered("office-witness".into(), record, old, &observed())
}

#[test]
fn the_copy_names_occupants_and_their_kubernetes_nodes() {
    let copy = copy(&record(&[&uid("office-0"), ""], &[false, false]), None);
    assert_eq!(copy.seats, [uid("office-0"), String::new()]);
    assert_eq!(copy.node_names, ["kube-0", ""]);
    assert!(copy.requested.is_empty());
}

#[test]
fn the_kubernetes_node_of_an_occupant_is_remembered_after_its_pod() {
    let gone = record(&["gone", &uid("office-1")], &[false, false]);
    let old = WitnessStatus {
        seats: vec!["gone".into(), String::new()],
        node_names: vec!["kube-9".into(), String::new()],
        ..WitnessStatus::default()
    };
    assert_eq!(copy(&gone, Some(&old)).node_names, ["kube-9", "kube-1"]);
    let other = record(&["other", ""], &[false, false]);
    assert_eq!(copy(&other, Some(&old)).node_names, ["", ""]);
}

#[test]
fn a_request_stays_until_its_occupant_is_gone() {
    let old = WitnessStatus {
        seats: vec!["u".into(), String::new()],
        requested: vec![0],
        ..WitnessStatus::default()
    };
    assert_eq!(
        copy(&record(&["u", ""], &[false, false]), Some(&old)).requested,
        [0]
    );
    assert!(
        copy(&record(&["v", ""], &[false, false]), Some(&old))
            .requested
            .is_empty()
    );
    assert!(
        copy(&record(&["", ""], &[false, false]), Some(&old))
            .requested
            .is_empty()
    );
    assert_eq!(
        copy(&record(&["", "w"], &[false, true]), Some(&old)).requested,
        [1]
    );
}

#[test]
fn a_dead_occupant_is_asked_in_status_then_in_the_lease_and_then_its_seat_is_emptied() {
    let mut status = copy(&record(&["u", ""], &[false, false]), None);
    let asked = record(&["u", ""], &[true, false]);
    let not_asked = record(&["u", ""], &[false, false]);
    let step = |record: &QuorumRecord, status: &WitnessStatus, dead_for| {
        for_dead_occupant(0, record, status, dead_for, QUARANTINE)
    };
    let SeatStep::Remember(remembered) = step(&not_asked, &status, QUARANTINE * 9) else {
        panic!("the status comes first");
    };
    status = remembered;
    assert_eq!(
        step(&not_asked, &status, QUARANTINE * 9),
        SeatStep::Request(0)
    );
    assert_eq!(step(&asked, &status, QUARANTINE / 2), SeatStep::Wait);
    assert_eq!(step(&asked, &status, QUARANTINE), SeatStep::Vacate(0));
}

#[test]
fn a_kubernetes_node_is_lost_when_deleted_or_tainted_only() {
    let node = |yaml: &str| -> Node { serde_yaml::from_str(yaml).unwrap() };
    assert!(is_lost(None));
    assert!(!is_lost(Some(&node("spec: {}"))));
    let unreachable =
        node("spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}]}");
    assert!(!is_lost(Some(&unreachable)));
    let out_of_service =
        node("spec: {taints: [{key: node.kubernetes.io/out-of-service, effect: NoExecute}]}");
    assert!(is_lost(Some(&out_of_service)));
}

#[test]
fn a_request_that_is_over_is_taken_out_of_the_status() {
    let patch = status_patch(Some("u"), &WitnessStatus::default());
    assert_eq!(patch["status"]["witness"]["requested"], json!([]));
    assert_eq!(patch["status"]["witness"]["nodeNames"], json!([]));
}
