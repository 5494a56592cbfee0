//! The observer's calls to the API: status, role labels, deletion of a pod. Each has a deadline, and none is made
//! when it would change nothing.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use pbx_crds::{PbxCluster, PbxClusterStatus, names};
use serde_json::json;
use tokio::time::timeout;

use super::ClusterKey;
use super::facts::PodFacts;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Writing the status.
    #[error("cannot write the status")]
    Status(#[source] kube::Error),
    /// Labelling a pod.
    #[error("cannot label pod {pod}")]
    Label {
        /// Which.
        pod: String,
        /// What the API said.
        source: kube::Error,
    },
    /// Deleting a pod.
    #[error("cannot delete pod {pod}")]
    Delete {
        /// Which.
        pod: String,
        /// What the API said.
        source: kube::Error,
    },
    /// No answer.
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

impl WriteError {
    /// A stable reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Status(_) => "StatusNotWritten",
            Self::Label { .. } => "PodNotLabelled",
            Self::Delete { .. } => "PodNotDeleted",
            Self::Timeout => "ApiTimeout",
        }
    }
}

/// Writes for one cluster, and remembers what it wrote until the watches show it.
pub struct Writer {
    client: Client,
    key: ClusterKey,
    written: Option<(u64, PbxClusterStatus)>,
    marked: HashMap<String, Mark>,
}

/// What a pod is marked with: its role, and the user's files that kubelet is to bring.
type Mark = (&'static str, Option<String>);

impl Writer {
    /// Nothing written yet.
    pub fn new(client: Client, key: ClusterKey) -> Self {
        Self {
            client,
            key,
            written: None,
            marked: HashMap::new(),
        }
    }

    /// The status as it stands: the watch's, unless ours is newer.
    pub fn known_status(&self, stored: &PbxCluster) -> PbxClusterStatus {
        match &self.written {
            Some((version, status)) if *version > version_of(stored) => PbxClusterStatus {
                // Written apart from the rest, see `seats`.
                witness: stored.status.clone().and_then(|status| status.witness),
                ..status.clone()
            },
            _ => stored.status.clone().unwrap_or_default(),
        }
    }

    /// Writes `status`, server-side applied; the witness's map is left to [`super::seats`]. Never to another cluster of the same name.
    pub async fn write_status(
        &mut self,
        cluster: &PbxCluster,
        status: &PbxClusterStatus,
    ) -> Result<(), WriteError> {
        let body = PbxClusterStatus {
            witness: None,
            ..status.clone()
        };
        let patch = json!({
            "apiVersion": "pbxha.dev/v1alpha1",
            "kind": "PbxCluster",
            "metadata": {"name": self.key.name, "uid": cluster.uid()},
            "status": body,
        });
        let api = Api::<PbxCluster>::namespaced(self.client.clone(), &self.key.namespace);
        let params = PatchParams::apply(names::OPERATOR_MANAGER).force();
        let patch = Patch::Apply(&patch);
        let writing = api.patch_status(&self.key.name, &params, &patch);
        let written = timeout(CALL_TIMEOUT, writing)
            .await
            .map_err(|_| WriteError::Timeout)?
            .map_err(WriteError::Status)?;
        self.written = Some((version_of(&written), written.status.unwrap_or_default()));
        Ok(())
    }

    /// Gives `pod` its role label, and the hash of the user's files, if it has others. A changed hash makes kubelet look at the files.
    pub async fn mark_pod(
        &mut self,
        pod: &PodFacts,
        role: &'static str,
        user_hash: Option<&str>,
    ) -> Result<(), WriteError> {
        let hash = user_hash.or(pod.user_hash.as_deref());
        if pod.role_label.as_deref() == Some(role) && pod.user_hash.as_deref() == hash {
            self.marked.remove(&pod.uid);
            return Ok(());
        }
        let mark = (role, hash.map(str::to_owned));
        if self.marked.get(&pod.uid) == Some(&mark) {
            return Ok(());
        }
        let mut patch = json!({
            "metadata": {"uid": pod.uid, "labels": {names::ROLE_LABEL: role}}
        });
        if let Some(hash) = hash {
            patch["metadata"]["annotations"] = json!({names::USER_CONFIG_ANNOTATION: hash});
        }
        let params = PatchParams {
            field_manager: Some(names::OPERATOR_MANAGER.into()),
            ..PatchParams::default()
        };
        let api = self.pods();
        let patch = Patch::Merge(&patch);
        let writing = api.patch_metadata(&pod.name, &params, &patch);
        match timeout(CALL_TIMEOUT, writing).await {
            Err(_) => Err(WriteError::Timeout),
            Ok(Err(error)) if is_gone(&error) => Ok(()),
            Ok(Err(source)) => Err(WriteError::Label {
                pod: pod.name.clone(),
                source,
            }),
            Ok(Ok(_)) => {
                self.marked.insert(pod.uid.clone(), mark);
                Ok(())
            }
        }
    }

    /// Forgets the marks of pods that are gone.
    pub fn forget_marks(&mut self, is_present: impl Fn(&String) -> bool) {
        self.marked.retain(|uid, _| is_present(uid));
    }

    /// Deletes this very pod; that it is gone already is fine.
    pub async fn delete_pod(&self, pod: &str, uid: &str) -> Result<(), WriteError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.into()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match timeout(CALL_TIMEOUT, self.pods().delete(pod, &params)).await {
            Err(_) => Err(WriteError::Timeout),
            Ok(Err(error)) if !is_gone(&error) => Err(WriteError::Delete {
                pod: pod.into(),
                source: error,
            }),
            Ok(_) => Ok(()),
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.key.namespace)
    }
}

/// Not found, or another of the same name.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// Versions of one kind of object grow and may be compared (Kubernetes 1.35); one that is no number is the oldest.
fn version_of(cluster: &PbxCluster) -> u64 {
    let version = cluster.resource_version();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}
