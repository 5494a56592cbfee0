//! The sidecar's file, read and checked as a whole: every problem at once, each with its path in the file.
//!
//! In a pod the environment adds what only the pod knows: `POD_NAME`, `POD_UID`, `POD_IP`, `NODE_NAME`.

use std::path::{Path, PathBuf};

use pbx_core::{Incarnation, MAX_NODES, Occupant, OnQuorumLoss, Seat, Seats, Settings, Timing};
use pbx_crds::sidecar_config::{PeerConfig, SidecarConfig};
use pbx_crds::{names, timing};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::doors;
use crate::host::plan::{Plan, plan as plan_host};
use crate::kubernetes::parse_uid;
use crate::kubernetes::slice::OwnEndpoint;
use crate::peer::seal::ClusterKey;
use crate::peer::{LinkPlan, plan};

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no YAML, or a field is unknown or of the wrong type.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// Values that do not go together.
    #[error("{path}: {} problem(s)\n{}", problems.len(), problems.join("\n"))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Each with its path in the file, and the fix.
        problems: Vec<String>,
    },
}

/// What the pod's environment says.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Name of the pod.
    pub pod_name: Option<String>,
    /// UID of the pod.
    pub pod_uid: Option<String>,
    /// Address of the pod.
    pub pod_ip: Option<String>,
    /// The Kubernetes node.
    pub node_name: Option<String>,
}

impl Environment {
    /// Reads it.
    pub fn read() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            pod_name: get("POD_NAME"),
            pod_uid: get("POD_UID"),
            pod_ip: get("POD_IP"),
            node_name: get("NODE_NAME"),
        }
    }
}

/// A checked configuration.
pub struct Checked {
    /// The file.
    pub file: SidecarConfig,
    /// Name of this node.
    pub node: String,
    /// UID of this node's pod; on a bare host its name.
    pub uid: String,
    /// What the core is given.
    pub settings: Settings,
    /// The heartbeat key.
    pub key: ClusterKey,
    /// What floats and what is fenced, if addresses float.
    pub plan: Option<Plan>,
    /// This node as an endpoint, if traffic is moved by an EndpointSlice.
    pub endpoint: Option<OwnEndpoint>,
    /// The links to the peers.
    pub links: Vec<LinkPlan>,
    /// Names of the nodes by seat: of pods all that may ever come, since their number can change.
    pub names: Vec<String>,
}

impl Checked {
    /// Name of the node in `seat`.
    pub fn name_of(&self, seat: Seat) -> String {
        let name = self.names.get(usize::from(seat.0));
        name.map_or_else(|| format!("seat {}", seat.0), Clone::clone)
    }
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path, environment: &Environment) -> Result<Checked, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })?;
    let file: SidecarConfig = serde_yaml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.into(),
        source,
    })?;
    let key_bytes = std::fs::read(&file.heartbeat.key_file);
    check(file, environment, key_bytes).map_err(|problems| ConfigError::Invalid {
        path: path.into(),
        problems,
    })
}

/// A life for a sidecar without a record: above any earlier one, since clocks go forward.
pub fn new_incarnation() -> Incarnation {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Incarnation(since.map_or(1, |since| since.as_nanos() as u64))
}

fn check(
    file: SidecarConfig,
    environment: &Environment,
    key_bytes: std::io::Result<Vec<u8>>,
) -> Result<Checked, Vec<String>> {
    let mut problems = Vec::new();
    let node = own_name(&file, environment, &mut problems);
    let seat = own_seat(&file, &node, &mut problems);
    check_nodes(&file, &mut problems);
    let timing = check_timing(&file, &mut problems);
    let preferred_seat = preferred_seat(&file, &mut problems);
    let key = key(&file, key_bytes, &mut problems);
    let endpoint = endpoint(&file, environment, &node, &mut problems);
    let plan = plan_host(&file, &mut problems);
    let links = plan::plan(&file, usize::from(seat.0), &mut problems);
    doors::check::check(&file, &mut problems);
    let uid = environment.pod_uid.clone().unwrap_or_else(|| node.clone());
    let (Some(key), []) = (key, &problems[..]) else {
        return Err(problems);
    };
    let names = names_by_seat(&file);
    let settings = Settings {
        seat,
        occupant: occupant(&uid),
        nodes: file.nodes.len() as u8,
        timing,
        traffic_needs_api: endpoint.is_some(),
        preferred_seat,
        on_quorum_loss: match file.failover.on_quorum_loss {
            pbx_crds::cluster::OnQuorumLoss::Demote => OnQuorumLoss::Demote,
            pbx_crds::cluster::OnQuorumLoss::Continue => OnQuorumLoss::Continue,
        },
        fixed_seats: file.kubernetes.is_none().then(|| fixed_seats(&file)),
    };
    Ok(Checked {
        file,
        node,
        uid,
        settings,
        key,
        plan,
        endpoint,
        links,
        names,
    })
}

