//! The resource's status as a source of history: a pod that was made anew learns from it what was counted before.

use std::time::Duration;

use kube::{Api, Client};
use pbx_crds::PbxCluster;
use pbx_crds::ledger::Ledger;

use super::{KubeError, within};

/// The ledger that the status of `cluster` tells.
pub async fn ledger(
    client: &Client,
    namespace: &str,
    cluster: &str,
    deadline: Duration,
) -> Result<Ledger, KubeError> {
    let api: Api<PbxCluster> = Api::namespaced(client.clone(), namespace);
    let found = within("read PbxCluster", cluster, deadline, api.get(cluster)).await?;
    Ok(found
        .status
        .as_ref()
        .map(Ledger::from_status)
        .unwrap_or_default())
}
