//! What a sidecar tells: the body of `/status`, and a line of the report stream that the operator follows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::health::HealthStatus;
use crate::ledger::Ledger;
use crate::status::{AsteriskStatus, LinkStatus};
use crate::switchover::SwitchoverStatus;

/// The state of a node as its own sidecar sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the node.
    pub node: String,
    /// UID of its pod; on a bare host its name again.
    pub uid: String,
    /// Its part in the cluster.
    pub role: ReportedRole,
    /// The state in one word, as `status.nodes[].detail`.
    pub detail: String,
    /// Since when it has this role.
    pub since: Time,
    /// When its sidecar began; a sidecar of an earlier version does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// The highest epoch it has seen; of an active, the epoch it serves under.
    pub epoch: i64,
    /// The node it takes for active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Whether it could take over now.
    pub ready: bool,
    /// Its Asterisk.
    pub asterisk: AsteriskStatus,
    /// Hash of the configuration that its Asterisk runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// Its health.
    #[serde(default)]
    pub health: HealthStatus,
    /// The planned move that it makes, or made last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverStatus>,
    /// Its paths to the peers.
    #[serde(default)]
    pub links: Vec<LinkStatus>,
    /// Whether it holds the witness.
    pub holds_witness: bool,
    /// Its pod was told to end.
    pub terminating: bool,
    /// What is wrong with it, for an Event and a condition: a stable reason and a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// History and counts as it knows them.
    pub ledger: Ledger,
}

/// The part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedRole {
    /// Serves.
    Active,
    /// Alive, and does not serve.
    Standby,
}

/// The reason of a problem that another node may share unseen: serving on by `onQuorumLoss: Continue`.
pub const WITHOUT_QUORUM: &str = "WithoutQuorum";

/// The reason of a problem that takes nothing away yet: a path that the timing rules do not bear.
pub const LINK_TOO_SLOW: &str = "LinkTooSlow";

/// Something that a person may have to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable, `CamelCase`: AsteriskCrashLoop, ConfigInvalid, TrafficFailed, ApiUnreachable, WithoutQuorum, LinkTooSlow.
    pub reason: String,
    /// What is wrong, naming the object, and what to change.
    pub message: String,
}