fn names_by_seat(file: &SidecarConfig) -> Vec<String> {
    let mut names: Vec<String> = file.nodes.iter().map(|node| node.name.clone()).collect();
    let is_placed = |node: &PeerConfig| node.address.is_some() || !node.addresses.is_empty();
    if file.kubernetes.is_some() && !file.nodes.iter().any(is_placed) {
        let more = names.len()..MAX_NODES;
        names.extend(more.map(|seat| names::pod(&file.cluster, seat as u8)));
    }
    names
}

fn own_name(file: &SidecarConfig, environment: &Environment, problems: &mut Vec<String>) -> String {
    let name = file.node.clone().or_else(|| environment.pod_name.clone());
    name.unwrap_or_else(|| {
        problems.push(
            "node: missing: name this node, as it stands in nodes (in a pod, set POD_NAME)".into(),
        );
        String::new()
    })
}

fn own_seat(file: &SidecarConfig, node: &str, problems: &mut Vec<String>) -> Seat {
    let at = file.nodes.iter().position(|peer| peer.name == node);
    if at.is_none() && !node.is_empty() {
        problems.push(format!(
            "node: {node} is not among nodes: add it there, or correct the name"
        ));
    }
    Seat(at.unwrap_or(0) as u8)
}

fn check_nodes(file: &SidecarConfig, problems: &mut Vec<String>) {
    if !(2..=MAX_NODES).contains(&file.nodes.len()) {
        problems.push(format!(
            "nodes: {} nodes: list 2 to {MAX_NODES}",
            file.nodes.len()
        ));
    }
    if file.nodes.len().is_multiple_of(2) && file.kubernetes.is_none() {
        problems.push("kubernetes: missing: an even number of nodes needs the witness Lease; add kubernetes, or a third node".into());
    }
    for (at, peer) in file.nodes.iter().enumerate() {
        if file.nodes[..at].iter().any(|other| other.name == peer.name) {
            problems.push(format!(
                "nodes[{at}].name: {} stands there twice: names are unique",
                peer.name
            ));
        }
        let has_address = peer.address.is_some() || !peer.addresses.is_empty();
        if !has_address && file.kubernetes.is_none() {
            problems.push(format!("nodes[{at}].address: missing: without kubernetes each node needs the address of its heartbeats"));
        }
    }
}

fn check_timing(file: &SidecarConfig, problems: &mut Vec<String>) -> Timing {
    let failover = &file.failover;
    let mut broken = timing::problems(failover);
    if file.network.is_none() {
        broken.extend(timing::unfenced_problem(failover));
    }
    problems.extend(
        broken
            .iter()
            .map(|problem| format!("failover.{}: {}", problem.field, problem.message)),
    );
    let timing = Timing::from_detection(
        failover.keepalive.get(),
        failover.warntime.get(),
        failover.deadtime.get(),
    );
    if broken.is_empty() {
        problems.extend(
            timing
                .problems(file.nodes.len() as u8)
                .iter()
                .map(|problem| format!("failover: {problem}")),
        );
    }
    timing
}

fn preferred_seat(file: &SidecarConfig, problems: &mut Vec<String>) -> Option<Seat> {
    let name = file.failover.preferred_node.as_ref()?;
    let at = file.nodes.iter().position(|peer| peer.name == *name);
    if at.is_none() {
        problems.push(format!(
            "failover.preferredNode: {name} is not among nodes: name one of them, or leave it out"
        ));
    }
    at.map(|at| Seat(at as u8))
}

fn key(
    file: &SidecarConfig,
    bytes: std::io::Result<Vec<u8>>,
    problems: &mut Vec<String>,
) -> Option<ClusterKey> {
    let path = file.heartbeat.key_file.display();
    let made = bytes
        .map_err(|error| error.to_string())
        .and_then(|bytes| ClusterKey::new(&bytes).map_err(|error| error.to_string()));
    made.inspect_err(|error| problems.push(format!("heartbeat.keyFile: {path}: {error}")))
        .ok()
}

