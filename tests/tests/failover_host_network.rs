//! Mode Host on Kubernetes: the pods are on their nodes' network, and a floating address moves with the role. What the address and
//! its fence do under every other fault is in `failover_floating`, on bare hosts: it is the same code.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pbx_crds::Cause;
use pbx_crds::status::NodeState;
use pbx_tests::clock::Moment;
use pbx_tests::cluster::{Cluster, NodeId, wait_until};
use pbx_tests::failover::probe::{AskSettings, Asking};
use pbx_tests::office::{self, SIP_PORT, repository};
use pbx_tests::watcher::Watcher;
use rustix::process::Signal;
use support::office;

mod support;

const NAMESPACE: &str = "pbx-host";
const NAME: &str = "desk";
const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 200);
const PATIENCE: Duration = Duration::from_mins(1);
/// A busy machine adds to the milliseconds that bare hosts show.
const BUSY_MS: f64 = 500.0;

fn apply(cluster: &Cluster) {
    let example = repository().join("examples/floating-address.yaml");
    let text = fs::read_to_string(example).unwrap();
    let manifest = text.replace("192.0.2.50", &VIP.to_string());
    assert_ne!(manifest, text);
    cluster
        .apply_text(&["--namespace", NAMESPACE], &manifest)
        .unwrap();
}

fn node_of(cluster: &Cluster, pod: &str) -> NodeId {
    cluster.running_pod(NAMESPACE, pod).unwrap().node
}

/// A client on the node that runs none of the pods, and who answered it by the nodes' hardware addresses.
fn ask(cluster: &Cluster, pods: &[NodeId]) -> Asking {
    let client = cluster.nodes().iter().find(|node| !pods.contains(node));
    let client = cluster.netns_of_node(*client.expect("three nodes, two pods"));
    Asking::start(AskSettings {
        target: SocketAddrV4::new(VIP, SIP_PORT),
        observer: client.clone(),
        client,
        nodes: pods
            .iter()
            .map(|node| cluster.netns_of_node(*node))
            .collect(),
        hardware: pods.iter().map(|node| cluster.hardware_of(*node)).collect(),
        limit: PATIENCE,
    })
    .unwrap()
}

#[test]
fn a_floating_address_moves_between_the_nodes_of_kubernetes() {
    let cluster = &office().cluster;
    // What a run that failed left behind has other images.
    office::remove_namespace(cluster, NAMESPACE).unwrap();
    office::create_namespace(cluster, NAMESPACE).unwrap();
    let privileged = "pod-security.kubernetes.io/enforce=privileged";
    cluster
        .kubectl(&["label", "namespace", NAMESPACE, "--overwrite", privileged])
        .unwrap();
    let watcher = Watcher::start(cluster, NAMESPACE, NAME).unwrap();
    apply(cluster);
    let is_whole = |view: &pbx_tests::watcher::View| office::is_whole(&view.status);
    let view = watcher
        .wait_until("a whole system", PATIENCE, is_whole)
        .unwrap();
    let first = view.status.active.unwrap();
    assert!(
        cluster
            .kubectl(&["get", "service", NAME, "-n", NAMESPACE])
            .is_err()
    );

    let pods = ["desk-0", "desk-1"].map(|pod| node_of(cluster, pod));
    let asking = ask(cluster, &pods);
    wait_until("answers", PATIENCE, || Ok(asking.answered() > 100)).unwrap();
    let pod = cluster.running_pod(NAMESPACE, &first).unwrap();
    let asterisk = pod.processes_of("asterisk").unwrap().remove(0);
    let killed_at = Moment::now();
    asterisk.signal(Signal::KILL).unwrap();
    let has_moved = |view: &pbx_tests::watcher::View| {
        view.status
            .active
            .as_ref()
            .is_some_and(|active| *active != first)
    };
    let view = watcher
        .wait_until("another active", PATIENCE, has_moved)
        .unwrap();
    assert_eq!(view.status.last_cause, Some(Cause::AsteriskExited));
    assert_eq!(view.status.counts.failovers, 1);
    watcher
        .wait_until("a whole system", PATIENCE, is_whole)
        .unwrap();
    let log = asking.finish().unwrap();
    let gap_ms = log.longest_gap_ms(killed_at);
    println!("kill to answer: {gap_ms:.1} ms, by two: {}", log.by_two());
    assert_eq!(log.by_two(), 0);
    let heir = usize::from(first == "desk-0");
    assert_eq!(log.answerers(killed_at).last(), Some(&heir));
    assert!(gap_ms < BUSY_MS, "{gap_ms} ms");
    let states = watcher
        .view()
        .status
        .nodes
        .into_iter()
        .map(|node| node.state);
    let states: Vec<NodeState> = states.collect();
    assert!(states.contains(&NodeState::Active) && states.contains(&NodeState::Standby));
    office::remove_namespace(cluster, NAMESPACE).unwrap();
}
