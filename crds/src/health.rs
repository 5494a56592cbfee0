//! What is asked of a node's health, and how it is told: a score that rises with degradation, and the level that it reaches.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::ShortDuration;

/// When a node counts as sick. Each sensor that fails adds its points to the score of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.warning < self.critical && self.critical < self.failure").message("health thresholds do not rise: make warning lower than critical, and critical lower than failure")
)]
pub struct HealthSpec {
    /// Score from which a node is at level Warning. Default: 20.
    #[serde(default = "default_warning")]
    #[schemars(range(min = 1, max = 10_000))]
    pub warning: u16,
    /// Score from which a node is at level Critical. Default: 50.
    #[serde(default = "default_critical")]
    #[schemars(range(min = 1, max = 10_000))]
    pub critical: u16,
    /// Score from which a node is at level Failure: an active hands over to a healthier standby. Default: 100.
    #[serde(default = "default_failure")]
    #[schemars(range(min = 1, max = 10_000))]
    pub failure: u16,
    /// How long a score has to stay below a threshold before the level falls. Default: 10s.
    #[serde(default = "default_recovery")]
    pub recovery: ShortDuration,
    /// What is looked at, beside or instead of the built-in sensors: an entry of a built-in kind replaces that sensor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sensors: Vec<SensorSpec>,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            warning: default_warning(),
            critical: default_critical(),
            failure: default_failure(),
            recovery: default_recovery(),
            sensors: Vec::new(),
        }
    }
}

/// One sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.kind != 'Gateway' || has(self.address)").message("a sensor of kind Gateway needs address: the IP address to ping"),
    validation = Rule::new("self.kind != 'TestCall' || has(self.extension)").message("a sensor of kind TestCall needs extension: extension@context of a dialplan entry that answers and hangs up"),
    validation = Rule::new("self.kind != 'Command' || (has(self.command) && self.command.size() > 0)").message("a sensor of kind Command needs command: the program and its arguments")
)]
pub struct SensorSpec {
    /// Its name, unique in the list.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub name: String,
    /// What it looks at.
    pub kind: SensorKind,
    /// How often. Default: by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<ShortDuration>,
    /// After this an answer is missing. Default: by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ShortDuration>,
    /// Points while it is critical; a warning counts a fifth of it. 0 switches the sensor off. Default: by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000))]
    pub points: Option<u16>,
    /// Failures in a row before it counts. Default: by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failures: Option<u8>,
    /// Gateway: the address to ping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub address: Option<String>,
    /// Disk: the folder whose file system is looked at. Default: the sidecar's record folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub path: Option<String>,
    /// TestCall: extension@context of a dialplan entry that answers and hangs up. It is called on standbys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 160), regex(pattern = r"^[^@\s]+@[^@\s]+$"))]
    pub extension: Option<String>,
    /// Command: program and arguments, run beside the sidecar. Exit code 0 is well, 1 a warning, others critical (Nagios); the
    /// first number behind a `|` of its first line is shown as its value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1000)))]
    pub command: Vec<String>,
}

/// What a sensor looks at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SensorKind {
    /// AMI answers a Ping in time.
    AmiPing,
    /// The list of channels comes in time: finds deadlocks in which a Ping is still answered.
    Channels,
    /// Asterisk answers a SIP OPTIONS to itself.
    SipOptions,
    /// An outbound registration is lost, on the active.
    Registrations,
    /// A contact that is qualified, of an outbound trunk, does not answer, on the active.
    Trunks,
    /// A task processor's queue stands above its high-water mark.
    TaskProcessors,
    /// Free space of a file system.
    Disk,
    /// A gateway answers pings.
    Gateway,
    /// A test call through the dialplan is answered, on a standby.
    TestCall,
    /// A command of the user's.
    Command,
}

impl SensorKind {
    /// As it stands in the resource and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AmiPing => "AmiPing",
            Self::Channels => "Channels",
            Self::SipOptions => "SipOptions",
            Self::Registrations => "Registrations",
            Self::Trunks => "Trunks",
            Self::TaskProcessors => "TaskProcessors",
            Self::Disk => "Disk",
            Self::Gateway => "Gateway",
            Self::TestCall => "TestCall",
            Self::Command => "Command",
        }
    }
}

/// How well a node is. Higher is worse.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum HealthLevel {
    /// Nothing to say.
    #[default]
    Good,
    /// Worth a look.
    Warning,
    /// Something is lost.
    Critical,
    /// It should not serve.
    Failure,
}

impl HealthLevel {
    /// As it stands in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "Good",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
            Self::Failure => "Failure",
        }
    }
}

/// The level of a node, and what it comes from. The score itself changes too often to stand here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    /// Good, Warning, Critical or Failure.
    pub level: HealthLevel,
    /// The sensors that the level comes from, the worst first, such as AmiPing; at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<String>,
}

fn default_warning() -> u16 {
    20
}
fn default_critical() -> u16 {
    50
}
fn default_failure() -> u16 {
    100
}
fn default_recovery() -> ShortDuration {
    ShortDuration::from_millis(10_000)
}
