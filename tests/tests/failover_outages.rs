//! What a failover must not need: the operator, and for a while the API server.

use std::time::Duration;

use pbx_tests::scenario::outages;
use support::office;

mod support;

/// The first of them by its name: after an outage of the API server a kube-proxy may not hear of a move for seconds (seen: 4 s), and
/// sends clients to the old node for so long, whose Asterisk is there again as a standby's.
#[test]
fn a_failover_needs_no_operator_and_is_counted_when_it_is_back() {
    let found = outages::operator_down(office()).unwrap();
    assert!(found.promoted_ms <= 200.0, "{found:?}");
}

/// Before the outages too, for the same reason.
#[test]
fn an_api_cut_from_one_node_moves_nothing_that_can_stay() {
    let found = outages::api_cut_from_active(office()).unwrap();
    assert!(found.promoted_ms <= 200.0, "{found:?}");
    let gap_ms = outages::api_cut_from_standby(office()).unwrap();
    assert!(gap_ms <= 2500.0, "{gap_ms} ms without an answer");
}

#[test]
fn asterisk_killed_without_the_api_is_restarted_in_place() {
    let gap_ms = outages::api_down(office(), Duration::from_secs(20)).unwrap();
    assert!(gap_ms <= 2500.0, "{gap_ms} ms without an answer");
}

#[test]
fn lone_active_keeps_its_call_through_a_blip_of_the_api() {
    outages::api_blip_alone(office(), Duration::from_secs(5)).unwrap();
}
