//! What is observed of a cluster, reduced to what the decisions need. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use kube::ResourceExt;
use pbx_crds::report::{Problem, Report};
use pbx_crds::{PbxClusterStatus, names};

/// Everything that the status is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Name of the cluster.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Number of nodes.
    pub nodes: u8,
    /// How long a node that was never heard counts as starting.
    pub initdead: std::time::Duration,
    /// The status as it stands.
    pub status: PbxClusterStatus,
    /// What the last reconcile found out.
    pub objects: ObjectsState,
    /// The pods, by name.
    pub pods: BTreeMap<String, PodFacts>,
    /// What the sidecars say, by UID of the pod.
    pub reports: BTreeMap<String, NodeReport>,
    /// The template that the pods are to have.
    pub template: TemplateFacts,
}

/// What the last reconcile found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectsState {
    /// The generation that it was about; `None` before the first.
    pub generation: Option<i64>,
    /// What keeps the cluster from being whole.
    pub problem: Option<Problem>,
    /// Hash of the user's ConfigMap, as far as it is known.
    pub user_hash: Option<String>,
    /// Whether it failed.
    pub has_failed: bool,
}

/// What a sidecar said last.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// Its words.
    pub report: Report,
    /// Whether the stream still stands.
    pub is_connected: bool,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its address.
    pub address: Option<String>,
    /// The Kubernetes node it runs on.
    pub node_name: Option<String>,
    /// The revision of its template.
    pub revision: Option<String>,
    /// Whether kubelet calls it ready.
    pub is_ready: bool,
    /// Whether it never was.
    pub was_never_ready: bool,
    /// Whether it was told to end.
    pub is_terminating: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its role label.
    pub role_label: Option<String>,
    /// The hash of the user's ConfigMap that it is marked with.
    pub user_hash: Option<String>,
    /// What keeps it from starting.
    pub problem: Option<Problem>,
}

/// The template of the StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateFacts {
    /// The revision that pods are to have; `None` while it is not known for the present spec.
    pub revision: Option<String>,
}

impl TemplateFacts {
    /// From the StatefulSet: its revision counts only once its controller has seen the present spec.
    pub fn of(set: &StatefulSet) -> Self {
        let status = set.status.clone().unwrap_or_default();
        let is_current = status.observed_generation == set.metadata.generation;
        Self {
            revision: status.update_revision.filter(|_| is_current),
        }
    }
}

impl Observed {
    /// The pod of `node` and what its sidecar said.
    pub fn node(&self, node: &str) -> (Option<&PodFacts>, Option<&NodeReport>) {
        let pod = self.pods.get(node);
        (pod, pod.and_then(|pod| self.reports.get(&pod.uid)))
    }

    /// What the sidecar of `node` says right now.
    pub fn connected(&self, node: &str) -> Option<&Report> {
        let (_, report) = self.node(node);
        report
            .filter(|report| report.is_connected)
            .map(|report| &report.report)
    }

    /// What all connected sidecars of present pods say, with the names of their nodes.
    pub fn all_connected(&self) -> impl Iterator<Item = (&str, &Report)> {
        self.pods
            .keys()
            .filter_map(|name| Some((name.as_str(), self.connected(name)?)))
    }

    /// The names of the nodes, by seat.
    pub fn node_names(&self) -> impl Iterator<Item = String> {
        (0..self.nodes).map(|seat| names::pod(&self.name, seat))
    }
}

impl PodFacts {
    /// From the pod; `None` without the fields that every stored pod has.
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().find(|one| one.type_ == "Ready");
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        Some(Self {
            name: pod.name_any(),
            uid: pod.uid()?,
            address: status.pod_ip,
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            revision: pod.labels().get("controller-revision-hash").cloned(),
            is_ready,
            was_never_ready: !is_ready
                && was_never_ready(ready, status.start_time.as_ref().map(|time| time.0)),
            is_terminating: pod.metadata.deletion_timestamp.is_some(),
            created_at: pod.creation_timestamp()?.0,
            role_label: pod.labels().get(names::ROLE_LABEL).cloned(),
            user_hash: pod
                .annotations()
                .get(names::USER_CONFIG_ANNOTATION)
                .cloned(),
            problem: problem_of(pod, &conditions),
        })
    }
}

impl PodFacts {
    /// Not of a former cluster of the same name: its pods may still be ending, and their sidecars still tell its history.
    pub fn is_of_cluster_made_at(&self, moment: Timestamp) -> bool {
        self.created_at >= moment
    }
}

