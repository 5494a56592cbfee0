//! Where everything of the cluster is: folders, addresses, names. All addresses are from
//! 198.18.0.0/15, which is set aside for benchmarks and so is nobody's network.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Host;

/// The bridge that joins the nodes and the control plane.
pub(super) const BRIDGE: &str = "pbxha";
/// The control plane's address on the bridge.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Where the API server listens there.
pub(super) const API_PORT: u16 = 6443;
/// The Service of the API inside the cluster.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The Service of the cluster's names.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
/// All Services.
pub const SERVICES: &str = "198.19.0.0/24";
/// All pods.
pub const PODS: &str = "198.18.128.0/17";
/// As many as there are pod networks.
pub const MOST_NODES: u8 = 100;

/// The folder that holds all state of the running cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    run: PathBuf,
}

/// A node by its number, from 1; written `node-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u8);

impl Layout {
    /// `$PBXHA_RUN`, or `/tmp/pbxha-cluster`.
    pub fn from_environment() -> Result<Self> {
        let run = std::env::var_os("PBXHA_RUN").filter(|value| !value.is_empty());
        let run = run.map_or_else(|| PathBuf::from("/tmp/pbxha-cluster"), PathBuf::from);
        ensure!(run.is_absolute(), "PBXHA_RUN must be an absolute path");
        ensure!(
            run.as_os_str().len() <= 40,
            "PBXHA_RUN is longer than 40 bytes, too long for the sockets below it: choose a shorter one"
        );
        Ok(Self { run })
    }

    /// The folder itself.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Logs and pids of every process.
    pub fn log(&self) -> PathBuf {
        self.run.join("log")
    }

    /// The audit log: one JSON line for each write to the API.
    pub fn audit_log(&self) -> PathBuf {
        self.run.join("log/audit.jsonl")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.run.join("admin.kubeconfig")
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.run.join("pki")
    }

    pub(super) fn node(&self, node: NodeId) -> PathBuf {
        self.run.join(node.to_string())
    }

    pub(super) fn containerd_socket(&self, node: NodeId) -> PathBuf {
        self.node(node).join("containerd.sock")
    }

    /// Where the node's kubelet keeps the logs of its pods.
    pub(super) fn pod_logs(&self, node: NodeId) -> PathBuf {
        self.node(node).join("podlogs")
    }

    /// What containerd forgets when the node is powered off.
    pub(super) fn containerd_state(&self, node: NodeId) -> PathBuf {
        self.node(node).join("state")
    }

    /// A folder for each running container, called by its id.
    pub(super) fn bundles(&self, node: NodeId) -> PathBuf {
        self.containerd_state(node)
            .join("io.containerd.runtime.v2.task/k8s.io")
    }
}

impl NodeId {
    /// The node of this number.
    pub fn new(number: u8) -> Result<Self> {
        ensure!(
            (1..=MOST_NODES).contains(&number),
            "nodes are numbered from 1 to {MOST_NODES}"
        );
        Ok(Self(number))
    }

    /// The first `count` nodes.
    pub fn first(count: u8) -> Result<Vec<Self>> {
        (1..=count).map(Self::new).collect()
    }

    /// The address of the node.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, 10 + self.0)
    }

    /// The network of the node's pods.
    pub fn pod_network(self) -> String {
        format!("198.18.{}.0/24", 127 + self.0)
    }

    /// The node's network namespace and link.
    pub fn host(self) -> Host {
        Host {
            namespace: format!("pbxha-{self}"),
            outer_link: format!("pbxha{}", self.0),
            address: self.address(),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = anyhow::Error;

    /// Takes `node-2` and `2`.
    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_prefix("node-").unwrap_or(text);
        if number.is_empty() {
            bail!("no node is named: write node-1, node-2, ...");
        }
        Self::new(
            number
                .parse()
                .with_context(|| format!("{text:?} is not like node-1"))?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_read_as_it_is_written_or_by_its_number() {
        let node: NodeId = "node-2".parse().unwrap();
        assert_eq!(node, "2".parse().unwrap());
        assert_eq!(node.to_string(), "node-2");
        assert_eq!(node.address(), Ipv4Addr::new(198, 18, 0, 12));
        assert_eq!(node.pod_network(), "198.18.129.0/24");
        assert!(
            ["node-0", "node-101", "node-", "two"]
                .iter()
                .all(|t| t.parse::<NodeId>().is_err())
        );
    }
}
