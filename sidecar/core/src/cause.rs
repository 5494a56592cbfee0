//! Why a node became, or ceased to be, active.

use serde::{Deserialize, Serialize};

/// The recorded reason of a change of roles (I3). The names are stable: history, Events and metrics carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Nobody was active: the first start, or after all were down.
    Startup,
    /// The active's Asterisk ended.
    AsteriskExited,
    /// The active's Asterisk stopped answering.
    AsteriskHung,
    /// The active was sicker than a standby.
    HealthFailed,
    /// The active fell silent for deadtime.
    NodeSilent,
    /// The active's pod was told to end.
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
    /// Whether people or plans wanted it: such a move is a switchover, any other a failover.
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            Self::PodDeleted | Self::Switchover | Self::Drill | Self::Preferred | Self::Startup
        )
    }
}
