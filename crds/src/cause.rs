//! The stable reasons of a change of roles: in history, as the reason of Events, as a label of metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a node became, or ceased to be, active.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Cause {
    /// Nobody was active: the first start, or after all nodes were down.
    Startup,
    /// The active's Asterisk ended.
    AsteriskExited,
    /// The active's Asterisk stopped answering.
    AsteriskHung,
    /// The active was sicker than a standby.
    HealthFailed,
    /// The active fell silent for deadtime.
    NodeSilent,
    /// The active's pod was told to end: deleted, rolled or drained.
    PodDeleted,
    /// A person asked for it.
    Switchover,
    /// A scheduled proof of the standby.
    Drill,
    /// The preferred node came back.
    Preferred,
    /// The active lost its quorum.
    QuorumLost,
    /// The kernel ended the active's Asterisk at the deadline of its authority.
    GuardExpired,
    /// The active's sidecar came back without its record.
    SidecarRestarted,
    /// The active gave way to a newer epoch.
    Contention,
    /// The active could not move the traffic to itself.
    TrafficFailed,
}

impl Cause {
    /// The name as it stands in status, Events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::AsteriskExited => "AsteriskExited",
            Self::AsteriskHung => "AsteriskHung",
            Self::HealthFailed => "HealthFailed",
            Self::NodeSilent => "NodeSilent",
            Self::PodDeleted => "PodDeleted",
            Self::Switchover => "Switchover",
            Self::Drill => "Drill",
            Self::Preferred => "Preferred",
            Self::QuorumLost => "QuorumLost",
            Self::GuardExpired => "GuardExpired",
            Self::SidecarRestarted => "SidecarRestarted",
            Self::Contention => "Contention",
            Self::TrafficFailed => "TrafficFailed",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
