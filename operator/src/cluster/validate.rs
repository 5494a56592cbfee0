//! Step 2: the raw spec becomes a [`ValidatedCluster`]; nothing after it reads the raw spec. Pure.
//!
//! The API server has checked the schema and its rules already; this catches what they cannot say, and clusters
//! that were stored under older rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use pbx_crds::cluster::{
    FailoverSpec, NetworkSpec, PbxClusterSpec, PullPolicy, ServiceSpec, StandbyMode, TrunkPolicy,
};
use pbx_crds::doors::DoorsSpec;
use pbx_crds::network::{NetworkMode, sidecar_network};
use pbx_crds::sidecar_config::NetworkConfig;
use pbx_crds::{PbxCluster, names, timing};

use super::dereference::{ConfigFound, Dereferenced};
use crate::settings::Settings;

/// A cluster that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCluster {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Makes the garbage collector remove the objects with the cluster.
    pub owner: OwnerReference,
    /// Number of nodes.
    pub nodes: u8,
    /// The PBX image.
    pub asterisk_image: String,
    /// When it is pulled.
    pub asterisk_pull_policy: PullPolicy,
    /// The image of sidecar and guard.
    pub sidecar_image: String,
    /// When it is pulled.
    pub sidecar_pull_policy: String,
    /// Secrets to pull images with.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The user's ConfigMap.
    pub config_map: Option<String>,
    /// The user's Secrets.
    pub config_secrets: Vec<String>,
    /// Whether the pods can be made, and the hash of the configuration.
    pub config: Config,
    /// Outbound registrations.
    pub trunks: TrunkPolicy,
    /// Whether a standby's Asterisk runs.
    pub standby: StandbyMode,
    /// Of the Asterisk container.
    pub resources: Option<ResourceRequirements>,
    /// Placement.
    pub node_selector: BTreeMap<String, String>,
    /// Placement.
    pub tolerations: Vec<Toleration>,
    /// Placement; `None`: our default.
    pub affinity: Option<Affinity>,
    /// Placement.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The Service, in Pod mode.
    pub service: ServiceSpec,
    /// Floating addresses, in Host mode.
    pub floating: Option<NetworkConfig>,
    /// Timings.
    pub failover: FailoverSpec,
    /// Interfaces for clients.
    pub doors: DoorsSpec,
}

/// The user's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// Pods that read it can be made. The hash is empty when all of it is in Secrets.
    Present {
        /// Hash of the ConfigMap's entries.
        hash: String,
    },
    /// The ConfigMap does not exist: pods are neither made nor changed.
    Missing,
}

/// What is wrong with a spec, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The API server gave no UID or namespace.
    #[error("the cluster has no {0}: it was not read from an API server")]
    NotStored(&'static str),
    /// The name.
    #[error(
        "the name \"{0}\" has more than 40 characters or a dot: make a cluster with a shorter, plain name"
    )]
    Name(String),
    /// The number of nodes.
    #[error("spec.nodes is {0}: choose 2 to 5")]
    Nodes(u8),
    /// The configuration.
    #[error("spec.asterisk.config names nothing: set configMap, or list secrets")]
    NoConfig,
    /// A timing.
    #[error("spec.failover.{field}: {message}")]
    Timing {
        /// The field.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// Two ports alike.
    #[error(
        "spec.network.service.ports: {0}: give each port its own name, and each protocol its own port"
    )]
    Ports(String),
    /// The floating addresses.
    #[error("spec.network.vip: {0}")]
    Vip(String),
    /// The preferred node.
    #[error(
        "spec.failover.preferredNode is \"{given}\", which is no node of this cluster: choose one of {known}"
    )]
    PreferredNode {
        /// What stands there.
        given: String,
        /// What may.
        known: String,
    },
}

impl ValidateError {
    /// A stable reason: one for all, since the message says what to change.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotStored(_)
            | Self::Name(_)
            | Self::Nodes(_)
            | Self::NoConfig
            | Self::Timing { .. }
            | Self::Ports(_)
            | Self::Vip(_)
            | Self::PreferredNode { .. } => "InvalidSpec",
        }
    }
}

/// Checks the spec and fills in the defaults of this installation.
pub fn validate(
    dereferenced: &Dereferenced<'_>,
    settings: &Settings,
) -> Result<ValidatedCluster, ValidateError> {
    let cluster = dereferenced.cluster;
    let spec = &cluster.spec;
    let name = cluster.name_any();
    check_name(&name)?;
    check_nodes(spec.nodes)?;
    check_config(cluster)?;
    check_timing(spec)?;
    check_ports(&spec.network.service)?;
    check_preferred(&name, spec.nodes, &spec.failover)?;
    let floating = floating(&spec.network)?;
    let asterisk = spec.asterisk.clone();
    Ok(ValidatedCluster {
        owner: cluster
            .controller_owner_ref(&())
            .ok_or(ValidateError::NotStored("UID"))?,
        namespace: cluster
            .namespace()
            .ok_or(ValidateError::NotStored("namespace"))?,
        uid: cluster.uid().ok_or(ValidateError::NotStored("UID"))?,
        name,
        nodes: spec.nodes,
        asterisk_image: asterisk
            .image
            .unwrap_or_else(|| settings.asterisk_image.clone()),
        asterisk_pull_policy: asterisk.image_pull_policy,
        sidecar_image: settings.sidecar_image.clone(),
        sidecar_pull_policy: settings.sidecar_pull_policy.clone(),
        image_pull_secrets: asterisk.image_pull_secrets,
        config_map: asterisk.config.config_map,
        config_secrets: asterisk.config.secrets,
        config: match &dereferenced.config {
            ConfigFound::Missing => Config::Missing,
            ConfigFound::NotAsked => Config::Present {
                hash: String::new(),
            },
            ConfigFound::Hash(hash) => Config::Present { hash: hash.clone() },
        },
        trunks: asterisk.trunks,
        standby: asterisk.standby,
        resources: asterisk.resources,
        node_selector: asterisk.node_selector,
        tolerations: asterisk.tolerations,
        affinity: asterisk.affinity,
        topology_spread_constraints: asterisk.topology_spread_constraints,
        service: spec.network.service.clone(),
        floating,
        failover: spec.failover.clone(),
        doors: spec.doors.clone(),
    })
}

