//! A real Kubernetes of several nodes on this machine, without Docker. A node is a network
//! namespace with its own containerd, kubelet and kube-proxy; the control plane runs beside them.
//! All state is in files below one folder, so any process can attach to a running cluster; what is
//! started outlives its starter, and `down` leaves nothing behind.
//!
//! Absent on purpose: a way out. No image is pulled, no name is resolved outside, and the nodes
//! reach only each other and the control plane.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::images::Image;
use crate::progress::output_of;

mod certificates;
mod cgroups;
mod control_plane;
pub mod freeze;
mod layout;
mod lifecycle;
mod mounts;
mod node;
pub mod pods;
mod process;
mod runtime_images;

pub use layout::{API_SERVICE, CONTROL_PLANE, DNS_SERVICE, Layout, NodeId, PODS, SERVICES};
pub(crate) use process::TICKS_PER_SECOND;
pub use process::{Process, own_start, wait_until};

use pods::RunningPod;

const PAUSE_IMAGE: &str = "localhost/pbx-ha/pause:1";
const COREDNS_IMAGE: &str = "localhost/pbx-ha/coredns:1";

/// A cluster that runs, or did when we attached to it.
#[derive(Clone, Debug)]
pub struct Cluster {
    layout: Layout,
    /// The binary that is every part of Kubernetes.
    kube: PathBuf,
    nodes: Vec<NodeId>,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It runs and is connected.
    On,
    /// It runs, and no packet passes.
    Cut,
    /// It is powered off.
    Off,
}

impl Cluster {
    /// Starts a cluster of `nodes` nodes and waits until all are Ready and names are resolved.
    /// A cluster that runs already is used as it is; it must have as many nodes.
    pub fn up(nodes: u8) -> Result<Self> {
        lifecycle::up(nodes)
    }

    /// The cluster that runs, whoever started it.
    pub fn attach() -> Result<Self> {
        lifecycle::attach(Layout::from_environment()?)
    }

    /// Ends everything of the cluster and removes every trace; does nothing when there is none.
    pub fn down() -> Result<()> {
        lifecycle::down(&Layout::from_environment()?)
    }