fn endpoint(
    file: &SidecarConfig,
    environment: &Environment,
    node: &str,
    problems: &mut Vec<String>,
) -> Option<OwnEndpoint> {
    file.kubernetes.as_ref()?.endpoint_slice.as_ref()?;
    let address = environment.pod_ip.clone();
    if address.is_none() {
        problems.push(
            "kubernetes.endpointSlice: needs the pod's address: set POD_IP from status.podIP"
                .into(),
        );
    }
    let uid = environment
        .pod_uid
        .clone()
        .filter(|uid| parse_uid(uid).is_some());
    if uid.is_none() {
        problems.push(
            "kubernetes.endpointSlice: needs the pod's UID: set POD_UID from metadata.uid".into(),
        );
    }
    Some(OwnEndpoint {
        pod: node.to_owned(),
        uid: uid?,
        address: address?,
        node_name: environment.node_name.clone(),
    })
}

/// A pod's UID as it is; a bare host's name by its digest.
fn occupant(uid: &str) -> Occupant {
    let digest = Sha256::digest(uid.as_bytes());
    let hashed = digest
        .first_chunk()
        .map(|bytes| u128::from_le_bytes(*bytes))
        .expect("SHA-256 has 32 bytes");
    Occupant(parse_uid(uid).unwrap_or(hashed))
}

/// On bare hosts without an API server the file is the seat map.
fn fixed_seats(file: &SidecarConfig) -> Seats {
    let mut seats = Seats {
        count: file.nodes.len() as u8,
        occupants: [None; MAX_NODES],
        requested: [false; MAX_NODES],
    };
    for (seat, peer) in seats.occupants.iter_mut().zip(&file.nodes) {
        *seat = Some(occupant(&peer.name));
    }
    seats
}

/// The port of a peer's heartbeats, when its address comes from its pod.
pub fn heartbeat_port(file: &SidecarConfig) -> u16 {
    match file.heartbeat.listen().port() {
        0 => names::HEARTBEAT_PORT,
        port => port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r"
cluster: office
nodes: [{name: office-0}, {name: office-1}]
heartbeat: {keyFile: /etc/pbx-ha/key/key}
asterisk: {userDirs: [/etc/pbx-ha/user/config]}
kubernetes: {namespace: default, lease: office-witness, endpointSlice: {name: office-active, ports: [{name: sip, port: 5060}]}}
";

    fn pod_environment() -> Environment {
        Environment {
            pod_name: Some("office-1".into()),
            pod_uid: Some("0b9f3c1e-7d2a-4c55-9e01-ffd2c3a4b5c6".into()),
            pod_ip: Some("10.0.0.2".into()),
            node_name: Some("worker".into()),
        }
    }

    fn check_text(text: &str, environment: &Environment) -> Result<Checked, Vec<String>> {
        check(
            serde_yaml::from_str(text).unwrap(),
            environment,
            Ok(vec![7; 32]),
        )
    }

    #[test]
    fn a_pod_is_known_by_its_environment() {
        let checked =
            check_text(POD, &pod_environment()).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(
            (checked.settings.seat, checked.settings.nodes),
            (Seat(1), 2)
        );
        assert!(checked.settings.traffic_needs_api);
        assert_eq!(checked.name_of(Seat(0)), "office-0");
    }

    #[test]
    fn three_bare_hosts_need_no_kubernetes() {
        let text = r"
cluster: office
node: b
nodes: [{name: a, address: '127.0.0.1:1'}, {name: b, address: '127.0.0.1:2'}, {name: c, address: '127.0.0.1:3'}]
heartbeat: {keyFile: /key}
asterisk: {userDirs: []}
";
        let checked = check_text(text, &Environment::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        assert!(checked.settings.fixed_seats.is_some());
    }

    #[test]
    fn every_problem_is_said_at_once_with_its_path() {
        let text = r"
cluster: office
node: c
nodes: [{name: a}, {name: a}]
heartbeat: {keyFile: /key}
asterisk: {userDirs: []}
failover: {keepalive: 100ms, warntime: 150ms, deadtime: 10ms, preferredNode: z}
";
        let file = serde_yaml::from_str(text).unwrap();
        let problems = check(file, &Environment::default(), Ok(vec![0; 3]))
            .err()
            .unwrap()
            .join("\n");
        for path in [
            "node: c",
            "kubernetes:",
            "nodes[0].address",
            "nodes[1].name",
            "failover.warntime",
            "failover.deadtime",
            "failover.preferredNode",
            "heartbeat.keyFile",
        ] {
            assert!(problems.contains(path), "{path} is missing in\n{problems}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error =
            serde_yaml::from_str::<SidecarConfig>(&format!("{POD}colour: blue")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }
}
