//! The `PbxCluster` resource: what the user asks for. Every description here is the manual (`kubectl explain pbx`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::doors::DoorsSpec;
use crate::duration::ShortDuration;
use crate::health::HealthSpec;
use crate::network::{FenceSpec, NetworkMode, VipSpec};
use crate::status::PbxClusterStatus;
use crate::switchover::{DrillSpec, FailoverMode, HookSpec, SwitchoverSpec};

/// A highly available Asterisk: one active node, the others standing by.
///
/// Each node is a pod with Asterisk and a sidecar. The sidecars decide by a quorum lease which node is active;
/// at most one is, whatever fails. With an even number of nodes a Lease object breaks the tie.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pbxha.dev",
    version = "v1alpha1",
    kind = "PbxCluster",
    plural = "pbxclusters",
    shortname = "pbx",
    shortname = "pbxc",
    category = "all",
    namespaced,
    status = "PbxClusterStatus",
    derive = "PartialEq",
    doc = "A highly available Asterisk: one active node, the others standing by.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name is longer than 40 characters: shorten it, since the names of pods and objects are made from it"),
    validation = Rule::new("!self.metadata.name.contains('.')").message("the name contains a dot: use letters, digits and '-', since pods' host names are made from it"),
    validation = Rule::new("self.spec.nodes % 2 != 0 || duration(self.spec.failover.deadtime) - duration(self.spec.failover.warntime) >= duration('350ms')").message("with an even number of nodes deadtime must be at least 350ms above warntime, the time to take the witness: raise deadtime, lower warntime, or use 3 or 5 nodes"),
    validation = Rule::new("self.spec.network.mode == 'Host' || duration(self.spec.failover.deadtime) >= duration('80ms')").message("deadtime is below 80ms, which only the floating addresses of network.mode Host allow: raise deadtime"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active", description = "The node that serves"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Standbys that could take over, of those configured"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", description = "Grows with every promotion"),
    printcolumn(name = "Failovers", type_ = "integer", json_path = ".status.counts.failovers", description = "Unplanned moves since the cluster was made"),
    printcolumn(name = "Last-Cause", type_ = "string", json_path = ".status.lastCause", description = "Why the active changed last"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health", priority = "1", description = "Level of the active node's health"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = "1", description = "Asterisk's version on the active"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.activeSince", priority = "1", description = "How long this node has been active")
)]
#[serde(rename_all = "camelCase")]
pub struct PbxClusterSpec {
    /// Number of nodes (pods), 2 to 5. With 2 or 4 a Lease object is the deciding vote, with 3 or 5 the nodes alone decide.
    /// It can be changed between 2 and 3, and between 4 and 5, while the cluster serves; other sizes need a new cluster.
    #[serde(default = "default_nodes")]
    #[schemars(range(min = 2, max = 5))]
    #[x_kube(validation = Rule::new("self + (self + 1) % 2 == oldSelf + (oldSelf + 1) % 2").message("nodes can be changed between 2 and 3, and between 4 and 5: for another size make a new PbxCluster and move the phones to it"))]
    pub nodes: u8,
    /// Asterisk itself: image, configuration and placement.
    pub asterisk: AsteriskSpec,
    /// How phones and trunks reach the active node.
    #[serde(default)]
    pub network: NetworkSpec,
    /// When a standby takes over.
    #[serde(default)]
    pub failover: FailoverSpec,
    /// When a node counts as sick. A change is applied at once.
    #[serde(default)]
    pub health: HealthSpec,
    /// Switchovers by schedule, which prove that the standby can take over.
    #[serde(default)]
    pub drills: DrillSpec,
    /// Who is told of promotions, failovers and the like. A change is applied at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hooks: Vec<HookSpec>,
    /// Maintenance: nothing moves by itself or by schedule, and no switchover is begun; everything is watched and told. An
    /// Asterisk that ends is started again where it was.
    #[serde(default)]
    pub paused: bool,
    /// Interfaces for clients: status, events and actions.
    #[serde(default)]
    pub doors: DoorsSpec,
}

fn default_nodes() -> u8 {
    2
}

