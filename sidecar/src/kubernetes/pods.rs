//! Where the peers' pods are: a GET by name, since names of pods are the seats. Never by DNS, which fails when it is needed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use super::{KubeError, within};

/// The heartbeat address of `pod`; `None` while it has no address.
pub async fn heartbeat_address(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
    deadline: Duration,
) -> Result<Option<SocketAddr>, KubeError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = within("read Pod", pod, deadline, api.get(pod)).await?;
    let address: Option<IpAddr> = found
        .status
        .and_then(|status| status.pod_ip)
        .and_then(|ip| ip.parse().ok());
    Ok(address.map(|ip| SocketAddr::new(ip, port)))
}
