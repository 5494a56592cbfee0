//! Builders for the tests: minimal YAML through the real validation; they default to the good case.

use clap::Parser as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use pbx_crds::status::FailoverRecord;
use pbx_crds::{Cause, PbxCluster};

use crate::cluster::dereference::{ConfigFound, Dereferenced};
use crate::cluster::validate::{ValidatedCluster, validate};
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
        time: Time(Timestamp::from_second(1_800_000_000 + epoch).expect("a moment of this century")),
        from: from.map(Into::into),
        to: to.into(),
        cause: Cause::NodeSilent,
        planned: false,
        detection_ms: 800,
        promotion_ms: 5,
        traffic_ms: None,
    }
}