/// Asterisk itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsteriskSpec {
    /// Container image with Asterisk 20 or later; any that has `asterisk` on its PATH. Default: the image the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub image: Option<String>,
    /// When the image is pulled: Always, IfNotPresent or Never. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Secrets to pull the images with, in the namespace of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Asterisk's configuration files.
    pub config: ConfigSource,
    /// Outbound registrations: `ActiveOnly` holds them back from the standbys and gives them at promotion; `Untouched` leaves the
    /// configuration as it is.
    #[serde(default)]
    pub trunks: TrunkPolicy,
    /// Hot: a standby's Asterisk runs, fully booted. Cold: it is stopped, and started at promotion. Default: Hot.
    #[serde(default)]
    pub standby: StandbyMode,
    /// CPU and memory of the Asterisk container. Without a word about CPU it requests 250m, since its weight among others goes by that.
    /// Give it no CPU limit: throttling is a pause of the telephone system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Only nodes with these labels run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Placement rules. Default: the pods prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods spread over zones and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start of a pod.
    Always,
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Not at all: the node must have it.
    Never,
}

impl PullPolicy {
    /// As a container's `imagePullPolicy` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Where Asterisk's files come from. They lie over the image's own /etc/asterisk; a file of the same name replaces the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMap) || (has(self.secrets) && self.secrets.size() > 0)")
        .message("no configuration: set configMap to the name of a ConfigMap with Asterisk's files (or list secrets)")
)]
pub struct ConfigSource {
    /// Name of a ConfigMap whose entries are files such as pjsip.conf and extensions.conf. A change rolls the pods, standby first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map: Option<String>,
    /// Names of Secrets whose entries are files, for parts with passwords; the last one wins over the others and over the ConfigMap.
    /// A change is read when a pod starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub secrets: Vec<String>,
}

/// What happens to outbound registrations on a standby.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrunkPolicy {
    /// Held back from standbys, given at promotion.
    #[default]
    ActiveOnly,
    /// The configuration stays as written, on every node.
    Untouched,
}

/// Whether a standby's Asterisk runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StandbyMode {
    /// It runs, fully booted, without its trunks.
    #[default]
    Hot,
    /// It is stopped, and started at promotion: half a second more without service, and nothing runs twice.
    Cold,
}

/// How phones and trunks reach the active node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == oldSelf.mode").message("network.mode cannot be changed: make a new PbxCluster with the new mode and move the phones to it"),
    validation = Rule::new("self.mode != 'Host' || (has(self.vip) && self.vip.size() > 0)").message("mode Host has no floating address: add vip with an address and an interface, or use mode Pod"),
    validation = Rule::new("self.mode == 'Host' || ((!has(self.vip) || self.vip.size() == 0) && !has(self.fence))").message("vip and fence need mode Host: set mode to Host, or leave them out")
)]
pub struct NetworkSpec {
    /// Pod: phones use the Service. Host: phones use floating addresses on the nodes' own network. It cannot be changed once the
    /// cluster is made.
    #[serde(default)]
    pub mode: NetworkMode,
    /// The Service, named like the cluster, whose one endpoint is the active node. Mode Pod only: with Host there is none.
    #[serde(default)]
    pub service: ServiceSpec,
    /// The addresses that are always at the active node; all of them move together. Mode Host only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub vip: Vec<VipSpec>,
    /// What else the kernel of a node that is not active holds back. Mode Host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceSpec>,
}

/// The Service of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'")
        .message("externalTrafficPolicy needs type NodePort or LoadBalancer: change the type, or leave it out")
)]
pub struct ServiceSpec {
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Annotations of the Service, for load balancers and DNS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Ports of the Service. Media (RTP) is not among them: it goes to the pod's own address. Default: SIP on 5060, UDP and TCP.
    #[serde(default = "default_ports")]
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ports: Vec<PortSpec>,
    /// Local keeps the phones' source addresses, which Asterisk may identify them by; Cluster hides them behind the node's.
    /// Default with NodePort and LoadBalancer: Local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            type_: ServiceType::ClusterIP,
            annotations: BTreeMap::new(),
            ports: default_ports(),
            external_traffic_policy: None,
        }
    }
}

fn default_ports() -> Vec<PortSpec> {
    [("sip", Protocol::Udp), ("sip-tcp", Protocol::Tcp)]
        .into_iter()
        .map(|(name, protocol)| PortSpec {
            name: name.into(),
            port: 5060,
            protocol,
            target_port: None,
        })
        .collect()
}

