//! A Kubernetes node powered off, and on again.

use std::time::Duration;

use anyhow::{Context, Result};

use super::moves::{Move, Steps, observe};
use crate::clock::Moment;
use crate::cluster::{NodeId, NodeState};
use crate::office::{OPERATOR_NAMESPACE, Office};

const SILENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Powers the active's node off; once the standby serves, the node is powered on again and its pod comes back.
pub fn power_off(office: &Office) -> Result<Move> {
    let node = office.active_pod()?.node;
    keep_operator_off(office, node)?;
    let repair = |office: &Office| power_on(office, node);
    let found = observe(
        office,
        &Steps {
            cause: &power_off_of_active,
            repair: &repair,
        },
    );
    // After a failure too: the next scenario needs the node.
    if office.cluster.node_state(node) == NodeState::Off {
        power_on(office, node)?;
    }
    found
}

/// Powers the active's node off and returns when.
pub fn power_off_of_active(office: &Office) -> Result<Moment> {
    let node = office.active_pod()?.node;
    let at = Moment::now();
    office.cluster.crash(node)?;
    Ok(at)
}

/// Moves the operator to another node if it runs on this one: lost with it, it would be missed by the status alone, but for the minutes
/// that Kubernetes takes to start it elsewhere.
pub fn keep_operator_off(office: &Office, node: NodeId) -> Result<()> {
    let cluster = &office.cluster;
    let mut pods = cluster.running_pods().into_iter();
    let Some(pod) = pods.find(|pod| pod.namespace == OPERATOR_NAMESPACE && pod.node == node) else {
        return Ok(());
    };
    let own = ["--namespace", OPERATOR_NAMESPACE];
    cluster.kubectl(&["cordon", &node.to_string()])?;
    let moved = cluster
        .kubectl(&[&["delete", "pod", &pod.name], &own[..]].concat())
        .and_then(|_| {
            let ready = ["wait", "deployment", "--all", "--timeout=60s"];
            let available = ["--for=condition=Available"];
            cluster.kubectl(&[&ready[..], &available, &own].concat())
        });
    // After a failure too.
    cluster.kubectl(&["uncordon", &node.to_string()])?;
    moved.context("move the operator to another node")?;
    office.wait_whole().map(drop)
}

/// Powers a node on again, once the status shows that its pod is missed: what follows then is its return.
pub fn power_on(office: &Office, node: NodeId) -> Result<()> {
    office
        .watcher
        .wait_until("the loss in the status", SILENT_TIMEOUT, |view| {
            !crate::office::is_whole(&view.status)
        })?;
    office.cluster.start(node)?;
    let ready = format!("node/{node}");
    office
        .cluster
        .kubectl(&["wait", "--timeout=90s", "--for=condition=Ready", &ready])
        .context("wait for the node to be Ready")
        .map(drop)
}
