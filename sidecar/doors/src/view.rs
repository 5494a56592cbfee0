//! What every door shows: one node's knowledge of the whole cluster, published when it changes, not with every beat.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pbx_crds::report::Report;

/// The cluster as this node knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Name of the cluster.
    pub cluster: String,
    /// When this cluster began, as far as history tells; else when this sidecar did.
    pub cluster_started_at: Timestamp,
    /// When this sidecar began.
    pub started_at: Timestamp,
    /// This node's place in `nodes`.
    pub own: usize,
    /// All configured nodes, in the order of their seats.
    pub nodes: Vec<NodeView>,
    /// Whoever serves, as a place in `nodes`.
    pub active: Option<usize>,
    /// The highest epoch seen.
    pub epoch: i64,
    /// Between two beats.
    pub keepalive: Duration,
    /// Silence after which a peer is late.
    pub warntime: Duration,
    /// Silence after which a peer is dead.
    pub deadtime: Duration,
    /// What a node waits for its peers after its start.
    pub initdead: Duration,
}

/// A node as this node knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its address, once known.
    pub address: Option<IpAddr>,
    /// Heard within warntime; of this node always true.
    pub is_up: bool,
    /// Ever heard; of this node always true.
    pub is_known: bool,
    /// What it tells of itself: of this node always there, of a peer once it has told it, and then without the ledger, which all
    /// nodes share.
    pub report: Option<Arc<Report>>,
}

impl View {
    /// This node.
    pub fn own(&self) -> &NodeView {
        &self.nodes[self.own]
    }

    /// This node's report: counts and history are in its ledger, the same on all nodes.
    pub fn own_report(&self) -> &Report {
        let report = self.own().report.as_deref();
        report.expect("a node knows its own report")
    }
}
