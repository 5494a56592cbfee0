//! The doors in a sidecar's file: a section that is left out is a door that is shut.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Interfaces for clients. HTTP is always there (`http` of the file).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DoorsConfig {
    /// File with the token that actions and SysAdm's clients need; read again when it changes. Left out: no actions over TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Certificate and key of the TLS ports; read again when they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// More of HTTP.
    pub http: HttpDoor,
    /// HAAst's socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haast: Option<HaastDoor>,
    /// Heartbeat's client API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HeartbeatDoor>,
    /// SysAdm's events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysadm: Option<SysadmDoor>,
    /// Droonga's system.status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub droonga: Option<DroongaDoor>,
    /// The AMI hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ami: Option<AmiDoor>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and those up to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// HTTP beside its plain port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpDoor {
    /// Where the same is served over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
}

/// HAAst's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HaastDoor {
    /// Path of the unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Where the same is served over TLS, to clients with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// Heartbeat's client API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatDoor {
    /// Path of the unix socket; the clients look for it at /run/heartbeat/register.
    pub socket: PathBuf,
    /// Who may use which name; a name that is not listed is for the sidecar's own user and root, and anyone may look without a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apiauth: Vec<ApiAuth>,
}

/// Who may sign on to Heartbeat's client API under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiAuth {
    /// The client's name; `default` for all that are not listed, `anon` for clients without a name.
    pub name: String,
    /// Numbers of users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uids: Vec<u32>,
    /// Numbers of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gids: Vec<u32>,
}

/// SysAdm's events, at `/sysadm` of HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SysadmDoor {
    /// Folders whose file systems are told as storage. Default: those of the record and of Asterisk's configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<PathBuf>,
}

/// Droonga's system.status, at `/droonga/system/status` of HTTP and over Fluentd's forward protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DroongaDoor {
    /// Where the forward protocol is served.
    pub listen: SocketAddr,
    /// The tag in the names of the nodes, `host:port/tag`.
    pub tag: String,
}

impl Default for DroongaDoor {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 10031)),
            tag: "droonga".into(),
        }
    }
}

/// The AMI hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AmiDoor {
    /// Where it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where it listens for TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
    /// Path of a unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Folder into which files with actions are moved, and where their answers are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<PathBuf>,
    /// File that lists the users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_file: Option<PathBuf>,
}
