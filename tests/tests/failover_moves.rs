//! The role moves from one node to the other: for each cause, one active after it, exact counts, no two answers at once, and times that
//! a loaded machine keeps as well. The figures proper are measured by `cargo xtask bench e2e`.

use std::time::Duration;

use pbx_crds::Cause;
use pbx_tests::cluster::wait_until;
use pbx_tests::office::{NAME, NAMESPACE};
use pbx_tests::scenario::moves::Move;
use pbx_tests::scenario::{kills, nodes, pods};
use support::office;

mod support;

/// What kube-proxy may add when it has just synced (FINDINGS A).
const BUSY_PROXY_MS: f64 = 1500.0;

fn assert_quick(found: &Move, promoted_ms: f64, gap_ms: f64) {
    assert!(found.promoted_ms <= promoted_ms, "{found:?}");
    assert!(found.gap_ms <= gap_ms, "{found:?}");
}

fn last_cause() -> Option<Cause> {
    office().watcher.view().status.last_cause
}

#[test]
fn killed_asterisk_is_replaced_by_the_standby() {
    for _ in 0..3 {
        let found = kills::kill_asterisk(office()).unwrap();
        assert_quick(&found, 200.0, BUSY_PROXY_MS);
        assert_eq!(last_cause(), Some(Cause::AsteriskExited));
    }
}

#[test]
fn killed_sidecar_comes_back_to_its_role_and_its_asterisk() {
    for _ in 0..2 {
        let back_ms = kills::kill_sidecar(office()).unwrap();
        assert!(back_ms <= 1000.0, "{back_ms} ms");
    }
}

#[test]
fn deleted_pod_hands_over_before_it_ends() {
    let found = pods::delete_active(office()).unwrap();
    assert!(found.gap_ms <= BUSY_PROXY_MS, "{found:?}");
    assert_eq!(last_cause(), Some(Cause::PodDeleted));
}

#[test]
fn changed_configuration_rolls_all_pods_and_moves_the_role_once() {
    let mark = format!("test {:?}", std::time::SystemTime::now());
    let found = pods::roll(office(), &mark).unwrap();
    assert!(found.gap_ms <= BUSY_PROXY_MS, "{found:?}");
}

#[test]
fn drained_node_hands_over_before_it_is_empty() {
    let found = pods::drain(office()).unwrap();
    assert!(found.gap_ms <= BUSY_PROXY_MS, "{found:?}");
}

#[test]
fn silent_node_is_replaced_after_deadtime() {
    let found = nodes::power_off(office()).unwrap();
    assert_quick(&found, 1500.0, 4000.0);
    assert_eq!(last_cause(), Some(Cause::NodeSilent));
}

#[test]
fn a_deleted_endpoint_slice_points_at_the_active_again_and_the_role_stays() {
    let office = office();
    let before = office.watcher.view();
    let selector = format!("--selector=kubernetes.io/service-name={NAME}");
    let slices = ["endpointslices", &selector, "--namespace", NAMESPACE];
    let form = "--output=jsonpath={.items[*].metadata.uid} {.items[*].endpoints[*].addresses[*]}";
    let shown = || {
        office
            .cluster
            .kubectl(&[&["get"], &slices[..], &[form]].concat())
    };
    let (uid, address) = (shown().unwrap(), before.traffic.address.unwrap());
    let uid = uid.split(' ').next().unwrap();
    office
        .cluster
        .kubectl(&[&["delete"], &slices[..]].concat())
        .unwrap();
    wait_until("the slice of the active", Duration::from_secs(10), || {
        let now = shown()?;
        Ok(!now.contains(uid) && now.ends_with(&address))
    })
    .unwrap();
    let after = office.wait_whole().unwrap();
    assert_eq!(after.status.epoch, before.status.epoch);
}
