//! One node: a network namespace with its own containerd, kubelet and kube-proxy. It can be
//! powered off and on like a machine: what lives in memory (processes, network, tmpfs, the state
//! of containerd) is gone, what is on its disk (images, kubelet's folders, identity) stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::control_plane::{command, path};
use super::layout::{API_PORT, BRIDGE, CONTROL_PLANE, DNS_SERVICE, Layout, NodeId, PODS};
use super::process::{self, Process};
use super::{PAUSE_IMAGE, cgroups, mounts};
use crate::netns::ip;

const CONTAINERD_TIMEOUT: Duration = Duration::from_secs(30);
const CNI_PLUGINS: &str = "/usr/lib/cni";
/// In seconds, for UDP flows of fewer than two packets each way: the probe leaves a hundred of them a second, which no phone
/// does, and kube-proxy reads all that are remembered at every move.
const SHORT_FLOW_TIMEOUT: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";

/// The table that keeps a node from the API server.
const API_CUT: &str = "pbxha_api_cut";

/// Programs that run for one node, by the beginning of their names.
const NODE_PROGRAMS: [&str; 3] = ["containerd", "runc", "kube"];

/// Gives the node its network and starts its containerd; `others` are the nodes whose pods it
/// must reach. Returns once containerd answers.
pub(super) fn start_runtime(layout: &Layout, node: NodeId, others: &[NodeId]) -> Result<()> {
    connect(node, others).with_context(|| format!("connect {node}"))?;
    write_settings(layout, node)?;
    let settings = path(&layout.node(node).join("containerd.toml"));
    let containerd = ["containerd".to_owned(), "--config".to_owned(), settings];
    process::start(
        &layout.log(),
        &format!("containerd-{node}"),
        &inside(node, containerd),
    )?;
    process::wait_until(&format!("containerd of {node}"), CONTAINERD_TIMEOUT, || {
        Ok(ctr(layout, node)
            .arg("version")
            .output()
            .context("run ctr")?
            .status
            .success())
    })
}

/// Starts the node's kubelet and kube-proxy.
pub(super) fn start_agents(layout: &Layout, node: NodeId, kube: &Path) -> Result<()> {
    let folder = layout.log();
    process::start(
        &folder,
        &format!("kubelet-{node}"),
        &inside(node, kubelet(layout, node, kube)),
    )?;
    process::start(
        &folder,
        &format!("proxy-{node}"),
        &inside(node, proxy(layout, node, kube)),
    )
}

/// Powers the node off: no packet from it after this began, no process of it when this ended.
pub(super) fn power_off(layout: &Layout, node: NodeId) -> Result<()> {
    // A node that is off already has no link to cut.
    node.host().cut().ok();
    let daemons = ["kubelet", "containerd", "proxy"].map(|part| format!("{part}-{node}"));
    let daemons = daemons
        .iter()
        .filter_map(|name| process::running(&layout.log(), name));
    process::kill_all(&daemons.collect())?;
    let containers = containers(layout, node);
    process::kill_all(&processes(layout, node, &containers))?;
    // Again, for what was being started while the first list was made.
    process::kill_all(&processes(layout, node, &containers))?;
    mounts::unmount_below(&layout.node(node))?;
    fs::remove_dir_all(layout.containerd_state(node)).ok();
    node.host().remove();
    for id in &containers {
        cgroups::remove_container(id);
    }
    Ok(())
}

/// Drops, silently, what the node and its pods send to the API server; twice is as good as once.
pub(super) fn cut_api(node: NodeId) -> Result<()> {
    let dropped = format!("ip daddr {CONTROL_PLANE} tcp dport {API_PORT} drop;");
    let chain =
        |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 10; {dropped} }};");
    let chains = [chain("output"), chain("forward")].concat();
    heal_api(node)?;
    node.host()
        .nft(&format!("table ip {API_CUT} {{ {chains} }}"))
}

/// Ends that, if there is any.
pub(super) fn heal_api(node: NodeId) -> Result<()> {
    // A table that is not there cannot be deleted, so it is made before.
    let gone = format!("add table ip {API_CUT}; delete table ip {API_CUT};");
    node.host().nft(&gone)
}

/// Whether the node is powered on.
pub(super) fn is_on(layout: &Layout, node: NodeId) -> bool {
    process::running(&layout.log(), &format!("containerd-{node}")).is_some()
}

/// A command to the node's containerd.
pub(super) fn ctr(layout: &Layout, node: NodeId) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(layout.containerd_socket(node))
        .args(["--namespace", "k8s.io"]);
    command
}

