//! Views for the tests of all doors.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pbx_crds::Cause;
use pbx_crds::health::HealthStatus;
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{Report, ReportedRole};
use pbx_crds::status::{AsteriskState, AsteriskStatus, FailoverRecord, LinkState, LinkStatus};

use crate::view::{NodeView, View};

/// A moment, in seconds since 1970.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("within the range of time")
}

/// Two nodes that hear each other: office-0, this node and the active, and office-1. Began at 1,700,000,000.
pub fn two_nodes() -> View {
    View {
        cluster: "office".into(),
        cluster_started_at: at(1_690_000_000),
        started_at: at(1_700_000_000),
        own: 0,
        nodes: vec![
            node("office-0", ReportedRole::Active),
            node("office-1", ReportedRole::Standby),
        ],
        active: Some(0),
        epoch: 7,
        keepalive: Duration::from_millis(100),
        warntime: Duration::from_millis(400),
        deadtime: Duration::from_millis(800),
        initdead: Duration::from_secs(30),
    }
}

/// A node that is heard and has told its report.
pub fn node(name: &str, role: ReportedRole) -> NodeView {
    NodeView {
        name: name.into(),
        address: None,
        is_up: true,
        is_known: true,
        report: Some(Arc::new(report(name, role))),
    }
}

/// A report without links and history.
pub fn report(name: &str, role: ReportedRole) -> Report {
    Report {
        node: name.into(),
        uid: format!("uid-{name}"),
        role,
        detail: "Serving".into(),
        since: Time(at(1_700_000_100)),
        started_at: Some(Time(at(1_700_000_050))),
        epoch: 7,
        active: Some("office-0".into()),
        ready: true,
        asterisk: AsteriskStatus {
            state: AsteriskState::Running,
            version: Some("22.10.1".into()),
        },
        config_hash: None,
        health: pbx_crds::health::HealthStatus::default(),
        switchover: None,
        links: Vec::new(),
        holds_witness: false,
        terminating: false,
        problem: None,
        health: HealthStatus::default(),
        switchover: None,
        ledger: Ledger::default(),
    }
}

/// Changes a node's report.
pub fn change_report(view: &mut View, node: usize, change: impl FnOnce(&mut Report)) {
    let report = view.nodes[node]
        .report
        .as_mut()
        .expect("the fixture has one");
    change(Arc::make_mut(report));
}

/// Gives this node links.
pub fn set_links(view: &mut View, links: &[(&str, LinkState)]) {
    let links = links.iter().map(|(name, state)| LinkStatus {
        name: (*name).into(),
        state: *state,
    });
    let links = links.collect();
    change_report(view, 0, |report| report.links = links);
}

/// A change of the active, `epoch` seconds after a moment in April 2016.
pub fn change(
    epoch: i64,
    from: Option<&str>,
    to: &str,
    cause: Cause,
    planned: bool,
) -> FailoverRecord {
    FailoverRecord {
        epoch,
        time: Time(at(1_459_816_998 + epoch)),
        from: from.map(Into::into),
        to: to.into(),
        cause,
        planned,
        detection_ms: 1,
        promotion_ms: 1,
        traffic_ms: None,
    }
}
