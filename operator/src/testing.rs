//! Builders for the tests: minimal YAML through the real validation; they default to the good case.

use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use pbx_crds::health::HealthStatus;
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{Report, ReportedRole};
use pbx_crds::status::{AsteriskState, AsteriskStatus, FailoverRecord, LinkState, LinkStatus};
use pbx_crds::{Cause, PbxCluster, PbxClusterStatus};

use crate::cluster::dereference::{ConfigFound, Dereferenced};
use crate::cluster::validate::{ValidatedCluster, validate};
use crate::observe::facts::{NodeReport, ObjectsState, Observed, PodFacts, TemplateFacts};
use crate::observe::status::status_of;
use crate::settings::Settings;

/// The cluster `default/office` with this spec.
pub fn cluster(spec: &str) -> PbxCluster {
    let spec = serde_yaml::from_str(spec).expect("the test's spec is sound YAML");
    let mut cluster = PbxCluster::new("office", spec);
    let metadata = cluster.meta_mut();
    metadata.namespace = Some("default".into());
    metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    metadata.generation = Some(1);
    metadata.resource_version = Some("1".into());
    cluster
}

/// As validated, with a ConfigMap that exists.
pub fn validated(spec: &str) -> ValidatedCluster {
    let cluster = cluster(spec);
    let dereferenced = Dereferenced {
        cluster: &cluster,
        config: ConfigFound::Hash("c0ffee".into()),
    };
    validate(&dereferenced, &settings()).expect("the test's spec is sound")
}

/// All defaults.
pub fn settings() -> Settings {
    Settings::parse_from([
        "pbx-operator",
        "--sidecar-image",
        "localhost/pbx-ha/sidecar:test",
    ])
}

/// An unplanned change of the active, for silence.
pub fn change(epoch: i64, from: Option<&str>, to: &str) -> FailoverRecord {
    FailoverRecord {
        epoch,
        time: Time(
            Timestamp::from_second(1_800_000_000 + epoch).expect("a moment of this century"),
        ),
        from: from.map(Into::into),
        to: to.into(),
        cause: Cause::NodeSilent,
        planned: false,
        detection_ms: 800,
        promotion_ms: 5,
        traffic_ms: None,
    }
}

/// The moment at which the tests observe, an hour after the cluster was made.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_003_600).expect("a moment of this century")
}

/// `seconds` before [`now`].
pub fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// A whole cluster: office-0 active under epoch 4, office-1 standby, both pods old and of the present revision.
pub fn observed() -> Observed {
    let mut observed = Observed {
        name: "office".into(),
        created_at: ago(3600),
        nodes: 2,
        initdead: std::time::Duration::from_secs(30),
        status: PbxClusterStatus::default(),
        objects: ObjectsState {
            generation: Some(1),
            ..ObjectsState::default()
        },
        pods: ["office-0", "office-1"]
            .map(|name| (name.to_owned(), pod(name)))
            .into(),
        reports: ["office-0", "office-1"]
            .map(|name| (uid(name), report(name)))
            .into(),
        template: TemplateFacts {
            revision: Some("r1".into()),
        },
    };
    observed.status = status_of(&observed, ago(60)).0;
    observed
}

/// The UID of a pod made by [`pod`].
pub fn uid(name: &str) -> String {
    format!("uid-{name}")
}

/// A ready pod, an hour old.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        name: name.into(),
        uid: uid(name),
        address: Some(format!("10.0.0.1{}", &name[name.len() - 1..])),
        node_name: Some(format!("kube-{}", &name[name.len() - 1..])),
        revision: Some("r1".into()),
        is_ready: true,
        was_never_ready: false,
        is_terminating: false,
        created_at: ago(3600),
        role_label: None,
        user_hash: None,
        problem: None,
    }
}

/// What a node of the whole cluster says.
pub fn report(name: &str) -> NodeReport {
    let is_active = name == "office-0";
    let peer = if is_active { "office-1" } else { "office-0" };
    let mut ledger = Ledger::default();
    ledger.record(change(4, None, "office-0"));
    let report = Report {
        node: name.into(),
        uid: uid(name),
        role: if is_active {
            ReportedRole::Active
        } else {
            ReportedRole::Standby
        },
        detail: if is_active { "Serving" } else { "Ready" }.into(),
        since: Time(ago(600)),
        started_at: None,
        epoch: 4,
        active: Some("office-0".into()),
        ready: true,
        asterisk: AsteriskStatus {
            state: AsteriskState::Running,
            version: Some("22.10.1".into()),
        },
        config_hash: None,
        health: HealthStatus::default(),
        switchover: None,
        links: vec![LinkStatus {
            name: peer.into(),
            state: LinkState::Up,
        }],
        holds_witness: false,
        terminating: false,
        problem: None,
        ledger,
    };
    NodeReport {
        report,
        is_connected: true,
    }
}

/// The report of `name`, to be changed.
pub fn said<'a>(observed: &'a mut Observed, name: &str) -> &'a mut NodeReport {
    observed
        .reports
        .get_mut(&uid(name))
        .expect("the whole cluster has this node")
}

/// The pod `name`, to be changed.
pub fn pod_of<'a>(observed: &'a mut Observed, name: &str) -> &'a mut PodFacts {
    observed
        .pods
        .get_mut(name)
        .expect("the whole cluster has this pod")
}

/// office-0 is cut off or dead, and office-1 sees it silent.
pub fn silence_active(observed: &mut Observed) {
    said(observed, "office-0").is_connected = false;
    said(observed, "office-1").report.links[0].state = LinkState::Down;
}

/// office-1 has taken over under epoch 5.
pub fn take_over(observed: &mut Observed) {
    let taker = &mut said(observed, "office-1").report;
    taker.role = ReportedRole::Active;
    taker.detail = "Serving".into();
    taker.epoch = 5;
    taker.active = Some("office-1".into());
    taker.since = Time(now());
    taker.ledger.record(change(5, Some("office-0"), "office-1"));
}