/// The Ready condition is made, as False, when kubelet takes the pod; its transition moves only when it was True between.
fn was_never_ready(ready: Option<&PodCondition>, started_at: Option<Timestamp>) -> bool {
    let changed_at = ready.and_then(|ready| ready.last_transition_time.as_ref());
    match (changed_at, started_at) {
        (Some(changed_at), Some(started_at)) => {
            changed_at.0.as_second() <= started_at.as_second() + 1
        }
        _ => true,
    }
}

fn problem_of(pod: &Pod, conditions: &[PodCondition]) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten();
    containers
        .chain(status.container_statuses.iter().flatten())
        .find_map(|container| container_problem(pod, container))
        .or_else(|| unschedulable(pod, conditions))
}

fn container_problem(pod: &Pod, status: &ContainerStatus) -> Option<Problem> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let detail = waiting.message.as_deref().unwrap_or_default();
    let (pod, container, image) = (qualified(pod), &status.name, &status.image);
    let (reason, message) = match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => (
            "ImageUnavailable",
            format!(
                "pod {pod} cannot get image {image} of container {container}: correct the image, or set imagePullSecrets ({detail})"
            ),
        ),
        "CrashLoopBackOff" if container == "asterisk" => (
            "AsteriskCrashLoop",
            format!(
                "container asterisk of pod {pod} ends again and again: see `kubectl logs {pod} -c asterisk`"
            ),
        ),
        "CrashLoopBackOff" => (
            "ContainerCrashLoop",
            format!("container {container} of pod {pod} ends again and again: see its log"),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => (
            "ContainerNotCreated",
            format!("container {container} of pod {pod} cannot be made: {detail}"),
        ),
        _ => return None,
    };
    Some(Problem {
        reason: reason.into(),
        message: bounded(&message),
    })
}

fn unschedulable(pod: &Pod, conditions: &[PodCondition]) -> Option<Problem> {
    let scheduled = conditions.iter().find(|one| one.type_ == "PodScheduled")?;
    if scheduled.status != "False" || scheduled.reason.as_deref() != Some("Unschedulable") {
        return None;
    }
    let detail = scheduled.message.as_deref().unwrap_or_default();
    let message = format!(
        "no Kubernetes node takes pod {}: add a node or relax the placement ({detail})",
        qualified(pod)
    );
    Some(Problem {
        reason: "Unschedulable".into(),
        message: bounded(&message),
    })
}

fn qualified(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Events and conditions have room for about a thousand characters.
fn bounded(message: &str) -> String {
    message.chars().take(900).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &str) -> PodFacts {
        let yaml = format!(
            "metadata: {{name: office-0, namespace: default, uid: u, creationTimestamp: '2026-01-01T00:00:00Z'}}\nstatus: {status}"
        );
        PodFacts::of(&serde_yaml::from_str(&yaml).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_older_than_the_cluster_is_of_a_former_one() {
        let pod = pod("{}");
        assert!(pod.is_of_cluster_made_at(pod.created_at));
        let later = pod.created_at + jiff::SignedDuration::from_secs(1);
        assert!(!pod.is_of_cluster_made_at(later));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named() {
        let facts = pod(
            "{containerStatuses: [{name: asterisk, image: nowhere/a:1, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: ErrImagePull, message: no such host}}}]}",
        );
        let problem = facts.problem.unwrap();
        assert_eq!(problem.reason, "ImageUnavailable");
        assert!(
            problem
                .message
                .contains("default/office-0 cannot get image nowhere/a:1")
        );
    }

    #[test]
    fn a_pod_that_waits_for_its_first_start_has_no_problem() {
        let facts = pod(
            "{containerStatuses: [{name: asterisk, image: a, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: PodInitializing}}}]}",
        );
        assert_eq!(facts.problem, None);
    }

    #[test]
    fn readiness_that_was_lost_is_told_from_readiness_never_reached() {
        let at = |second: u32, status: &str| {
            format!(
                "{{startTime: '2026-01-01T00:00:01Z', conditions: [{{type: Ready, status: '{status}', lastTransitionTime: '2026-01-01T00:00:{second:02}Z'}}]}}"
            )
        };
        assert!(pod(&at(1, "False")).was_never_ready);
        assert!(!pod(&at(9, "False")).was_never_ready);
        assert!(!pod(&at(1, "True")).was_never_ready);
        assert!(pod("{}").was_never_ready);
    }
}
