//! Moving the traffic in Pod mode: one write of the EndpointSlice from the old active to the new one, never through empty
//! (an empty step leaves stale UDP flows in conntrack), bound to the version read and to a newer epoch (I2).

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use pbx_core::Epoch;
use pbx_crds::names;
use serde_json::json;

use super::{KubeError, within};

/// This node as an endpoint.
#[derive(Clone, Debug)]
pub struct OwnEndpoint {
    /// Its pod.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's address.
    pub address: String,
    /// The Kubernetes node, for `externalTrafficPolicy: Local`.
    pub node_name: Option<String>,
}

/// Where the traffic goes, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficView {
    /// resourceVersion of the slice.
    pub version: String,
    /// Who wrote it last.
    pub epoch: Epoch,
    /// The address it names, if any.
    pub address: Option<String>,
}

impl TrafficView {
    /// Its version as a number, for what is older: an event of a watch may come after the answer of a later write.
    pub fn version_number(&self) -> u64 {
        self.version.parse().unwrap_or(0)
    }
}

/// What came of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The traffic points here.
    Here(TrafficView),
    /// Somebody with this newer epoch has written already.
    Overtaken(Epoch),
}

/// The EndpointSlice of one cluster.
#[derive(Clone)]
pub struct Traffic {
    api: Api<EndpointSlice>,
    name: String,
    own: OwnEndpoint,
}

impl Traffic {
    /// The slice `name` in `namespace`, and this node as its endpoint.
    pub fn new(client: Client, namespace: &str, name: &str, own: OwnEndpoint) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            own,
        }
    }

    /// The API of the slice, for a watch.
    pub fn api(&self) -> &Api<EndpointSlice> {
        &self.api
    }

    /// Reads it, uncached.
    pub async fn read(&self, deadline: Duration) -> Result<TrafficView, KubeError> {
        let slice = within(
            "read EndpointSlice",
            &self.name,
            deadline,
            self.api.get(&self.name),
        )
        .await?;
        Ok(view(&slice))
    }

    /// Reads it, uncached, as a list of one: a watch must begin at the list's resourceVersion, since that of an object that
    /// did not change for long is too old for an API server that was restarted.
    pub async fn list(
        &self,
        deadline: Duration,
    ) -> Result<(Option<TrafficView>, String), KubeError> {
        let params = ListParams::default().fields(&self.selector());
        let list = within(
            "list EndpointSlice",
            &self.name,
            deadline,
            self.api.list(&params),
        )
        .await?;
        let seen = list.items.first().map(view);
        Ok((seen, list.metadata.resource_version.unwrap_or_default()))
    }

    /// The field selector that names this one slice.
    pub fn selector(&self) -> String {
        format!("metadata.name={}", self.name)
    }

    /// Whether `view` names this node.
    pub fn is_here(&self, view: &TrafficView) -> bool {
        view.address.as_deref() == Some(&self.own.address)
    }

    /// Points the traffic here under `epoch`: one write on what was `known`, and again on what is read after a conflict.
    pub async fn move_here(
        &self,
        epoch: Epoch,
        known: Option<TrafficView>,
        deadline: Duration,
    ) -> Result<Moved, KubeError> {
        let mut view = match known {
            Some(view) => view,
            None => self.read(deadline).await?,
        };
        loop {
            if view.epoch > epoch {
                return Ok(Moved::Overtaken(view.epoch));
            }
            match self.write(epoch, &view, deadline).await {
                Ok(written) => return Ok(Moved::Here(written)),
                Err(error) if error.code() == Some(409) => view = self.read(deadline).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn write(
        &self,
        epoch: Epoch,
        base: &TrafficView,
        deadline: Duration,
    ) -> Result<TrafficView, KubeError> {
        let patch = Patch::Merge(patch(&self.own, epoch, &base.version));
        let params = PatchParams {
            field_manager: Some(names::SIDECAR_MANAGER.into()),
            ..PatchParams::default()
        };
        let written = within(
            "write EndpointSlice",
            &self.name,
            deadline,
            self.api.patch(&self.name, &params, &patch),
        )
        .await?;
        Ok(view(&written))
    }
}

/// What a slice says.
pub fn view(slice: &EndpointSlice) -> TrafficView {
    let annotations = slice.metadata.annotations.as_ref();
    let epoch = annotations
        .and_then(|all| all.get(names::EPOCH_ANNOTATION))
        .and_then(|epoch| epoch.parse().ok());
    let address = slice
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses)
        .next()
        .cloned();
    TrafficView {
        version: slice.metadata.resource_version.clone().unwrap_or_default(),
        epoch: Epoch(epoch.unwrap_or(0)),
        address,
    }
}

fn patch(own: &OwnEndpoint, epoch: Epoch, version: &str) -> serde_json::Value {
    json!({
        "metadata": {
            "resourceVersion": version,
            "annotations": { names::EPOCH_ANNOTATION: epoch.0.to_string() },
        },
        "endpoints": [{
            "addresses": [own.address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": own.node_name,
            "targetRef": { "kind": "Pod", "name": own.pod, "uid": own.uid },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_replaces_all_endpoints_on_the_version_read() {
        let own = OwnEndpoint {
            pod: "office-1".into(),
            uid: "u".into(),
            address: "10.0.0.2".into(),
            node_name: Some("n".into()),
        };
        let patch = patch(&own, Epoch(5), "17");
        assert_eq!(patch["metadata"]["resourceVersion"], "17");
        assert_eq!(
            patch["metadata"]["annotations"][names::EPOCH_ANNOTATION],
            "5"
        );
        assert_eq!(patch["endpoints"].as_array().map(Vec::len), Some(1));
        assert_eq!(patch["endpoints"][0]["addresses"][0], "10.0.0.2");
    }

    #[test]
    fn a_new_slice_names_nobody() {
        let seen = view(&EndpointSlice::default());
        assert_eq!((seen.epoch, seen.address), (Epoch(0), None));
    }
}
