//! The PbxCluster as a sidecar reads it: its status as a source of history (a pod that was made anew learns from it what was
//! counted before), and what may change while the sidecar runs.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use pbx_crds::PbxCluster;
use pbx_crds::ledger::Ledger;
use pbx_crds::names::SWITCHOVER_ANNOTATION;
use pbx_crds::switchover::LiveSettings;

use super::{KubeError, within};

/// What people want of a running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Settings that need no restart.
    pub live: LiveSettings,
    /// The annotation that asks for a planned move.
    pub request: Option<String>,
}

/// What `resource` asks for.
pub fn wanted(resource: &PbxCluster) -> Wanted {
    Wanted {
        live: LiveSettings::of(&resource.spec),
        request: resource.annotations().get(SWITCHOVER_ANNOTATION).cloned(),
    }
}

/// The resource, if it is there, as a list of one: a watch begins at the version that comes with it.
pub async fn list(
    client: &Client,
    namespace: &str,
    cluster: &str,
    deadline: Duration,
) -> Result<(Option<PbxCluster>, String), KubeError> {
    let api: Api<PbxCluster> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields(&selector(cluster));
    let found = within("list PbxCluster", cluster, deadline, api.list(&params)).await?;
    let version = found.metadata.resource_version.unwrap_or_default();
    Ok((found.items.into_iter().next(), version))
}

/// The field selector that names this one resource.
pub fn selector(cluster: &str) -> String {
    format!("metadata.name={cluster}")
}

/// The ledger that the status of `resource` tells.
pub fn ledger(resource: &PbxCluster) -> Ledger {
    let status = resource.status.as_ref();
    status.map(Ledger::from_status).unwrap_or_default()
}