/// The kind of Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reached from inside the cluster.
    #[default]
    ClusterIP,
    /// Reached at a port of every node.
    NodePort,
    /// Reached through the cloud's load balancer.
    LoadBalancer,
}

/// How traffic from outside is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// Only through the node of the active pod; source addresses are kept.
    Local,
    /// Through any node; source addresses are rewritten.
    Cluster,
}

/// One port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortSpec {
    /// Name of the port, unique in the list.
    #[schemars(
        length(min = 1, max = 15),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Port that the phones use.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// UDP or TCP. Default: UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port that Asterisk listens on. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<u16>,
}

/// Protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// UDP.
    #[default]
    Udp,
    /// TCP. Open connections do not move: the phones connect again.
    Tcp,
}

impl Protocol {
    /// As a Service has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// When a standby takes over. The words are Linux-HA's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.keepalive) >= duration('5ms')").message("keepalive is below 5ms: raise it"),
    validation = Rule::new("duration(self.keepalive) + duration(self.keepalive) <= duration(self.warntime)").message("warntime is below twice keepalive: raise warntime, or lower keepalive"),
    validation = Rule::new("duration(self.warntime) + duration(self.warntime) <= duration(self.deadtime)").message("deadtime is below twice warntime: raise deadtime, or lower warntime"),
    validation = Rule::new("duration(self.deadtime) >= duration('30ms')").message("deadtime is below 30ms: raise it"),
    validation = Rule::new("duration(self.deadtime) <= duration('60s')").message("deadtime is above 60s: lower it"),
    validation = Rule::new("duration(self.deadtime) <= duration(self.initdead)").message("initdead is below deadtime: raise initdead, or lower deadtime")
)]
pub struct FailoverSpec {
    /// A heartbeat leaves this often. Default: 100ms.
    #[serde(default = "default_keepalive")]
    pub keepalive: ShortDuration,
    /// Silence of a node that is worth acting on, at least twice keepalive. Default: 400ms.
    #[serde(default = "default_warntime")]
    pub warntime: ShortDuration,
    /// A node silent for this long is dead and is replaced, at least twice warntime. Default: 800ms.
    #[serde(default = "default_deadtime")]
    pub deadtime: ShortDuration,
    /// How long a node that was never heard counts as starting rather than dead, at least deadtime. Default: 30s.
    #[serde(default = "default_initdead")]
    pub initdead: ShortDuration,
    /// What the active node does when it has no quorum any more: `Demote` stops it in time, so that at most one node ever serves;
    /// `Continue` lets it serve on, and then two can serve at the same time, until they hear each other: the one that was promoted
    /// first stops. Default: Demote.
    #[serde(default)]
    pub on_quorum_loss: OnQuorumLoss,
    /// Name of the node (such as office-0) that is to be active whenever it can. Default: none; the active stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub preferred_node: Option<String>,
    /// Automatic: the nodes decide about unplanned moves. Manual: people do. A change is applied at once. Default: Automatic.
    #[serde(default)]
    pub mode: FailoverMode,
    /// How planned moves treat calls. A change is applied at once.
    #[serde(default)]
    pub switchover: SwitchoverSpec,
}

/// What the active node does without a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnQuorumLoss {
    /// It stops: safety before service.
    #[default]
    Demote,
    /// It serves on: service before safety.
    Continue,
}

impl Default for FailoverSpec {
    fn default() -> Self {
        Self {
            keepalive: default_keepalive(),
            warntime: default_warntime(),
            deadtime: default_deadtime(),
            initdead: default_initdead(),
            on_quorum_loss: OnQuorumLoss::Demote,
            preferred_node: None,
            mode: FailoverMode::default(),
            switchover: SwitchoverSpec::default(),
        }
    }
}

fn default_keepalive() -> ShortDuration {
    ShortDuration::from_millis(100)
}
fn default_warntime() -> ShortDuration {
    ShortDuration::from_millis(400)
}
fn default_deadtime() -> ShortDuration {
    ShortDuration::from_millis(800)
}
fn default_initdead() -> ShortDuration {
    ShortDuration::from_millis(30_000)
}
