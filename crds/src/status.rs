//! What the user reads. Only what changes seldom stands here (I4): calls, scores and round-trip times are in HTTP and metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Cause;
use crate::health::{HealthLevel, HealthStatus};
use crate::switchover::SwitchoverStatus;

/// What the operator has seen of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PbxClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The node that serves; empty while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Since when it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_since: Option<Time>,
    /// Grows with every promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Standbys that could take over now, of those configured, such as 1/1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Why the active changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_cause: Option<Cause>,
    /// Asterisk's version on the active node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Level of the active node's health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthLevel>,
    /// The planned move that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverStatus>,
    /// Available: a node serves. Redundant: a standby could take over. Progressing: something is being made or rolled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The nodes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<NodeStatus>,
    /// The newest 20 changes of the active, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["epoch".into()]))]
    pub failover_history: Vec<FailoverRecord>,
    /// Counts since the cluster was made. They never go back.
    #[serde(default)]
    pub counts: ClusterCounts,
    /// The witness Lease as the operator made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<WitnessStatus>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the node: its pod's.
    pub name: String,
    /// active serves; standby is alive and does not; dead does not answer.
    pub state: NodeState,
    /// The state in one word: Serving, Ready, Cold, Draining, Starting, Quarantined, Restarting, Leaving, AsteriskDown, Silent, NoPod, NotSeen.
    pub detail: String,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The highest epoch that it has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The Kubernetes node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Its Asterisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asterisk: Option<AsteriskStatus>,
    /// Its health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// The network paths to its peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub links: Vec<LinkStatus>,
    /// Why it became, or ceased to be, active last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_cause: Option<Cause>,
    /// What happened to it since the cluster was made.
    #[serde(default)]
    pub counts: NodeCounts,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Serves.
    Active,
    /// Is alive, and does not serve.
    Standby,
    /// Does not answer.
    Dead,
}

impl NodeState {
    /// As it stands in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Dead => "dead",
        }
    }
}

/// Asterisk on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsteriskStatus {
    /// Stopped, Starting or Running (fully booted).
    pub state: AsteriskState,
    /// Its version, once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Whether Asterisk runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AsteriskState {
    /// No process.
    #[default]
    Stopped,
    /// A process that is not yet fully booted.
    Starting,
    /// Fully booted.
    Running,
}

/// A network path from a node to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The peer; on a host with several links, peer/link.
    pub name: String,
    /// Up: heard within warntime.
    pub state: LinkState,
}

/// Whether a link carries heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LinkState {
    /// Heard within warntime.
    Up,
    /// Silent for warntime or longer.
    Down,
}

/// What happened to a node. Grows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Times it became active.
    pub promotions: u64,
    /// Times it ceased to be active.
    pub demotions: u64,
    /// Times it was replaced unplanned.
    pub failovers: u64,
    /// Times it was replaced as planned.
    pub switchovers: u64,
    /// Times its Asterisk was started again in place.
    pub asterisk_restarts: u64,
    /// Moves that were not made, for a reason.
    pub suppressed: u64,
    /// Times it was replaced by a drill.
    pub drills: u64,
}

/// Counts of a cluster. They grow only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterCounts {
    /// Unplanned moves.
    pub failovers: u64,
    /// Planned moves.
    pub switchovers: u64,
    /// Moves that were not made, for a reason.
    pub suppressed: u64,
    /// Planned moves that were drills.
    pub drills: u64,
    /// Changes up to this epoch are in the counts, whether or not they still stand in the history.
    pub through_epoch: i64,
}

/// One change of the active.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverRecord {
    /// The epoch that began: it names the change.
    pub epoch: i64,
    /// When.
    pub time: Time,
    /// Who was active before; empty at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who became active.
    pub to: String,
    /// Why.
    pub cause: Cause,
    /// Whether it was wanted.
    pub planned: bool,
    /// Milliseconds from the cause to the decision.
    pub detection_ms: i64,
    /// Milliseconds from the decision to the authority, with the kernel's deadline armed.
    pub promotion_ms: i64,
    /// Milliseconds from then until the traffic was pointed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_ms: Option<i64>,
}

/// The witness Lease as the operator made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WitnessStatus {
    /// Name of the Lease.
    pub lease: String,
    /// UID of the occupant (pod) of each seat, as last read from the Lease; empty: nobody.
    #[serde(default)]
    pub seats: Vec<String>,
    /// The number of seats is being changed: the Lease may not have it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resizing: bool,
    /// Seats whose occupant was asked to leave for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<u8>,
    /// The Kubernetes node of each occupant, as last seen: the loss of that node proves the occupant's death.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_names: Vec<String>,
}