    /// All nodes, off or on.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Folders and files of the cluster.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// Runs kubectl as administrator and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output_of(self.kubectl_command().args(arguments))
    }

    /// Applies the objects that `text` describes; `options` are kubectl's.
    pub fn apply_text(&self, options: &[&str], text: &str) -> Result<()> {
        let mut apply = self.kubectl_command();
        apply
            .arg("apply")
            .args(options)
            .args(["--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut apply = apply.spawn().context("start kubectl")?;
        let mut input = apply.stdin.take().expect("stdin is piped");
        // One that ended without reading says why.
        let given = input.write_all(text.as_bytes());
        drop(input);
        let output = apply.wait_with_output().context("wait for kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl apply ended with {}: {said}",
            output.status
        );
        given.context("give kubectl a manifest")
    }

    /// A kubectl command as administrator, for those who pipe into it or let it run.
    pub fn kubectl_command(&self) -> Command {
        kubectl_command(&self.kube, &self.layout)
    }

    /// What a node is doing.
    pub fn node_state(&self, node: NodeId) -> NodeState {
        match (node::is_on(&self.layout, node), node.host().is_linked()) {
            (false, _) => NodeState::Off,
            (true, false) => NodeState::Cut,
            (true, true) => NodeState::On,
        }
    }

    /// Powers a node off, without a goodbye: its link goes first, then every process.
    pub fn crash(&self, node: NodeId) -> Result<()> {
        node::power_off(&self.layout, self.known(node)?)
    }

    /// Powers a node on again: the same identity and disk, nothing of its memory. Returns when it
    /// was started; it is Ready some seconds later.
    pub fn start(&self, node: NodeId) -> Result<()> {
        let node = self.known(node)?;
        ensure!(self.node_state(node) == NodeState::Off, "{node} is on");
        // What a crash by half, or a reboot of the machine, may have left.
        node::power_off(&self.layout, node)?;
        let others: Vec<NodeId> = self
            .nodes
            .iter()
            .copied()
            .filter(|other| *other != node)
            .collect();
        node::start_runtime(&self.layout, node, &others)?;
        runtime_images::load_remembered(&self.layout, node)?;
        node::start_agents(&self.layout, node, &self.kube)
    }

    /// Pulls a node's cable: it runs on, alone.
    pub fn cut(&self, node: NodeId) -> Result<()> {
        self.known(node)?.host().cut()
    }

    /// Plugs a node's cable in again.
    pub fn heal(&self, node: NodeId) -> Result<()> {
        self.known(node)?.host().heal()
    }

    /// Lets nothing pass from a node and its pods to the API server any more, silently.
    pub fn cut_api(&self, node: NodeId) -> Result<()> {
        node::cut_api(self.known(node)?)
    }

    /// Lets it pass again; does nothing when it does.
    pub fn heal_api(&self, node: NodeId) -> Result<()> {
        node::heal_api(self.known(node)?)
    }

    /// Kills the API server.
    pub fn stop_apiserver(&self) -> Result<()> {
        process::kill(&self.layout.log(), control_plane::API_SERVER)
    }

    /// Starts the API server on the data it had, and waits until it answers.
    pub fn start_apiserver(&self) -> Result<()> {
        if process::running(&self.layout.log(), control_plane::API_SERVER).is_none() {
            control_plane::start_api(&self.layout, &self.kube)?;
        }
        control_plane::wait_for_api(&self.layout, || {
            self.kubectl(&["get", "--raw=/readyz"]).is_ok()
        })
    }

    /// Whether the API server's process runs.
    pub fn is_apiserver_running(&self) -> bool {
        process::running(&self.layout.log(), control_plane::API_SERVER).is_some()
    }

    /// Imports images into every node that lacks them, now or when it is started.
    pub fn load_images<'a>(&self, images: impl IntoIterator<Item = &'a Image>) -> Result<()> {
        let images: Vec<Image> = images.into_iter().cloned().collect();
        runtime_images::load(&self.layout, &self.nodes, &images)
    }

    /// Gives an image that was loaded a second name, on every node that is on.
    pub fn tag_image(&self, image: &Image, reference: &str) -> Result<()> {
        runtime_images::tag(&self.layout, &self.nodes, image, reference)
    }

    /// Imports an OCI archive (such as `docker save` writes) into every node that lacks it.
    pub fn load_image(&self, archive: &Path) -> Result<Image> {
        let image = Image::open(archive)?;
        self.load_images([&image])?;
        Ok(image)
    }

    /// The file that stands for a node's network namespace; see [`crate::netns::run_in`].
    pub fn netns_of_node(&self, node: NodeId) -> PathBuf {
        node.host().path()
    }

    /// A command that will run in a node's network namespace.
    pub fn command_on(&self, node: NodeId, program: &str) -> Command {
        node.host().command(program)
    }

    /// Address of a node.
    pub fn address_of(&self, node: NodeId) -> Ipv4Addr {
        node.address()
    }

    /// Hardware address of a node.
    pub fn hardware_of(&self, node: NodeId) -> [u8; 6] {
        node.host().hardware()
    }

    /// Every pod with running containers, on all nodes.
    pub fn running_pods(&self) -> Vec<RunningPod> {
        self.nodes
            .iter()
            .flat_map(|node| pods::running_on(&self.layout, *node))
            .collect()
    }

    /// The running pod of this name. Asks the nodes and not the API, so it works in an outage.
    pub fn running_pod(&self, namespace: &str, name: &str) -> Result<RunningPod> {
        let mut found = self.running_pods();
        found.retain(|pod| pod.namespace == namespace && pod.name == name);
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => bail!("pod {namespace}/{name} runs on no node"),
            // An old life of a force-deleted pod goes on elsewhere.
            lives => bail!("pod {namespace}/{name} runs {lives} times: choose by UID"),
        }
    }

    /// All processes of the pod with this UID, as numbered on the machine.
    pub fn pod_processes(&self, uid: &str) -> Vec<Process> {
        let pods = self.running_pods().into_iter().filter(|pod| pod.uid == uid);
        pods.flat_map(|pod| pod.processes()).collect()
    }

    /// The folders with the logs of every pod that the nodes' disks hold, each called
    /// `namespace_pod_uid`; of pods that ended too, until their kubelet removes them.
    pub fn pod_log_folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for node in &self.nodes {
            let logs = self.layout.pod_logs(*node);
            let entries = fs::read_dir(&logs).into_iter().flatten();
            folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        ensure!(!folders.is_empty(), "no node holds logs of a pod");
        Ok(folders)
    }

    fn known(&self, node: NodeId) -> Result<NodeId> {
        let last = self
            .nodes
            .last()
            .ok_or_else(|| anyhow!("the cluster has no nodes"))?;
        ensure!(
            self.nodes.contains(&node),
            "{node} is not a node of this cluster: the last is {last}"
        );
        Ok(node)
    }
}

fn kubectl_command(kube: &Path, layout: &Layout) -> Command {
    let mut command = Command::new(kube);
    command
        .arg("kubectl")
        .arg("--kubeconfig")
        .arg(layout.kubeconfig());
    // Its cache of API groups would outlive the cluster.
    command
        .arg("--cache-dir")
        .arg(layout.run().join("kubectl-cache"));
    command
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
