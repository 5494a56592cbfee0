//! Bringing the cluster up, attaching to it, taking it down.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::layout::{BRIDGE, CONTROL_PLANE, DNS_SERVICE, Layout, NodeId};
use super::{
    COREDNS_IMAGE, Cluster, PAUSE_IMAGE, certificates, cgroups, control_plane, mounts, node,
    process, runtime_images, write,
};
use crate::images::{Image, ImageSpec, build_image};
use crate::kube_build;
use crate::netns::ip;
use crate::packages::{self, CLUSTER};
use crate::progress::Step;
use crate::tools::{cache_dir, lock};

const USABLE_TIMEOUT: Duration = Duration::from_secs(90);

/// What a cluster is made of, fetched or built before it starts.
struct Parts {
    kube: PathBuf,
    images: Vec<Image>,
}

pub(super) fn up(count: u8) -> Result<Cluster> {
    let layout = Layout::from_environment()?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "a local cluster needs root"
    );
    let nodes = NodeId::first(count)?;
    ensure!(!nodes.is_empty(), "a cluster needs at least one node");
    let _turn = lock(&cache_dir()?.join(".cluster.lock"))?;
    if let Ok(cluster) = attach(layout.clone()) {
        let running = cluster.nodes.len();
        ensure!(
            running == nodes.len(),
            "a cluster of {running} nodes runs: take it down first"
        );
        eprintln!("a cluster of {running} nodes runs already: using it");
        return Ok(cluster);
    }
    let parts = parts()?;
    down(&layout)?;
    let step = Step::begin(format!("Kubernetes with {count} nodes: starting"), "10 s");
    let cluster = Cluster {
        layout,
        kube: parts.kube,
        nodes,
    };
    start(&cluster, &parts.images).inspect_err(|_| keep_logs(&cluster.layout))?;
    step.done();
    Ok(cluster)
}

pub(super) fn attach(layout: Layout) -> Result<Cluster> {
    let text = fs::read_to_string(state_file(&layout))
        .context("no local cluster runs: start one with `cargo xtask cluster up`")?;
    let state: Value = serde_json::from_str(&text).context("read the state of the cluster")?;
    let count = state["nodes"]
        .as_u64()
        .and_then(|count| count.try_into().ok());
    let kube = state["kube"].as_str().map(PathBuf::from);
    let (Some(count), Some(kube)) = (count, kube) else {
        bail!(
            "{} is damaged: take the cluster down",
            state_file(&layout).display()
        );
    };
    // etcd is what no test ever stops.
    ensure!(
        process::running(&layout.log(), control_plane::ETCD).is_some(),
        "the local cluster has died: take it down with `cargo xtask cluster down`"
    );
    Ok(Cluster {
        layout,
        kube,
        nodes: NodeId::first(count)?,
    })
}

pub(super) fn down(layout: &Layout) -> Result<()> {
    let run = layout.run();
    if !run.exists() {
        return Ok(());
    }
    let daemons = process::remembered(&layout.log());
    let pids: BTreeSet<u32> = daemons
        .iter()
        .filter_map(|name| process::running(&layout.log(), name))
        .collect();
    process::kill_all(&pids)?;
    on_each(&nodes_with_folders(run), |node| {
        ip(&["route", "del", &node.pod_network()]).ok();
        node::power_off(layout, node)
    })?;
    mounts::unmount_below(run)?;
    ip(&["link", "del", BRIDGE]).ok();
    cgroups::remove_all();
    fs::remove_dir_all(run).with_context(|| format!("remove {}", run.display()))
}

/// Builds what is missing: the Go programs one after the other, for each uses every core; the
/// Debian packages meanwhile.
fn parts() -> Result<Parts> {
    thread::scope(|scope| {
        let packages = scope.spawn(|| packages::ensure(&[CLUSTER]));
        let kube = kube_build::kubernetes()?;
        let pause = small_image(PAUSE_IMAGE, "pause", &kube_build::pause()?)?;
        let coredns = small_image(COREDNS_IMAGE, "coredns", &kube_build::coredns()?)?;
        packages
            .join()
            .map_err(|_| anyhow!("installing packages panicked"))??;
        Ok(Parts {
            kube,
            images: vec![pause, coredns],
        })
    })
}

fn small_image(reference: &str, program: &str, binary: &Path) -> Result<Image> {
    let spec = ImageSpec {
        entrypoint: vec![format!("/{program}")],
        ..ImageSpec::named(reference).with_program(program, binary)
    };
    build_image(
        &spec,
        &binary.with_file_name(format!("image-{program}.tar")),
    )
}

