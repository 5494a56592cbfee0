//! Planned moves of the role: how they treat calls, drills, hooks that are told, and what is shown of a move under way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::PbxClusterSpec;
use crate::duration::ShortDuration;
use crate::health::HealthSpec;

/// Who decides about unplanned moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverMode {
    /// The nodes do.
    #[default]
    Automatic,
    /// People do: nothing moves by itself. An Asterisk that ends is started again where it was.
    Manual,
}

/// What a switchover does about calls, unless whoever asks for it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchoverSpec {
    /// Immediate: at once, calls end. Drain: new calls go to the new active at once, old ones may end in peace up to timeout.
    /// WhenIdle: waits for the end of all calls, up to timeout, then moves. Default: Immediate.
    #[serde(default)]
    pub strategy: SwitchoverStrategy,
    /// The longest that Drain and WhenIdle wait. Default: 1h.
    #[serde(default = "default_timeout")]
    pub timeout: ShortDuration,
}

impl Default for SwitchoverSpec {
    fn default() -> Self {
        Self {
            strategy: SwitchoverStrategy::default(),
            timeout: default_timeout(),
        }
    }
}

/// What a switchover does about calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SwitchoverStrategy {
    /// Moves at once: the calls of the old active end.
    #[default]
    Immediate,
    /// New calls go to the new active at once, old ones end in peace up to the timeout.
    Drain,
    /// Waits until there are no calls, up to the timeout, then moves.
    WhenIdle,
}

impl SwitchoverStrategy {
    /// As it stands in the resource.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "Immediate",
            Self::Drain => "Drain",
            Self::WhenIdle => "WhenIdle",
        }
    }
}

/// Switchovers by schedule, which prove that the standby can take over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrillSpec {
    /// When, as cron has it, such as `0 3 * * 0` (Sundays at 3), in UTC. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 100))]
    pub schedule: Option<String>,
    /// What a drill does about calls. Default: WhenIdle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<SwitchoverStrategy>,
}

/// Somebody to be told: a command beside the sidecar, or a web server. Told by one node: the one that it happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.url) != (has(self.command) && self.command.size() > 0)").message("a hook is told by either url or command: set one of them")
)]
pub struct HookSpec {
    /// Its name, unique in the list.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub name: String,
    /// What it is told of.
    #[schemars(length(min = 1, max = 5))]
    pub events: Vec<HookEvent>,
    /// Where the event is sent as JSON by POST; any status of 2xx is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), regex(pattern = r"^https?://.+"))]
    pub url: Option<String>,
    /// Program and arguments; the event is on its standard input as JSON, its name in the environment's PBXHA_EVENT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1000)))]
    pub command: Vec<String>,
    /// After this it is given up, a command with all that it started. Default: 10s.
    #[serde(default = "default_hook_timeout")]
    pub timeout: ShortDuration,
}

/// What hooks are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HookEvent {
    /// This node became active.
    Promote,
    /// This node ceased to be active.
    Demote,
    /// This node became active by an unplanned move.
    Failover,
    /// The level of this node's health changed.
    HealthChange,
    /// A drill moved the role to this node, or was skipped here.
    Drill,
}

impl HookEvent {
    /// As it stands in the resource.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "Promote",
            Self::Demote => "Demote",
            Self::Failover => "Failover",
            Self::HealthChange => "HealthChange",
            Self::Drill => "Drill",
        }
    }
}

/// A planned move that is under way, or the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchoverStatus {
    /// Who or what asked for it; of the annotation, its value.
    pub requested_by: String,
    /// The node that is to become active; empty: the best standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What it does about calls.
    pub strategy: SwitchoverStrategy,
    /// Where it is.
    pub state: SwitchoverState,
    /// What is awaited, or why it ended as it did.
    pub message: String,
    /// Calls that are still waited for, as of the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_left: Option<u32>,
    /// Since when it is in this state.
    pub since: Time,
}

/// Where a planned move is.
///
/// ```text
///  Waiting ──► Moving ──► Draining ──► Done
///     │ │         │
///     │ └► Cancelled, Refused ◄┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SwitchoverState {
    /// For the end of calls.
    Waiting,
    /// The role is being handed over.
    Moving,
    /// The role has moved; the old node's calls may end in peace.
    Draining,
    /// Over.
    Done,
    /// Called off.
    Cancelled,
    /// Not made.
    Refused,
}

impl SwitchoverState {
    /// Whether nothing more comes.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Refused)
    }
}

/// What may change while a sidecar runs. In a pod it is read from the resource, on a bare host from the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveSettings {
    /// Decide nothing, watch everything.
    pub paused: bool,
    /// Who decides about unplanned moves.
    pub mode: FailoverMode,
    /// How planned moves treat calls.
    pub switchover: SwitchoverSpec,
    /// Moves by schedule.
    pub drills: DrillSpec,
    /// Sensors and thresholds.
    pub health: HealthSpec,
    /// Who is told.
    pub hooks: Vec<HookSpec>,
}

impl LiveSettings {
    /// What the resource asks for.
    pub fn of(spec: &PbxClusterSpec) -> Self {
        Self {
            paused: spec.paused,
            mode: spec.failover.mode,
            switchover: spec.failover.switchover.clone(),
            drills: spec.drills.clone(),
            health: spec.health.clone(),
            hooks: spec.hooks.clone(),
        }
    }
}

fn default_timeout() -> ShortDuration {
    ShortDuration::from_millis(3_600_000)
}
fn default_hook_timeout() -> ShortDuration {
    ShortDuration::from_millis(10_000)
}
