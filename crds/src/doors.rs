//! `spec.doors`: the interfaces by which other systems' clients read the cluster and ask for actions.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Interfaces for clients. HTTP, and the unix sockets in the pod's folder /run/pbx-ha, are there by default; each TCP port is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.http) || !has(self.http.tlsPort) || has(self.tlsSecret)")
        .message("http.tlsPort needs a certificate: set tlsSecret, or remove http.tlsPort"),
    validation = Rule::new("!has(self.haast) || !has(self.haast.port) || (has(self.tlsSecret) && has(self.tokenSecret))")
        .message("haast.port needs TLS and a token: set tlsSecret and tokenSecret, or remove haast.port"),
    validation = Rule::new("!has(self.ami) || !has(self.ami.tlsPort) || has(self.tlsSecret)")
        .message("ami.tlsPort needs a certificate: set tlsSecret, or remove ami.tlsPort")
)]
pub struct DoorsSpec {
    /// Name of a Secret whose entry `token` is asked of clients that want an action, and of SysAdm's. Without it no action can be
    /// asked for over TCP. Read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub token_secret: Option<String>,
    /// Name of a Secret of type kubernetes.io/tls for the TLS ports. Read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret: Option<String>,
    /// HTTP: status, events, metrics and actions on port 8081.
    #[serde(default)]
    pub http: HttpDoorSpec,
    /// HAAst's socket, /run/pbx-ha/haast.sock in the pod.
    #[serde(default)]
    pub haast: HaastDoorSpec,
    /// Heartbeat's client API, /run/pbx-ha/heartbeat/register in the pod.
    #[serde(default)]
    pub heartbeat: HeartbeatDoorSpec,
    /// SysAdm's events, a websocket at /sysadm of HTTP.
    #[serde(default)]
    pub sysadm: SysadmDoorSpec,
    /// Droonga's system.status, at /droonga/system/status of HTTP and over Fluentd's forward protocol.
    #[serde(default)]
    pub droonga: DroongaDoorSpec,
    /// The hub that AMI clients connect to, instead of Asterisk itself.
    #[serde(default)]
    pub ami: AmiDoorSpec,
}

/// HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDoorSpec {
    /// A port that serves the same over TLS. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub tls_port: Option<u16>,
}

/// HAAst's socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HaastDoorSpec {
    /// Whether the unix socket is there. Default: true.
    pub enabled: bool,
    /// A TCP port that serves the same over TLS, to clients with the token. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: Option<u16>,
}

impl Default for HaastDoorSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            port: None,
        }
    }
}

/// Heartbeat's client API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatDoorSpec {
    /// Whether the unix socket is there. Default: true.
    pub enabled: bool,
}

impl Default for HeartbeatDoorSpec {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// SysAdm's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SysadmDoorSpec {
    /// Whether the websocket is there. Default: false.
    pub enabled: bool,
}

/// Droonga's system.status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DroongaDoorSpec {
    /// Whether it is served. Default: false.
    pub enabled: bool,
    /// TCP port of the forward protocol. Default: 10031.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
    /// The tag in the names of the nodes, host:port/tag. Default: droonga.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub tag: String,
}

impl Default for DroongaDoorSpec {
    fn default() -> Self {
        Self {
            enabled: false,
            port: 10031,
            tag: "droonga".into(),
        }
    }
}

/// The AMI hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.enabled || has(self.usersSecret)")
        .message("the AMI hub needs users: set usersSecret to a Secret whose entry users.yaml lists them, or set enabled to false")
)]
pub struct AmiDoorSpec {
    /// Whether the hub is there. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// TCP port. Default: 5038.
    #[serde(default = "default_ami_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
    /// A port that serves the same over TLS. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub tls_port: Option<u16>,
    /// Name of a Secret whose entry users.yaml lists the users. Needed when the hub is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub users_secret: Option<String>,
}

impl Default for AmiDoorSpec {
    fn default() -> Self {
        Self {
            enabled: false,
            port: default_ami_port(),
            tls_port: None,
            users_secret: None,
        }
    }
}

fn default_ami_port() -> u16 {
    5038
}