/// The ids of the node's containers, sandboxes among them.
fn containers(layout: &Layout, node: NodeId) -> Vec<String> {
    fs::read_dir(layout.bundles(node))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// All processes of these containers and of what runs them.
fn processes(layout: &Layout, node: NodeId, containers: &[String]) -> BTreeSet<u32> {
    let folder = path(&layout.node(node)) + "/";
    let is_runtime = |process: &Process| {
        NODE_PROGRAMS
            .iter()
            .any(|name| process.program().starts_with(name))
            && process
                .arguments
                .iter()
                .any(|argument| argument.contains(&folder))
    };
    let is_contained = |process: &Process| {
        let cgroups = process::cgroups(process.pid);
        containers.iter().any(|id| cgroups.contains(id))
    };
    let found = process::find(|process| is_runtime(process) || is_contained(process));
    found.into_iter().map(|process| process.pid).collect()
}

fn connect(node: NodeId, others: &[NodeId]) -> Result<()> {
    let host = node.host();
    host.create(BRIDGE, Some(CONTROL_PLANE))?;
    ip(&[
        "route",
        "replace",
        &node.pod_network(),
        "via",
        &node.address().to_string(),
    ])?;
    for other in others {
        let (network, gateway) = (other.pod_network(), other.address().to_string());
        ip(&[
            "-n",
            &host.namespace,
            "route",
            "add",
            &network,
            "via",
            &gateway,
        ])?;
    }
    // /proc/sys/net is that of the thread that opens it.
    crate::netns::run_in(&host.path(), || {
        // Missing as long as nothing has loaded connection tracking: its default then holds.
        fs::write(SHORT_FLOW_TIMEOUT, "2").ok();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")
    })?
    .context("let the node forward packets")
}

/// `nsenter` and not `ip netns exec`, which hides the cgroups.
fn inside(node: NodeId, command: impl IntoIterator<Item = String>) -> Vec<String> {
    let namespace = format!("--net={}", node.host().path().display());
    ["nsenter".to_owned(), namespace]
        .into_iter()
        .chain(command)
        .collect()
}

fn kubelet(layout: &Layout, node: NodeId, kube: &Path) -> Vec<String> {
    let folder = layout.node(node);
    command(
        kube,
        "kubelet",
        &[
            ("config", path(&folder.join("kubelet.json"))),
            (
                "kubeconfig",
                path(&layout.run().join(format!("{node}.kubeconfig"))),
            ),
            ("hostname-override", node.to_string()),
            ("node-ip", node.address().to_string()),
            ("root-dir", path(&folder.join("kubelet"))),
            ("cert-dir", path(&folder.join("pki"))),
        ],
    )
}

fn proxy(layout: &Layout, node: NodeId, kube: &Path) -> Vec<String> {
    command(
        kube,
        "kube-proxy",
        &[
            ("proxy-mode", "nftables".into()),
            ("kubeconfig", path(&layout.run().join("proxy.kubeconfig"))),
            ("hostname-override", node.to_string()),
            ("bind-address", node.address().to_string()),
            ("cluster-cidr", PODS.into()),
            // These are settings of the whole machine: left as they are.
            ("conntrack-max-per-core", "0".into()),
            ("conntrack-tcp-timeout-established", "0s".into()),
            ("conntrack-tcp-timeout-close-wait", "0s".into()),
        ],
    )
}

fn write_settings(layout: &Layout, node: NodeId) -> Result<()> {
    let folder = layout.node(node);
    fs::create_dir_all(folder.join("cni"))
        .with_context(|| format!("create {}", folder.display()))?;
    let files = [
        ("cni/10-pods.conflist", pod_network_settings(layout, node)),
        ("containerd.toml", containerd_settings(layout, node)),
        ("kubelet.json", kubelet_settings(layout, node)),
        // Short, so that a name nobody knows costs a pod one second and not ten.
        ("resolv.conf", "options timeout:1 attempts:1\n".to_owned()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).with_context(|| format!("write {name} of {node}"))?;
    }
    Ok(())
}

fn pod_network_settings(layout: &Layout, node: NodeId) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.node(node).join("ipam"),
                    "ranges": [[{ "subnet": node.pod_network() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

fn containerd_settings(layout: &Layout, node: NodeId) -> String {
    let folder = layout.node(node);
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE, runc fails when it is told to lower an OOM score.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{cni}"
"#,
        root = folder.join("containerd").display(),
        state = layout.containerd_state(node).display(),
        socket = layout.containerd_socket(node).display(),
        cni = folder.join("cni").display(),
    )
}

fn kubelet_settings(layout: &Layout, node: NodeId) -> String {
    let folder = layout.node(node);
    let pki = |suffix: &str| layout.pki().join(format!("{node}.{suffix}"));
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": layout.pki().join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki("crt"),
        "tlsPrivateKeyFile": pki("key"),
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket(node).display()),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": folder.join("resolv.conf"),
        // Several kubelets share one machine: none may claim its resources.
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "nodeStatusUpdateFrequency": "5s",
        "nodeLeaseDurationSeconds": 20,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "10Mi",
        },
        "volumePluginDir": folder.join("plugins"),
        "podLogsDir": layout.pod_logs(node),
    })
    .to_string()
}
