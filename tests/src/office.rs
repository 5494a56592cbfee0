//! The system as its users have it: pbx-ha installed by Helm, and the telephone system `office` of `examples/`, on the local cluster
//! in namespaces that enforce Pod Security `restricted`. What is done to it is in `scenario`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pbx_crds::PbxClusterStatus;

use crate::cluster::pods::RunningPod;
use crate::cluster::{Cluster, NodeId, NodeState, Process};
use crate::images::{Profile, ProjectImages, build_project_images};
use crate::probe::{INTERVAL, Probe, ProbeSettings};
use crate::progress::{Step, output_of};
use crate::watcher::{View, Watcher};

/// The namespace of the telephone system.
pub const NAMESPACE: &str = "pbx";
/// The namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "pbx-ha-system";
/// Name of the telephone system.
pub const NAME: &str = "office";
/// Name of the Helm release.
pub const RELEASE: &str = "pbx-ha";

/// The ConfigMap with Asterisk's files, in the same example.
pub const CONFIG_MAP: &str = "office-asterisk";
/// Asterisk's port, and the Service's.
pub const SIP_PORT: u16 = 5060;
const NODES: u8 = 3;
const WHOLE_TIMEOUT: Duration = Duration::from_mins(2);
const PROBE_LIMIT: Duration = Duration::from_mins(5);
/// What the pods were made from: the images' names stay the same when their content changes.
const IMAGES_ANNOTATION: &str = "pbxha.dev/local-images";
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// The telephone system `office`, and a client that watches it.
#[derive(Debug)]
pub struct Office {
    /// Where it runs.
    pub cluster: Cluster,
    /// What a client sees of it.
    pub watcher: Watcher,
}

/// Everything from nothing: a local cluster of three nodes, the images of the working tree, the chart, the telephone system whole.
/// What is there already is used.
pub fn ready() -> Result<Office> {
    ready_from(Profile::Local)
}

/// The same, of programs compiled so.
pub fn ready_from(profile: Profile) -> Result<Office> {
    let cluster = Cluster::up(NODES)?;
    let images = build_project_images(profile)?;
    load(&cluster, &images)?;
    install(&cluster, &images)?;
    let step = Step::begin("Telephone system: applied, until it is whole", "5 s");
    let office = Office::deploy(cluster)?;
    step.done();
    Ok(office)
}

/// Imports the project's images into every node.
pub fn load(cluster: &Cluster, images: &ProjectImages) -> Result<()> {
    let step = Step::begin("Images: importing into the nodes", "15 s, once");
    cluster.load_images(images.all())?;
    step.done();
    Ok(())
}

/// Installs the chart, or upgrades it; `images` are on the nodes. Returns when the operator is ready.
///
/// Telephone systems made from other images are taken away first, since a node does not notice that an image changed under its name.
pub fn install(cluster: &Cluster, images: &ProjectImages) -> Result<()> {
    for namespace in [NAMESPACE, OPERATOR_NAMESPACE] {
        create_namespace(cluster, namespace)?;
    }
    let step = Step::begin("pbx-ha: installing by Helm", "5 s");
    let digests: Vec<&str> = images
        .all()
        .iter()
        .map(|image| image.digest.as_str())
        .collect();
    let digests = digests.join(",");
    if made_from(cluster)? != digests {
        remove(cluster)?;
        let annotation = format!("{IMAGES_ANNOTATION}={digests}");
        cluster.kubectl(&[
            "annotate",
            "namespace",
            NAMESPACE,
            "--overwrite",
            &annotation,
        ])?;
    }
    let operator = format!("podAnnotations.image={}", images.operator.digest);
    helm(
        cluster,
        &["upgrade", "--install", RELEASE, chart()?.as_str()],
        &["--wait", "--timeout", "2m", "--set-string", &operator],
    )
    .context("install the chart")?;
    step.done();
    Ok(())
}

/// Runs helm in the operator's namespace: `command`, then `options`.
pub fn helm(cluster: &Cluster, command: &[&str], options: &[&str]) -> Result<String> {
    let mut helm = Command::new(crate::tools::helm()?);
    helm.args(command)
        .args(["--namespace", OPERATOR_NAMESPACE])
        .args(options)
        .env("KUBECONFIG", cluster.kubeconfig());
    output_of(&mut helm)
}

