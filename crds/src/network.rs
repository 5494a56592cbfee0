//! Floating addresses, for phones that are not on the pod network: the fields of `spec.network` that go with mode Host.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::Protocol;
use crate::sidecar_config::{FenceConfig, FencedPorts, NetworkConfig, VipConfig};

/// How the traffic reaches the active node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkMode {
    /// Through a Service whose one endpoint is the active pod; any cluster, Pod Security `restricted`.
    #[default]
    Pod,
    /// Through floating addresses on the nodes' own network: a few milliseconds to move, media included. The pods use the
    /// host's network, and the sidecars need NET_ADMIN and NET_RAW: the namespace must allow `privileged` Pod Security.
    Host,
}

/// An address that is always at the active node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.address.matches('^[0-9a-fA-F:.]+/[0-9]+$')")
        .message("address is not an address with the length of its network's prefix: write it as 192.0.2.50/24 or 2001:db8::50/64")
)]
pub struct VipSpec {
    /// The address and the length of its network's prefix, such as 192.0.2.50/24 or 2001:db8::50/64. Nobody else may have it.
    #[schemars(length(min = 4, max = 64))]
    pub address: String,
    /// Name of the network interface that it belongs to, the same on every Kubernetes node, such as eth0.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
}

/// What the kernel of a node that is not active holds back, beside the floating addresses, which it always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceSpec {
    /// Ports that only the active node answers, at every address of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub ports: Vec<FencedPortsSpec>,
}

/// A port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.endPort) || self.endPort >= self.port")
        .message("endPort is below port: swap them, or leave endPort out")
)]
pub struct FencedPortsSpec {
    /// UDP or TCP. Default: UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port, or the first of a range.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The last of the range. Default: the same as port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
}

/// The same in the sidecar's file.
pub fn sidecar_network(vip: &[VipSpec], fence: &FenceSpec) -> NetworkConfig {
    let addresses = vip.iter().map(|vip| VipConfig {
        address: vip.address.clone(),
        interface: vip.interface.clone(),
    });
    let ports = fence.ports.iter().map(|ports| FencedPorts {
        protocol: ports.protocol,
        port: ports.port,
        end_port: ports.end_port,
    });
    NetworkConfig {
        vip: addresses.collect(),
        fence: FenceConfig {
            ports: ports.collect(),
        },
    }
}
