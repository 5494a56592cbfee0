//! Names of objects, labels, annotations and ports: said once, used by operator, sidecar, chart and tests.

/// API group of the resource.
pub const GROUP: &str = "pbxha.dev";
/// Field manager of the operator's server-side apply.
pub const OPERATOR_MANAGER: &str = "pbx-ha-operator";
/// Field manager of the sidecar's writes.
pub const SIDECAR_MANAGER: &str = "pbx-ha-sidecar";
/// Label with the role of a pod: `active` or `standby`.
pub const ROLE_LABEL: &str = "pbxha.dev/role";
/// Label with the name of the cluster.
pub const CLUSTER_LABEL: &str = "pbxha.dev/cluster";
/// Annotation of the Lease: what the core reads and writes, as JSON (one string, so one write).
pub const LEASE_ANNOTATION: &str = "pbxha.dev/quorum";
/// Annotation of the EndpointSlice: the epoch of the node that wrote it (I2).
pub const EPOCH_ANNOTATION: &str = "pbxha.dev/epoch";
/// Annotation of the PbxCluster that asks for a planned move: `any`, a node's name, `drill` or `cancel`, then optionally a
/// strategy. It is carried out once, when it changes: what follows a `#` is there to make it another one.
pub const SWITCHOVER_ANNOTATION: &str = "pbxha.dev/switchover";
/// Annotation of a pod: hash of the user's ConfigMap. A change of it makes kubelet look at the mounted files at once.
pub const USER_CONFIG_ANNOTATION: &str = "pbxha.dev/user-config";
/// Annotation of the pod template: hash of the sidecar's file, so that a change rolls the pods.
pub const CONFIG_HASH_ANNOTATION: &str = "pbxha.dev/config-hash";
/// UDP port of the heartbeats.
pub const HEARTBEAT_PORT: u16 = 6940;
/// More nodes than this no telephone system has.
pub const MAX_NODES: u8 = 5;
/// TCP port of the sidecar's HTTP.
pub const HTTP_PORT: u16 = 8081;
/// Path of the report stream: one JSON document a line, the newest state first, then every change.
pub const REPORT_STREAM_PATH: &str = "/v1/report/stream";

/// Name of the witness Lease of `cluster`.
pub fn lease(cluster: &str) -> String {
    format!("{cluster}-witness")
}

/// Name of the EndpointSlice of `cluster`.
pub fn endpoint_slice(cluster: &str) -> String {
    format!("{cluster}-active")
}

/// Name of the Secret with the heartbeat key of `cluster`; the key is its entry `key`.
pub fn heartbeat_secret(cluster: &str) -> String {
    format!("{cluster}-heartbeat")
}

/// Name of the ConfigMap with the sidecar's file (`sidecar.yaml`) of `cluster`.
pub fn sidecar_config_map(cluster: &str) -> String {
    format!("{cluster}-sidecar")
}

/// Name of the ServiceAccount, Role and RoleBinding of the sidecars of `cluster`.
pub fn sidecar_account(cluster: &str) -> String {
    format!("{cluster}-sidecar")
}

/// Name of the pod in `seat` of `cluster`.
pub fn pod(cluster: &str, seat: u8) -> String {
    format!("{cluster}-{seat}")
}

/// The seat of `pod` in `cluster`, from its ordinal.
pub fn seat_of_pod(cluster: &str, pod: &str) -> Option<u8> {
    pod.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}
