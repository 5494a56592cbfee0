//! The pods that run on the nodes, seen from the machine: containers and processes with their
//! pids here. Read from the files of the container runtime alone, so it works while the API server
//! or containerd itself is down.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::layout::{Layout, NodeId};
use super::process::{self, Process};

/// A pod with at least one running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPod {
    /// Where it runs.
    pub node: NodeId,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its running containers, without the sandbox.
    pub containers: Vec<RunningContainer>,
    /// PID 1 of the sandbox, which holds the network namespace.
    sandbox_pid: u32,
}

/// A container of a [`RunningPod`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningContainer {
    /// Its name in the pod.
    pub name: String,
    /// What the runtime calls it.
    pub id: String,
    /// Its PID 1, as numbered on the machine.
    pub init_pid: u32,
}

impl RunningPod {
    /// All processes of all containers; the sandbox is not among them.
    pub fn processes(&self) -> Vec<Process> {
        self.containers
            .iter()
            .flat_map(RunningContainer::processes)
            .collect()
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Result<&RunningContainer> {
        let found = self
            .containers
            .iter()
            .find(|container| container.name == name);
        found.with_context(|| format!("pod {} runs no container {name}", self.name))
    }

    /// Processes of this program, such as `asterisk`; fails when there is none.
    pub fn processes_of(&self, program: &str) -> Result<Vec<Process>> {
        let found: Vec<Process> = self
            .processes()
            .into_iter()
            .filter(|process| process.program() == program)
            .collect();
        ensure!(
            !found.is_empty(),
            "no process {program} runs in pod {}",
            self.name
        );
        Ok(found)
    }

    /// The file that stands for the pod's network namespace.
    pub fn network_namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.sandbox_pid).into()
    }
}

impl RunningContainer {
    /// Its processes, PID 1 among them.
    pub fn processes(&self) -> Vec<Process> {
        process::find(|process| process::cgroups(process.pid).contains(&self.id))
    }
}

/// One container as its bundle describes it.
struct Bundle {
    container: RunningContainer,
    is_sandbox: bool,
    sandbox_id: String,
    namespace: String,
    name: String,
    uid: String,
}

/// Every pod that runs on a node.
pub(super) fn running_on(layout: &Layout, node: NodeId) -> Vec<RunningPod> {
    let folder = layout
        .containerd_state(node)
        .join("io.containerd.runtime.v2.task/k8s.io");
    let bundles: Vec<Bundle> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| read_bundle(&entry.ok()?.path()))
        .collect();
    let (sandboxes, containers): (Vec<_>, Vec<_>) =
        bundles.into_iter().partition(|bundle| bundle.is_sandbox);
    let pods = sandboxes
        .into_iter()
        .map(|sandbox| pod_of(node, sandbox, &containers));
    pods.filter(|pod| !pod.containers.is_empty()).collect()
}

fn pod_of(node: NodeId, sandbox: Bundle, containers: &[Bundle]) -> RunningPod {
    let own = containers
        .iter()
        .filter(|bundle| bundle.sandbox_id == sandbox.sandbox_id);
    RunningPod {
        node,
        containers: own.map(|bundle| bundle.container.clone()).collect(),
        namespace: sandbox.namespace,
        name: sandbox.name,
        uid: sandbox.uid,
        sandbox_pid: sandbox.container.init_pid,
    }
}

/// None when the container is not (or not any more) running.
fn read_bundle(folder: &Path) -> Option<Bundle> {
    let id = folder.file_name()?.to_str()?.to_owned();
    let init_pid = fs::read_to_string(folder.join("init.pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    if !process::cgroups(init_pid).contains(&id) {
        return None;
    }
    let settings: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("config.json")).ok()?).ok()?;
    let annotation = |name: &str| {
        let value = &settings["annotations"][format!("io.kubernetes.cri.{name}")];
        value.as_str().map(str::to_owned)
    };
    let is_sandbox = annotation("container-type")? == "sandbox";
    let name = annotation("container-name").unwrap_or_default();
    Some(Bundle {
        is_sandbox,
        sandbox_id: annotation("sandbox-id")?,
        namespace: annotation("sandbox-namespace")?,
        name: annotation("sandbox-name")?,
        uid: annotation("sandbox-uid").unwrap_or_default(),
        container: RunningContainer { name, id, init_pid },
    })
}