/// The chart's folder.
pub fn chart() -> Result<String> {
    let chart = repository().join("charts/pbx-ha");
    let text = chart.to_str();
    text.map(str::to_owned)
        .ok_or_else(|| anyhow!("the path of the repository is not UTF-8"))
}

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Creates a namespace that enforces Pod Security `restricted`; one that is there is used.
pub fn create_namespace(cluster: &Cluster, namespace: &str) -> Result<()> {
    if cluster.kubectl(&["get", "namespace", namespace]).is_err() {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    cluster
        .kubectl(&["label", "namespace", namespace, "--overwrite", RESTRICTED])
        .map(drop)
}

/// Removes a namespace with all that is in it, if it is there.
pub fn remove_namespace(cluster: &Cluster, namespace: &str) -> Result<()> {
    let delete = ["delete", "namespace", namespace, "--ignore-not-found"];
    cluster
        .kubectl(&[&delete[..], &["--timeout=90s"]].concat())
        .map(drop)
}

/// Applies `examples/office.yaml`, a ConfigMap and the telephone system, and returns at once.
pub fn apply(cluster: &Cluster) -> Result<()> {
    let example = repository().join("examples/office.yaml");
    let mut apply = cluster.kubectl_command();
    apply
        .args(["apply", "--namespace", NAMESPACE, "--filename"])
        .arg(example);
    output_of(&mut apply)
        .context("apply examples/office.yaml")
        .map(drop)
}

/// Takes the telephone system away and waits until its pods are gone.
pub fn remove(cluster: &Cluster) -> Result<()> {
    let own = ["--namespace", NAMESPACE, "--ignore-not-found"];
    if cluster
        .kubectl(&["get", "crd", "pbxclusters.pbxha.dev"])
        .is_ok()
    {
        cluster.kubectl(&[&["delete", "pbxclusters", NAME], &own[..]].concat())?;
    }
    cluster.kubectl(&[&["delete", "configmap", CONFIG_MAP], &own[..]].concat())?;
    let selector = format!("{}={NAME}", pbx_crds::names::CLUSTER_LABEL);
    cluster
        .kubectl(&[
            "wait",
            "pods",
            "--for=delete",
            "--timeout=90s",
            "--namespace",
            NAMESPACE,
            "--selector",
            &selector,
        ])
        .map(drop)
}

/// Whether both a node serves and a standby could take over, and nothing is being made or rolled.
pub fn is_whole(status: &PbxClusterStatus) -> bool {
    let has = |type_: &str, test: &dyn Fn(&str, &str) -> bool| {
        let mut found = status
            .conditions
            .iter()
            .filter(|condition| condition.type_ == type_);
        found.any(|condition| test(&condition.status, &condition.reason))
    };
    status.active.is_some()
        && has("Available", &|status, _| status == "True")
        && has("Redundant", &|status, _| status == "True")
        && has("Progressing", &|_, reason| reason == "Complete")
}

/// Whether it is whole, and the status is of the resource as it is now.
pub fn is_whole_as_asked(view: &View) -> bool {
    view.generation.is_some()
        && view.status.observed_generation == view.generation
        && is_whole(&view.status)
}

impl Office {
    /// Watches the telephone system, which need not exist yet.
    pub fn watch(cluster: Cluster) -> Result<Self> {
        let watcher = Watcher::start(&cluster, NAMESPACE, NAME)?;
        Ok(Self { cluster, watcher })
    }

    /// Applies it and waits until it is whole.
    pub fn deploy(cluster: Cluster) -> Result<Self> {
        let office = Self::watch(cluster)?;
        apply(&office.cluster)?;
        office.wait_whole()?;
        Ok(office)
    }

    /// Waits until it is whole.
    pub fn wait_whole(&self) -> Result<View> {
        let what = "an active node, a ready standby and nothing in progress";
        let found = self
            .watcher
            .wait_until(what, WHOLE_TIMEOUT, is_whole_as_asked);
        // What was seen comes first: whoever shortens the text shortens the evidence.
        found.map_err(|error| anyhow!("{error:#}\n{}", self.evidence()))
    }

    /// All pods and what the operator said last, for whoever reads that it never became whole.
    fn evidence(&self) -> String {
        let operator = "--selector=app.kubernetes.io/name=pbx-ha-operator";
        let log = [
            "logs",
            operator,
            "--tail=12",
            "--prefix",
            "--namespace",
            OPERATOR_NAMESPACE,
        ];
        let pods = ["get", "pods", "--all-namespaces", "--output=wide"];
        let shown = [&pods[..], &log].map(|asked| match self.cluster.kubectl(asked) {
            Ok(told) => told,
            Err(error) => format!("{error:#}"),
        });
        shown.join("\n")
    }

    /// Merges `patch` (JSON) into an object of the telephone system.
    pub fn patch(&self, kind: &str, name: &str, patch: &str) -> Result<()> {
        let of = ["patch", kind, name, "--namespace", NAMESPACE];
        let change = [&of[..], &["--type=merge", "--patch", patch]].concat();
        self.cluster.kubectl(&change).map(drop)
    }

    /// The name of the active node.
    pub fn active(&self) -> Result<String> {
        let status = self.watcher.view().status;
        status.active.context("no node is active")
    }

    /// The names of the others.
    pub fn standbys(&self) -> Result<Vec<String>> {
        let active = self.active()?;
        let nodes = self.watcher.view().status.nodes;
        let names = nodes.into_iter().map(|node| node.name);
        Ok(names.filter(|name| *name != active).collect())
    }

    /// A pod of it, as it runs on its node.
    pub fn pod(&self, name: &str) -> Result<RunningPod> {
        self.cluster.running_pod(NAMESPACE, name)
    }

    /// The active node's pod.
    pub fn active_pod(&self) -> Result<RunningPod> {
        self.pod(&self.active()?)
    }

    /// The Asterisk of a pod: exactly one process.
    pub fn asterisk_of(&self, pod: &RunningPod) -> Result<Process> {
        let mut found = pod.processes_of("asterisk")?;
        ensure!(
            found.len() == 1,
            "pod {} runs {} processes of Asterisk",
            pod.name,
            found.len()
        );
        Ok(found.remove(0))
    }

    /// The Service's address and SIP port.
    pub fn service(&self) -> Result<SocketAddrV4> {
        let path = "jsonpath={.spec.clusterIP}";
        let text = self.cluster.kubectl(&[
            "get",
            "service",
            NAME,
            "--namespace",
            NAMESPACE,
            "-o",
            path,
        ])?;
        let address: Ipv4Addr = text
            .trim()
            .parse()
            .context("read the Service's cluster address")?;
        Ok(SocketAddrV4::new(address, SIP_PORT))
    }

    /// The address that the traffic goes to now.
    pub fn serving_address(&self) -> Result<Ipv4Addr> {
        let address = self.watcher.view().traffic.address;
        let address = address.context("the EndpointSlice names nobody")?;
        address.parse().context("read the EndpointSlice")
    }

    /// A SIP client that asks `target`, on a node that stays on and runs no PBX pod, as far as there is one.
    pub fn probe(&self, target: SocketAddrV4) -> Result<Probe> {
        let (namespace, client) = self.client()?;
        Probe::start(ProbeSettings {
            namespace,
            client,
            target,
            interval: INTERVAL,
            limit: PROBE_LIMIT,
        })
    }

    /// Where such a client runs: a node's network namespace, and its address.
    pub fn client(&self) -> Result<(PathBuf, Ipv4Addr)> {
        let node = self.client_node()?;
        let cluster = &self.cluster;
        Ok((cluster.netns_of_node(node), cluster.address_of(node)))
    }

    fn client_node(&self) -> Result<NodeId> {
        let active = self.active_pod()?.node;
        let standbys = self.standbys()?;
        let of_standbys: Vec<NodeId> = standbys
            .iter()
            .filter_map(|name| Some(self.pod(name).ok()?.node))
            .collect();
        let mut nodes: Vec<NodeId> = self.cluster.nodes().to_vec();
        nodes.retain(|node| self.cluster.node_state(*node) == NodeState::On && *node != active);
        nodes.sort_by_key(|node| of_standbys.contains(node));
        let first = nodes.first().copied();
        first.context("no node but the active's is on")
    }
}

fn made_from(cluster: &Cluster) -> Result<String> {
    let path = format!(
        "jsonpath={{.metadata.annotations.{}}}",
        IMAGES_ANNOTATION.replace('.', "\\.")
    );
    cluster.kubectl(&["get", "namespace", NAMESPACE, "-o", &path])
}
