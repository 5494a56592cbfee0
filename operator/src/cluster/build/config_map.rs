//! The ConfigMap with the sidecars' file, and its hash, which rolls the pods when it changes.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::ConfigMap;
use pbx_crds::cluster::{FailoverSpec, PortSpec};
use pbx_crds::health::HealthSpec;
use pbx_crds::names;
use pbx_crds::sidecar_config::{
    AsteriskConfig, EndpointSliceConfig, HeartbeatConfig, KubernetesConfig, PeerConfig,
    SidecarConfig,
};
use pbx_crds::switchover::{DrillSpec, FailoverMode, SwitchoverSpec};
use sha2::{Digest, Sha256};

use super::{ValidatedCluster, doors, metadata};
use crate::cluster::dereference::short_hex;

/// Entry of the ConfigMap, and name of the file in the pod.
pub const FILE: &str = "sidecar.yaml";
/// Where the user's files are mounted, in the sidecar only.
pub const USER_DIR: &str = "/etc/pbx-ha/user";
/// Where the heartbeat key is mounted, in the sidecar only.
pub const KEY_DIR: &str = "/etc/pbx-ha/key";

/// The ConfigMap around `sidecar_yaml`.
pub fn build(cluster: &ValidatedCluster, sidecar_yaml: String) -> ConfigMap {
    ConfigMap {
        metadata: metadata(cluster, names::sidecar_config_map(&cluster.name)),
        data: Some([(FILE.to_owned(), sidecar_yaml)].into()),
        ..ConfigMap::default()
    }
}

/// The sidecars' file: the same for all nodes.
pub fn sidecar_yaml(cluster: &ValidatedCluster) -> String {
    serde_yaml::to_string(&sidecar_config(cluster))
        .expect("a sidecar's file holds texts, numbers and lists only")
}

/// Of the sidecars' file. The number of nodes is no part of it: running sidecars learn it from the seat map, so another node comes or
/// goes without replacing the others.
pub fn file_hash(cluster: &ValidatedCluster) -> String {
    let mut config = sidecar_config(cluster);
    config.nodes.clear();
    let rest = serde_yaml::to_string(&config).expect("as the whole file");
    short_hex(&Sha256::digest(rest))
}

/// Folder of the user's ConfigMap in the sidecar.
pub fn config_map_dir() -> String {
    format!("{USER_DIR}/config")
}

/// Folder of the user's Secret number `index` in the sidecar.
pub fn secret_dir(index: usize) -> String {
    format!("{USER_DIR}/secret-{index}")
}

fn sidecar_config(cluster: &ValidatedCluster) -> SidecarConfig {
    let nodes = (0..cluster.nodes).map(|seat| PeerConfig {
        name: names::pod(&cluster.name, seat),
        address: None,
        addresses: Vec::new(),
    });
    SidecarConfig {
        cluster: cluster.name.clone(),
        node: None,
        nodes: nodes.collect(),
        heartbeat: HeartbeatConfig {
            listen: Some(([0, 0, 0, 0], names::HEARTBEAT_PORT).into()),
            key_file: format!("{KEY_DIR}/key").into(),
        },
        // What a sidecar reads live from the resource is not in its file, whose change rolls the pods.
        failover: FailoverSpec {
            mode: FailoverMode::default(),
            switchover: SwitchoverSpec::default(),
            ..cluster.failover.clone()
        },
        health: HealthSpec::default(),
        drills: DrillSpec::default(),
        hooks: Vec::new(),
        paused: false,
        http: ([0, 0, 0, 0], names::HTTP_PORT).into(),
        doors: doors::config(&cluster.doors),
        asterisk: AsteriskConfig {
            guard_socket: "/run/pbx-ha/guard.sock".into(),
            defaults_dir: "/run/pbx-ha/defaults".into(),
            user_dirs: user_dirs(cluster),
            config_dir: "/run/pbx-ha/config".into(),
            trunks: cluster.trunks,
            standby: cluster.standby,
        },
        record_dir: "/run/pbx-ha/record".into(),
        network: cluster.floating.clone(),
        kubernetes: Some(KubernetesConfig {
            namespace: cluster.namespace.clone(),
            lease: names::lease(&cluster.name),
            endpoint_slice: cluster.floating.is_none().then(|| EndpointSliceConfig {
                name: names::endpoint_slice(&cluster.name),
                ports: with_target_ports(&cluster.service.ports),
            }),
            kubeconfig: None,
        }),
    }
}

fn user_dirs(cluster: &ValidatedCluster) -> Vec<PathBuf> {
    let config_map = cluster.config_map.iter().map(|_| config_map_dir());
    let secrets = (0..cluster.config_secrets.len()).map(secret_dir);
    config_map.chain(secrets).map(PathBuf::from).collect()
}

fn with_target_ports(ports: &[PortSpec]) -> Vec<PortSpec> {
    ports
        .iter()
        .map(|port| PortSpec {
            target_port: Some(port.target_port.unwrap_or(port.port)),
            ..port.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_sidecar_reads_what_is_written_here() {
        let cluster = testing::validated("asterisk: {config: {configMap: a, secrets: [s]}}");
        let read: SidecarConfig = serde_yaml::from_str(&sidecar_yaml(&cluster)).unwrap();
        assert_eq!(read, sidecar_config(&cluster));
        assert_eq!(
            read.asterisk.user_dirs,
            ["/etc/pbx-ha/user/config", "/etc/pbx-ha/user/secret-0"].map(PathBuf::from)
        );
    }
}
