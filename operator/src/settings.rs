//! Arguments of the operator; each can be given by the environment too, as the chart does.

use std::net::SocketAddr;

use clap::Parser;

#[allow(clippy::doc_markdown, reason = "this is the text of --help")]
/// Reconciles PbxClusters and tells their state.
#[derive(Clone, Debug, Parser)]
#[command(name = "pbx-operator", version, about)]
pub struct Settings {
    /// Namespaces to watch, separated by commas. Default: all.
    #[arg(long, env = "WATCH_NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// PBX image of clusters that name none.
    #[arg(
        long,
        env = "ASTERISK_IMAGE",
        default_value = "localhost/pbx-ha/asterisk:22"
    )]
    pub asterisk_image: String,
    /// Image of sidecar and guard.
    #[arg(long, env = "SIDECAR_IMAGE", default_value = concat!("localhost/pbx-ha/sidecar:", env!("CARGO_PKG_VERSION")))]
    pub sidecar_image: String,
    /// When the sidecar's image is pulled.
    #[arg(long, env = "SIDECAR_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Namespace of the operator's own Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// Name of the operator's own Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "pbx-ha-operator")]
    pub lease_name: String,
    /// Who this is in the Lease: the pod's name.
    #[arg(long, env = "POD_NAME", default_value = "pbx-operator")]
    pub identity: String,
    /// Name of the ServiceAccount that may create heartbeat keys.
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "pbx-ha-operator")]
    pub service_account: String,
    /// ClusterRole with the one right to create Secrets; bound in a cluster's namespace.
    #[arg(long, env = "KEY_CLUSTER_ROLE", default_value = "pbx-ha-heartbeat-key")]
    pub key_cluster_role: String,
}

impl Settings {
    /// The namespaces to watch; `None` stands for all.
    pub fn scopes(&self) -> Vec<Option<String>> {
        let named: Vec<_> = self
            .namespace
            .iter()
            .filter(|one| !one.is_empty())
            .cloned()
            .map(Some)
            .collect();
        if named.is_empty() { vec![None] } else { named }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespace_means_all() {
        for (given, scopes) in [
            ("", vec![None]),
            ("a", vec![Some("a".to_owned())]),
            ("a,b", vec![Some("a".to_owned()), Some("b".to_owned())]),
        ] {
            let settings = Settings::parse_from(["pbx-operator", "--namespace", given]);
            assert_eq!(settings.scopes(), scopes, "{given}");
        }
    }
}
