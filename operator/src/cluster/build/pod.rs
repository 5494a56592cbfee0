//! The pod: Asterisk under the guard, the sidecar beside it, both within Pod Security `restricted`.
//!
//! No liveness probe and no preStop hook for Asterisk: the sidecar knows better than kubelet when to stop or restart it.

mod containers;
mod volumes;

use k8s_openapi::api::core::v1::{
    Affinity, HostAlias, PodAffinityTerm, PodAntiAffinity, PodDNSConfig, PodDNSConfigOption,
    PodSecurityContext, PodSpec, SeccompProfile, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pbx_crds::names;
use pbx_crds::switchover::SwitchoverStrategy;

use super::{ValidatedCluster, stateful_set};

/// The user and group of everything in the pod: Debian's `asterisk`.
const USER_ID: i64 = 101;
/// Seconds between the order to end and the kill; the guard is told the same.
const GRACE_SECONDS: i64 = 30;
/// The longest that the guard accepts.
const LONGEST_GRACE_SECONDS: i64 = 86_400;

/// The pod of `cluster`.
pub fn build(cluster: &ValidatedCluster) -> PodSpec {
    PodSpec {
        init_containers: Some(vec![
            containers::sidecar(cluster),
            containers::seed(cluster),
        ]),
        containers: vec![containers::asterisk(cluster)],
        volumes: Some(volumes::all(cluster)),
        service_account_name: Some(names::sidecar_account(&cluster.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds(cluster)),
        security_context: Some(security_context()),
        host_network: cluster.floating.is_some().then_some(true),
        dns_policy: cluster
            .floating
            .is_some()
            .then(|| "ClusterFirstWithHostNet".into()),
        dns_config: Some(short_dns()),
        host_aliases: Some(vec![own_names(cluster)]),
        image_pull_secrets: non_empty(&cluster.image_pull_secrets),
        node_selector: (!cluster.node_selector.is_empty()).then(|| cluster.node_selector.clone()),
        tolerations: non_empty(&cluster.tolerations),
        affinity: Some(cluster.affinity.clone().unwrap_or_else(|| apart(cluster))),
        topology_spread_constraints: non_empty(&cluster.topology_spread_constraints),
        ..PodSpec::default()
    }
}

/// Calls that may end in peace get the time for it.
pub(super) fn grace_seconds(cluster: &ValidatedCluster) -> i64 {
    let switchover = &cluster.failover.switchover;
    if switchover.strategy == SwitchoverStrategy::Immediate {
        return GRACE_SECONDS;
    }
    let patience = i64::try_from(switchover.timeout.get().as_secs()).unwrap_or(i64::MAX);
    patience
        .saturating_add(GRACE_SECONDS)
        .min(LONGEST_GRACE_SECONDS)
}

fn non_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn security_context() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER_ID),
        run_as_group: Some(USER_ID),
        fs_group: Some(USER_ID),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// Asterisk asks for the IPv6 address of its own host name at its start and with every INVITE. Kubelet writes only the IPv4
/// one into /etc/hosts, so the question went to DNS: 20 s with a dead resolver, 3.4 s with short options, nothing with this. All names
/// that there may ever be: another node comes or goes without replacing the others.
fn own_names(cluster: &ValidatedCluster) -> HostAlias {
    let pods = (0..names::MAX_NODES).map(|seat| names::pod(&cluster.name, seat));
    HostAlias {
        ip: "::1".into(),
        hostnames: Some(pods.collect()),
    }
}

/// What else Asterisk resolves, such as a trunk's name, must not hold it up for long when the resolver is dead.
fn short_dns() -> PodDNSConfig {
    let option = |name: &str| PodDNSConfigOption {
        name: Some(name.into()),
        value: Some("1".into()),
    };
    PodDNSConfig {
        options: Some(vec![option("timeout"), option("attempts")]),
        ..PodDNSConfig::default()
    }
}

/// Preferred, not required: two pods on one node are better than one pod. On the host's network they would want the same ports.
fn apart(cluster: &ValidatedCluster) -> Affinity {
    let another_node = PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".into(),
        label_selector: Some(LabelSelector {
            match_labels: Some(stateful_set::selector(cluster)),
            ..LabelSelector::default()
        }),
        ..PodAffinityTerm::default()
    };
    let rule = if cluster.floating.is_some() {
        PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![another_node]),
            ..PodAntiAffinity::default()
        }
    } else {
        let preferred = WeightedPodAffinityTerm {
            weight: 100,
            pod_affinity_term: another_node,
        };
        PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![preferred]),
            ..PodAntiAffinity::default()
        }
    };
    Affinity {
        pod_anti_affinity: Some(rule),
        ..Affinity::default()
    }
}