fn check_name(name: &str) -> Result<(), ValidateError> {
    if name.len() > 40 || name.contains('.') {
        return Err(ValidateError::Name(name.into()));
    }
    Ok(())
}

fn check_nodes(nodes: u8) -> Result<(), ValidateError> {
    if (2..=5).contains(&nodes) {
        return Ok(());
    }
    Err(ValidateError::Nodes(nodes))
}

fn check_config(cluster: &PbxCluster) -> Result<(), ValidateError> {
    let config = &cluster.spec.asterisk.config;
    if config.config_map.is_none() && config.secrets.is_empty() {
        return Err(ValidateError::NoConfig);
    }
    Ok(())
}

fn check_timing(spec: &PbxClusterSpec) -> Result<(), ValidateError> {
    let unfenced = (spec.network.mode == NetworkMode::Pod)
        .then(|| timing::unfenced_problem(&spec.failover))
        .flatten();
    let problems = timing::problems(&spec.failover).into_iter().chain(unfenced);
    match problems.into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(ValidateError::Timing {
            field: problem.field,
            message: problem.message,
        }),
    }
}

fn check_ports(service: &ServiceSpec) -> Result<(), ValidateError> {
    for (index, port) in service.ports.iter().enumerate() {
        for other in &service.ports[..index] {
            if port.name == other.name {
                return Err(ValidateError::Ports(format!("two are named {}", port.name)));
            }
            if (port.port, port.protocol) == (other.port, other.protocol) {
                let protocol = port.protocol.as_str();
                return Err(ValidateError::Ports(format!(
                    "two are {protocol} {}",
                    port.port
                )));
            }
        }
    }
    Ok(())
}

fn floating(network: &NetworkSpec) -> Result<Option<NetworkConfig>, ValidateError> {
    if network.mode == NetworkMode::Pod {
        return Ok(None);
    }
    if network.vip.is_empty() {
        return Err(ValidateError::Vip(
            "mode Host has no floating address: add one with an interface".into(),
        ));
    }
    for vip in &network.vip {
        check_address(&vip.address)?;
    }
    let fence = network.fence.clone().unwrap_or_default();
    Ok(Some(sidecar_network(&network.vip, &fence)))
}

fn check_address(text: &str) -> Result<(), ValidateError> {
    let parts = text.split_once('/');
    let is_sound = parts.is_some_and(|(ip, prefix)| {
        let longest = match ip.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => 0,
        };
        prefix
            .parse::<u8>()
            .is_ok_and(|prefix| (1..=longest).contains(&prefix))
    });
    if is_sound {
        return Ok(());
    }
    Err(ValidateError::Vip(format!(
        "{text} is no address with the length of its network's prefix: write it as 192.0.2.50/24 or 2001:db8::50/64"
    )))
}

fn check_preferred(name: &str, nodes: u8, failover: &FailoverSpec) -> Result<(), ValidateError> {
    let Some(given) = &failover.preferred_node else {
        return Ok(());
    };
    let known: Vec<String> = (0..nodes).map(|seat| names::pod(name, seat)).collect();
    if known.contains(given) {
        return Ok(());
    }
    Err(ValidateError::PreferredNode {
        given: given.clone(),
        known: known.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn message(spec: &str) -> String {
        let cluster = testing::cluster(spec);
        let dereferenced = Dereferenced {
            cluster: &cluster,
            config: ConfigFound::Hash("c0ffee".into()),
        };
        validate(&dereferenced, &testing::settings())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_minimal_spec_gets_all_its_defaults() {
        let validated = testing::validated("asterisk: {config: {configMap: office-asterisk}}");
        assert_eq!(validated.nodes, 2);
        assert_eq!(validated.asterisk_image, "localhost/pbx-ha/asterisk:22");
        assert_eq!(validated.service.ports.len(), 2);
        assert_eq!(validated.owner.controller, Some(true));
    }

    #[test]
    fn an_unsound_spec_is_refused_with_what_to_change() {
        let config = "asterisk: {config: {configMap: a}}";
        for (rest, expected) in [
            ("nodes: 7", "choose 2 to 5"),
            ("failover: {keepalive: 300ms}", "raise warntime to 600ms"),
            (
                "nodes: 3\nfailover: {keepalive: 5ms, warntime: 10ms, deadtime: 30ms}",
                "only floating addresses allow",
            ),
            (
                "failover: {preferredNode: office-2}",
                "choose one of office-0, office-1",
            ),
            (
                "network: {service: {ports: [{name: a, port: 5060}, {name: b, port: 5060}]}}",
                "two are UDP 5060",
            ),
            (
                "network: {mode: Host, vip: [{address: 192.0.2.50, interface: eth0}]}",
                "192.0.2.50 is no address with",
            ),
            (
                "network: {service: {ports: [{name: a, port: 5060}, {name: a, port: 5061}]}}",
                "two are named a",
            ),
        ] {
            let message = message(&format!("{config}\n{rest}"));
            assert!(message.contains(expected), "{rest}: {message}");
        }
        assert!(message("asterisk: {config: {}}").contains("set configMap"));
    }
}
