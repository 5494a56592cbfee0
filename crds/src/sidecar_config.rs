//! The YAML file of a sidecar. In a pod the operator writes it (ConfigMap `<cluster>-sidecar`), on a bare host its owner does.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::{FailoverSpec, PortSpec, Protocol, StandbyMode, TrunkPolicy};
use crate::health::HealthSpec;
use crate::names;
use crate::sidecar_doors::DoorsConfig;
use crate::switchover::{DrillSpec, HookSpec, LiveSettings};

/// Everything a sidecar is told. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SidecarConfig {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node, one of `nodes`. In a pod the environment's POD_NAME stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// All nodes, in the order of their seats.
    pub nodes: Vec<PeerConfig>,
    /// Heartbeats.
    pub heartbeat: HeartbeatConfig,
    /// When a standby takes over.
    #[serde(default)]
    pub failover: FailoverSpec,
    /// When this node counts as sick.
    #[serde(default)]
    pub health: HealthSpec,
    /// Moves by schedule.
    #[serde(default)]
    pub drills: DrillSpec,
    /// Who is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookSpec>,
    /// Decide nothing, watch everything.
    #[serde(default)]
    pub paused: bool,
    /// Where HTTP is served.
    #[serde(default = "default_http")]
    pub http: SocketAddr,
    /// Interfaces for clients.
    #[serde(default)]
    pub doors: DoorsConfig,
    /// Asterisk and its guard.
    pub asterisk: AsteriskConfig,
    /// The folder of the record: on tmpfs, and kept across a restart of the sidecar.
    #[serde(default = "default_record_dir")]
    pub record_dir: PathBuf,
    /// Floating addresses, and the fence that the kernel keeps around them. Left out: roles only, no address moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
    /// The cluster's objects in Kubernetes: the witness, the seats and the traffic. Left out on bare hosts that have three nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesConfig>,
}

impl SidecarConfig {
    /// What may change while the sidecar runs, as the file has it.
    pub fn live_settings(&self) -> LiveSettings {
        LiveSettings {
            paused: self.paused,
            mode: self.failover.mode,
            switchover: self.failover.switchover.clone(),
            drills: self.drills.clone(),
            health: self.health.clone(),
            hooks: self.hooks.clone(),
        }
    }
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerConfig {
    /// Its name; in a pod, the pod's.
    pub name: String,
    /// Address and port of its heartbeats. Left out in a pod: found by reading the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Instead of `address`, where the nodes are joined by several links: one address on each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<LinkAddress>,
}

/// A node's address on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkAddress {
    /// Name of the link, the same on all nodes.
    pub name: String,
    /// Address and port of the node's heartbeats on it.
    pub address: SocketAddr,
}

/// Heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// Where they are received; not with `nodes[].addresses`. Default: port 6940 of all addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// File with the cluster's key: at least 32 bytes, the same on all nodes.
    pub key_file: PathBuf,
}

impl HeartbeatConfig {
    /// Where they are received, without named links.
    pub fn listen(&self) -> SocketAddr {
        self.listen
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], names::HEARTBEAT_PORT)))
    }
}

/// Asterisk and its guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsteriskConfig {
    /// Socket of the guard.
    #[serde(default = "default_guard_socket")]
    pub guard_socket: PathBuf,
    /// The image's own configuration, such as a copy of /etc/asterisk.
    #[serde(default = "default_defaults_dir")]
    pub defaults_dir: PathBuf,
    /// Folders with the user's files; a later one wins.
    pub user_dirs: Vec<PathBuf>,
    /// Where the configuration that Asterisk reads is built; Asterisk is started with `-C <config_dir>/current/asterisk.conf`.
    #[serde(default = "default_config_dir")]
    pub config_dir: PathBuf,
    /// Outbound registrations.
    #[serde(default)]
    pub trunks: TrunkPolicy,
    /// Whether this Asterisk runs while the node stands by.
    #[serde(default)]
    pub standby: StandbyMode,
}

/// Floating addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfig {
    /// The addresses that the active answers at. All of them move together.
    pub vip: Vec<VipConfig>,
    /// What else the kernel holds back from a host that is not active.
    #[serde(default)]
    pub fence: FenceConfig,
}

/// One floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VipConfig {
    /// Address and length of its network's prefix, such as `192.0.2.50/24`.
    pub address: String,
    /// The link it belongs to.
    pub interface: String,
}

/// What is fenced beside the floating addresses, which are fenced whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FenceConfig {
    /// Ports that only the active answers, at every address of the host. Loopback is left alone.
    #[serde(default)]
    pub ports: Vec<FencedPorts>,
}

/// A port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FencedPorts {
    /// UDP or TCP. Default: UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port, or the first.
    pub port: u16,
    /// The last. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

/// The cluster's objects in Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Their namespace.
    pub namespace: String,
    /// The witness Lease.
    pub lease: String,
    /// The EndpointSlice of the active node. Left out on bare hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_slice: Option<EndpointSliceConfig>,
    /// A kubeconfig, on bare hosts. In a pod the ServiceAccount is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
}

/// The EndpointSlice of the active node: made by the operator, its endpoints written by the sidecars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSliceConfig {
    /// Its name.
    pub name: String,
    /// The ports, as the operator wrote them.
    pub ports: Vec<PortSpec>,
}

fn default_http() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], names::HTTP_PORT))
}
fn default_record_dir() -> PathBuf {
    "/run/pbx-ha/record".into()
}
fn default_guard_socket() -> PathBuf {
    "/run/pbx-ha/guard.sock".into()
}
fn default_defaults_dir() -> PathBuf {
    "/run/pbx-ha/defaults".into()
}
fn default_config_dir() -> PathBuf {
    "/run/pbx-ha/config".into()
}