fn start(cluster: &Cluster, images: &[Image]) -> Result<()> {
    let Cluster {
        layout,
        kube,
        nodes,
    } = cluster;
    fs::create_dir_all(layout.log())
        .with_context(|| format!("create {}", layout.log().display()))?;
    certificates::create(layout, nodes)?;
    cgroups::prepare()?;
    connect_control_plane()?;
    control_plane::start_api(layout, kube)?;
    // The API server takes seconds to come up; the nodes need it only for their kubelets.
    thread::scope(|scope| {
        let runtimes = scope.spawn(|| start_runtimes(cluster, images));
        control_plane::wait_for_api(layout, || {
            cluster.kubectl(&["get", "--raw=/readyz"]).is_ok()
        })?;
        control_plane::start_controllers(layout, kube)?;
        apply_dns(cluster)?;
        runtimes
            .join()
            .map_err(|_| anyhow!("starting the nodes panicked"))?
    })?;
    for node in nodes {
        node::start_agents(layout, *node, kube)?;
    }
    wait_until_usable(cluster)?;
    write(
        &state_file(layout),
        &json!({ "nodes": nodes.len(), "kube": kube }).to_string(),
    )
}

fn connect_control_plane() -> Result<()> {
    // Of its own, a bridge takes the lowest address of its ports, and loses it with that port: all nodes would send to nobody
    // for a second after another one was powered off.
    let own = [
        "link",
        "add",
        BRIDGE,
        "address",
        "02:70:62:78:68:61",
        "type",
        "bridge",
    ];
    ip(&own)?;
    ip(&["addr", "add", &format!("{CONTROL_PLANE}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])
}

fn start_runtimes(cluster: &Cluster, images: &[Image]) -> Result<()> {
    let Cluster { layout, nodes, .. } = cluster;
    on_each(nodes, |node| {
        let others: Vec<NodeId> = nodes
            .iter()
            .copied()
            .filter(|other| *other != node)
            .collect();
        node::start_runtime(layout, node, &others)
    })?;
    runtime_images::load(layout, nodes, images)
}

fn apply_dns(cluster: &Cluster) -> Result<()> {
    let address: Ipv4Addr = DNS_SERVICE;
    let manifest = include_str!("../../assets/cluster/coredns.yaml")
        .replace("COREDNS_IMAGE", COREDNS_IMAGE)
        .replace("DNS_ADDRESS", &address.to_string());
    let apply = cluster.apply_text(&["--server-side"], &manifest);
    apply.context("apply CoreDNS")
}

/// Every node Ready, names resolved on each, and pods can be created in the default namespace.
fn wait_until_usable(cluster: &Cluster) -> Result<()> {
    let nodes: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("node/{node}"))
        .collect();
    let mut objects: Vec<&str> = nodes.iter().map(String::as_str).collect();
    objects.push("serviceaccount/default");
    // `kubectl wait --for=create` gives up at once when several are named.
    process::wait_until("nodes and service account", USABLE_TIMEOUT, || {
        Ok(cluster
            .kubectl(&[&["get"], objects.as_slice()].concat())
            .is_ok())
    })?;
    objects.pop();
    cluster
        .kubectl(
            &[
                &["wait", "--timeout=90s", "--for=condition=Ready"],
                objects.as_slice(),
            ]
            .concat(),
        )
        .context("wait for the nodes to be Ready")?;
    let rollout = [
        "rollout",
        "status",
        "daemonset/coredns",
        "-n",
        "kube-system",
        "--timeout=90s",
    ];
    cluster
        .kubectl(&rollout)
        .context("wait for CoreDNS")
        .map(drop)
}

/// Does `work` for all nodes at once.
fn on_each(nodes: &[NodeId], work: impl Fn(NodeId) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(move || work(*node)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow!("work on a node panicked"))?
        })
    })
}

/// The nodes that left a folder, whatever the state file says.
fn nodes_with_folders(run: &Path) -> Vec<NodeId> {
    fs::read_dir(run)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_prefix("node-")?
                .parse()
                .ok()
        })
        .collect()
}

fn state_file(layout: &Layout) -> PathBuf {
    layout.run().join("cluster.json")
}

fn keep_logs(layout: &Layout) {
    let logs = layout.log();
    eprintln!(
        "the logs are in {}; `cargo xtask cluster down` removes what was started",
        logs.display()
    );
}
