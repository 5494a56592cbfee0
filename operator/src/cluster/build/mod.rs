//! Step 3: a [`ValidatedCluster`] becomes the objects it needs. Pure: one builder per file, no client.
//!
//! Not here: the Secret with the heartbeat key and the witness Lease. They are created once and belong to others
//! afterwards; see [`crate::cluster::apply`].

mod config_map;
mod disruption_budget;
mod doors;
mod endpoint_slice;
mod pod;
mod rbac;
mod service;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pbx_crds::names;

use super::validate::{Config, ValidatedCluster};

/// The objects of a cluster that are applied.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Who the sidecars are.
    pub service_account: ServiceAccount,
    /// What they may.
    pub role: Role,
    /// That they may it.
    pub role_binding: RoleBinding,
    /// The sidecars' file.
    pub sidecar_config: ConfigMap,
    /// Where phones and trunks go; `None`: to floating addresses.
    pub traffic: Option<Traffic>,
    /// Keeps voluntary disruptions to one pod at a time.
    pub disruption_budget: PodDisruptionBudget,
    /// The pods; `None` while their ConfigMap is missing, so that what runs is left alone.
    pub stateful_set: Option<StatefulSet>,
}

/// Where phones and trunks go in Pod mode.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The Service without a selector.
    pub service: Service,
    /// Its one endpoint: ports and metadata only, the endpoints are the sidecars'.
    pub endpoint_slice: EndpointSlice,
}

/// Builds all objects of `cluster`.
pub fn build(cluster: &ValidatedCluster) -> Resources {
    let sidecar_yaml = config_map::sidecar_yaml(cluster);
    let stateful_set = match &cluster.config {
        // The sidecars take changed files of the user by themselves, see their `asterisk/reload.rs`.
        Config::Present { .. } => {
            let hash = config_map::file_hash(cluster);
            Some(stateful_set::build(cluster, &hash))
        }
        Config::Missing => None,
    };
    Resources {
        service_account: rbac::service_account(cluster),
        role: rbac::role(cluster),
        role_binding: rbac::role_binding(cluster),
        sidecar_config: config_map::build(cluster, sidecar_yaml),
        traffic: cluster.floating.is_none().then(|| Traffic {
            service: service::build(cluster),
            endpoint_slice: endpoint_slice::build(cluster),
        }),
        disruption_budget: disruption_budget::build(cluster),
        stateful_set,
    }
}

/// Labels of every object of `cluster`.
pub fn labels(cluster: &ValidatedCluster) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "pbx"),
        ("app.kubernetes.io/instance", &cluster.name),
        ("app.kubernetes.io/managed-by", "pbx-ha"),
        (names::CLUSTER_LABEL, &cluster.name),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Metadata of an object called `name`, owned by `cluster`.
pub fn metadata(cluster: &ValidatedCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels(cluster)),
        owner_references: Some(vec![cluster.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const MINIMAL: &str = "asterisk: {config: {configMap: office-asterisk}}";
    const FULL: &str = "
nodes: 3
asterisk:
  image: registry.example/asterisk:22
  imagePullPolicy: Always
  imagePullSecrets: [{name: registry}]
  config: {configMap: a, secrets: [s, t]}
  trunks: Untouched
  resources: {requests: {cpu: 1, memory: 256Mi}}
  nodeSelector: {disk: ssd}
  tolerations: [{key: pbx, operator: Exists}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
network: {service: {type: LoadBalancer, annotations: {a: b}, ports: [{name: sip, port: 5060, targetPort: 5062}]}}
failover: {preferredNode: office-1, deadtime: 2s}
doors: {tokenSecret: t, tlsSecret: c, http: {tlsPort: 8443}, haast: {port: 3002}, sysadm: {enabled: true}, droonga: {enabled: true}, ami: {enabled: true, tlsPort: 5039, usersSecret: u}}
";

    const FLOATING: &str = "
asterisk: {config: {configMap: a}}
network: {mode: Host, vip: [{address: 192.0.2.50/24, interface: eth0}], fence: {ports: [{port: 5060}]}}
";

    fn yaml(spec: &str) -> String {
        let Resources {
            service_account,
            role,
            role_binding,
            sidecar_config,
            traffic,
            disruption_budget,
            stateful_set,
        } = build(&testing::validated(spec));
        let (service, endpoint_slice) = traffic
            .map(|traffic| (traffic.service, traffic.endpoint_slice))
            .unzip();
        [
            serde_yaml::to_string(&service_account),
            serde_yaml::to_string(&role),
            serde_yaml::to_string(&role_binding),
            serde_yaml::to_string(&sidecar_config),
            serde_yaml::to_string(&service),
            serde_yaml::to_string(&endpoint_slice),
            serde_yaml::to_string(&disruption_budget),
            serde_yaml::to_string(&stateful_set),
        ]
        .map(Result::unwrap)
        .join("---\n")
    }

    #[test]
    fn the_objects_of_a_minimal_cluster() {
        insta::assert_snapshot!(yaml(MINIMAL));
    }

    #[test]
    fn the_objects_of_a_cluster_with_everything_set() {
        insta::assert_snapshot!(yaml(FULL));
    }

    #[test]
    fn the_objects_of_a_cluster_with_a_floating_address() {
        insta::assert_snapshot!(yaml(FLOATING));
    }

    #[test]
    fn a_missing_config_map_leaves_the_pods_alone() {
        let mut cluster = testing::validated(MINIMAL);
        cluster.config = Config::Missing;
        assert!(build(&cluster).stateful_set.is_none());
    }

    #[test]
    fn another_node_does_not_change_the_pods_of_the_others() {
        let template = |nodes: &str| {
            let cluster = testing::validated(&format!("nodes: {nodes}\n{MINIMAL}"));
            build(&cluster).stateful_set.unwrap().spec.unwrap().template
        };
        assert_eq!(template("2"), template("3"));
    }

    #[test]
    fn a_change_of_the_sidecars_file_rolls_the_pods_and_one_of_the_users_files_does_not() {
        let annotation = |cluster: &ValidatedCluster| {
            let template = build(cluster).stateful_set.unwrap().spec.unwrap().template;
            template.metadata.unwrap().annotations.unwrap()[names::CONFIG_HASH_ANNOTATION].clone()
        };
        let cluster = testing::validated(MINIMAL);
        let mut changed_files = cluster.clone();
        changed_files.config = Config::Present {
            hash: "other".into(),
        };
        let mut changed_timing = cluster.clone();
        changed_timing.failover.deadtime = pbx_crds::ShortDuration::from_millis(2000);
        assert_eq!(annotation(&cluster), annotation(&changed_files));
        assert_ne!(annotation(&cluster), annotation(&changed_timing));
    }
}
