//! The Service that phones and trunks use: no selector, since the sidecars write its one endpoint.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pbx_crds::cluster::{PortSpec, ServiceType, TrafficPolicy};

use super::{ValidatedCluster, metadata};

/// The Service of `cluster`, named like it.
pub fn build(cluster: &ValidatedCluster) -> Service {
    let asked = &cluster.service;
    let mut metadata = metadata(cluster, cluster.name.clone());
    if !asked.annotations.is_empty() {
        metadata.annotations = Some(asked.annotations.clone());
    }
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_name(asked.type_).into()),
            ports: Some(asked.ports.iter().map(port).collect()),
            external_traffic_policy: external_traffic_policy(cluster),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn type_name(type_: ServiceType) -> &'static str {
    match type_ {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}

fn port(port: &PortSpec) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        port: port.port.into(),
        protocol: Some(port.protocol.as_str().into()),
        target_port: Some(IntOrString::Int(
            port.target_port.unwrap_or(port.port).into(),
        )),
        ..ServicePort::default()
    }
}

/// Local unless asked otherwise: Asterisk may identify phones by their address, which Cluster rewrites.
fn external_traffic_policy(cluster: &ValidatedCluster) -> Option<String> {
    if cluster.service.type_ == ServiceType::ClusterIP {
        return None;
    }
    let policy = match cluster.service.external_traffic_policy {
        None | Some(TrafficPolicy::Local) => "Local",
        Some(TrafficPolicy::Cluster) => "Cluster",
    };
    Some(policy.into())
}
