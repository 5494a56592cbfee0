//! The EndpointSlice of the active node: its ports and metadata. Its endpoints belong to the sidecars, who move them in
//! one write; [`crate::cluster::apply`] creates it with none, and never applies that field.

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use pbx_crds::cluster::PortSpec;
use pbx_crds::names;

use super::{ValidatedCluster, metadata};

/// The slice of `cluster`, without endpoints.
pub fn build(cluster: &ValidatedCluster) -> EndpointSlice {
    let mut metadata = metadata(cluster, names::endpoint_slice(&cluster.name));
    metadata.labels.get_or_insert_default().extend([
        (
            "kubernetes.io/service-name".to_owned(),
            cluster.name.clone(),
        ),
        (
            "endpointslice.kubernetes.io/managed-by".to_owned(),
            "pbx-ha".to_owned(),
        ),
    ]);
    EndpointSlice {
        metadata,
        address_type: "IPv4".into(),
        endpoints: Vec::new(),
        ports: Some(cluster.service.ports.iter().map(port).collect()),
    }
}

fn port(port: &PortSpec) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.target_port.unwrap_or(port.port).into()),
        protocol: Some(port.protocol.as_str().into()),
        ..EndpointPort::default()
    }
}
