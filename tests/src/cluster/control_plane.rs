//! The control plane, in the machine's own network namespace: etcd, API server, controllers,
//! scheduler. Starting and stopping the API server apart makes API outages.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::{CONTROL_PLANE, Layout, SERVICES};
use super::process;

const ETCD_URL: &str = "http://127.0.0.1:2379";
const ETCD_PEER_URL: &str = "http://127.0.0.1:2380";
const API_TIMEOUT: Duration = Duration::from_secs(90);
/// Declared dead after this long without a heartbeat (Kubernetes' own default is 50 s).
const NODE_GRACE: &str = "15s";

pub(super) const ETCD: &str = "etcd";
pub(super) const API_SERVER: &str = "apiserver";
pub(super) const CONTROLLERS: &str = "controller-manager";
pub(super) const SCHEDULER: &str = "scheduler";

/// Starts etcd and the API server, and returns at once.
pub(super) fn start_api(layout: &Layout, kube: &Path) -> Result<()> {
    if process::running(&layout.log(), ETCD).is_none() {
        process::start(&layout.log(), ETCD, &etcd(layout, kube))?;
    }
    let policy = layout.run().join("audit.yaml");
    std::fs::write(&policy, include_str!("../../assets/cluster/audit.yaml"))
        .with_context(|| format!("write {}", policy.display()))?;
    process::start(&layout.log(), API_SERVER, &api_server(layout, kube))
}

/// Starts controllers and scheduler.
pub(super) fn start_controllers(layout: &Layout, kube: &Path) -> Result<()> {
    process::keep(&layout.log(), CONTROLLERS, &controllers(layout, kube))?;
    process::keep(&layout.log(), SCHEDULER, &scheduler(layout, kube))
}

/// Waits until the API server is ready, as `is_ready` tells; fails early when it died.
pub(super) fn wait_for_api(layout: &Layout, is_ready: impl Fn() -> bool) -> Result<()> {
    process::wait_until("the API server", API_TIMEOUT, || {
        let log = layout.log().join(format!("{API_SERVER}.log"));
        process::running(&layout.log(), API_SERVER).with_context(|| {
            let end = crate::progress::tail(&log, 15);
            format!("the API server died; the end of {}:\n{end}", log.display())
        })?;
        Ok(is_ready())
    })
}

fn etcd(layout: &Layout, kube: &Path) -> Vec<String> {
    let data = layout.run().join("etcd");
    command(
        kube,
        ETCD,
        &[
            ("data-dir", path(&data)),
            ("log-level", "warn".into()),
            ("listen-client-urls", ETCD_URL.into()),
            ("advertise-client-urls", ETCD_URL.into()),
            ("listen-peer-urls", ETCD_PEER_URL.into()),
            // The machine's disk is not what is tested; processes die here, the machine does not.
            ("unsafe-no-fsync", "true".into()),
        ],
    )
}

fn api_server(layout: &Layout, kube: &Path) -> Vec<String> {
    let pki = |file: &str| path(&layout.pki().join(file));
    command(
        kube,
        "kube-apiserver",
        &[
            ("etcd-servers", ETCD_URL.into()),
            ("advertise-address", CONTROL_PLANE.to_string()),
            ("service-cluster-ip-range", SERVICES.into()),
            ("tls-cert-file", pki("apiserver.crt")),
            ("tls-private-key-file", pki("apiserver.key")),
            ("client-ca-file", pki("ca.crt")),
            ("kubelet-certificate-authority", pki("ca.crt")),
            ("kubelet-client-certificate", pki("admin.crt")),
            ("kubelet-client-key", pki("admin.key")),
            ("kubelet-preferred-address-types", "InternalIP".into()),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".into(),
            ),
            ("service-account-key-file", pki("sa.key")),
            ("service-account-signing-key-file", pki("sa.key")),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", "true".into()),
            ("audit-policy-file", path(&layout.run().join("audit.yaml"))),
            ("audit-log-path", path(&layout.audit_log())),
        ],
    )
}

fn controllers(layout: &Layout, kube: &Path) -> Vec<String> {
    let pki = |file: &str| path(&layout.pki().join(file));
    command(
        kube,
        "kube-controller-manager",
        &[
            (
                "kubeconfig",
                path(&layout.run().join("controller-manager.kubeconfig")),
            ),
            ("leader-elect", "false".into()),
            ("use-service-account-credentials", "true".into()),
            ("service-account-private-key-file", pki("sa.key")),
            ("root-ca-file", pki("ca.crt")),
            ("node-monitor-grace-period", NODE_GRACE.into()),
            ("node-monitor-period", "2s".into()),
        ],
    )
}

fn scheduler(layout: &Layout, kube: &Path) -> Vec<String> {
    command(
        kube,
        "kube-scheduler",
        &[
            (
                "kubeconfig",
                path(&layout.run().join("scheduler.kubeconfig")),
            ),
            ("leader-elect", "false".into()),
        ],
    )
}

pub(super) fn command(kube: &Path, part: &str, flags: &[(&str, String)]) -> Vec<String> {
    let flags = flags
        .iter()
        .map(|(name, value)| format!("--{name}={value}"));
    [path(kube), part.to_owned()]
        .into_iter()
        .chain(flags)
        .collect()
}

/// Our own paths come from a `Layout`, whose root is checked.
pub(super) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
