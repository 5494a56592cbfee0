//! The StatefulSet: all pods start at once (an ordered start deadlocks after a power loss), and a new template replaces
//! none by itself (`OnDelete`): [`crate::observe::rollout`] replaces standbys first.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use pbx_crds::names;

use super::{ValidatedCluster, labels, metadata, pod};

/// The StatefulSet of `cluster`; a change of `config_hash` rolls its pods.
pub fn build(cluster: &ValidatedCluster, config_hash: &str) -> StatefulSet {
    let annotations = [(
        names::CONFIG_HASH_ANNOTATION.to_owned(),
        config_hash.to_owned(),
    )];
    StatefulSet {
        metadata: metadata(cluster, cluster.name.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(cluster.nodes.into()),
            pod_management_policy: Some("Parallel".into()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                rolling_update: None,
            }),
            selector: LabelSelector {
                match_labels: Some(selector(cluster)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(cluster)),
                    annotations: Some(annotations.into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::build(cluster)),
            },
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// The pods of `cluster`.
pub fn selector(cluster: &ValidatedCluster) -> BTreeMap<String, String> {
    [(names::CLUSTER_LABEL.to_owned(), cluster.name.clone())].into()
}
