//! The containers, in the order they start: sidecar (runs on, and installs the guard for the others), seed, asterisk. Each
//! one more would cost a second of every start: kubelet looks once a second whether the one before has ended.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction,
    Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe, ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pbx_crds::names;

use super::{ValidatedCluster, grace_seconds, volumes};
use crate::cluster::build::doors;

const GUARD: &str = "/pbx-ha/bin/pbx-guard";
/// What a container weighs when processors are short.
const ASTERISK_CPU: &str = "250m";
/// Beats and votes must not wait for an Asterisk that starts beside them.
const SIDECAR_CPU: &str = "250m";

/// Copies what the image has in folders that become volumes.
pub fn seed(cluster: &ValidatedCluster) -> Container {
    Container {
        name: "seed".into(),
        command: Some(words(&[
            GUARD,
            "seed",
            "/etc/asterisk",
            "/run/pbx-ha/defaults",
            "/var/lib/asterisk",
            volumes::SEED_DIR,
        ])),
        volume_mounts: Some(volumes::seed_mounts()),
        resources: Some(small()),
        ..asterisk_image(cluster)
    }
}

/// The sidecar: an init container that runs on, so that it starts before Asterisk and ends after it.
pub fn sidecar(cluster: &ValidatedCluster) -> Container {
    Container {
        name: "sidecar".into(),
        restart_policy: Some("Always".into()),
        command: Some(words(&[
            "/usr/bin/pbx-guard",
            "sidecar",
            "--",
            "/usr/bin/pbx-sidecar",
            "run",
            "--config",
            volumes::SIDECAR_FILE,
        ])),
        env: Some(downward_env()),
        ports: Some(ports(cluster)),
        lifecycle: Some(install_guard()),
        readiness_probe: Some(probe("/readyz", 10, 1)),
        liveness_probe: Some(probe("/healthz", 20, 3)),
        resources: Some(with_request(small(), SIDECAR_CPU)),
        volume_mounts: Some(volumes::sidecar_mounts(cluster)),
        security_context: Some(if cluster.floating.is_some() {
            with_network_rights()
        } else {
            restricted()
        }),
        ..sidecar_image(cluster)
    }
}

/// Puts the guard where the PBX container finds it, so that any Asterisk image will do. Kubelet starts no further container
/// before this is done.
fn install_guard() -> Lifecycle {
    Lifecycle {
        post_start: Some(LifecycleHandler {
            exec: Some(ExecAction {
                command: Some(words(&["/usr/bin/pbx-guard", "install", "/pbx-ha/bin"])),
            }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

/// Asterisk, under the guard as PID 1.
pub fn asterisk(cluster: &ValidatedCluster) -> Container {
    Container {
        name: "asterisk".into(),
        command: Some(words(&[
            GUARD,
            "pbx",
            "--socket",
            "/run/pbx-ha/guard.sock",
            "--grace",
            &grace_seconds(cluster).to_string(),
            "--",
            "asterisk",
            "-f",
            "-C",
            "/run/pbx-ha/config/current/asterisk.conf",
        ])),
        resources: Some(with_weight(cluster.resources.clone().unwrap_or_default())),
        volume_mounts: Some(volumes::asterisk_mounts()),
        ..asterisk_image(cluster)
    }
}

fn sidecar_image(cluster: &ValidatedCluster) -> Container {
    Container {
        image: Some(cluster.sidecar_image.clone()),
        image_pull_policy: Some(cluster.sidecar_pull_policy.clone()),
        ..Container::default()
    }
}

fn asterisk_image(cluster: &ValidatedCluster) -> Container {
    Container {
        image: Some(cluster.asterisk_image.clone()),
        image_pull_policy: Some(cluster.asterisk_pull_policy.as_str().into()),
        security_context: Some(restricted()),
        ..Container::default()
    }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

/// Floating addresses and their fence need `NET_ADMIN`, their announcements `NET_RAW`. Kubernetes gives capabilities to root only;
/// without the others, this root may no more than the group that the files of the pod belong to.
fn with_network_rights() -> SecurityContext {
    SecurityContext {
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: Some(words(&["NET_ADMIN", "NET_RAW"])),
        }),
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        ..restricted()
    }
}

/// A container without a CPU request has the least weight that the kernel knows (2, where a task has 1024): on a node that is busy for a
/// moment it waits for everybody else, and its calls with it. What the user says of the CPU counts; a limit is a request, too.
fn with_weight(resources: ResourceRequirements) -> ResourceRequirements {
    let says_cpu = |list: &Option<BTreeMap<String, Quantity>>| {
        list.as_ref().is_some_and(|list| list.contains_key("cpu"))
    };
    if says_cpu(&resources.requests) || says_cpu(&resources.limits) {
        return resources;
    }
    with_request(resources, ASTERISK_CPU)
}

fn with_request(resources: ResourceRequirements, cpu: &str) -> ResourceRequirements {
    let mut requests = resources.requests.unwrap_or_default();
    requests.insert("cpu".into(), Quantity(cpu.into()));
    ResourceRequirements {
        requests: Some(requests),
        ..resources
    }
}

/// No CPU limit: throttling would be a pause of the heartbeats.
fn small() -> ResourceRequirements {
    let quantities = |list: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        list.iter()
            .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
            .collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", "50m"), ("memory", "32Mi")])),
        limits: Some(quantities(&[("memory", "128Mi")])),
        claims: None,
    }
}

fn downward_env() -> Vec<EnvVar> {
    [
        ("POD_NAME", "metadata.name"),
        ("POD_UID", "metadata.uid"),
        ("POD_IP", "status.podIP"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("NODE_NAME", "spec.nodeName"),
    ]
    .into_iter()
    .map(|(name, path)| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.into(),
                api_version: Some("v1".into()),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    })
    .collect()
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16, protocol: &str) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number.into(),
        protocol: Some(protocol.into()),
        ..ContainerPort::default()
    }
}

fn ports(cluster: &ValidatedCluster) -> Vec<ContainerPort> {
    let mut ports = vec![
        port("http", names::HTTP_PORT, "TCP"),
        port("heartbeat", names::HEARTBEAT_PORT, "UDP"),
        port("peers", names::HEARTBEAT_PORT, "TCP"),
    ];
    let doors = doors::ports(&cluster.doors);
    ports.extend(doors.map(|(name, number)| port(name, number, "TCP")));
    ports
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu_request(resources: &str) -> Option<String> {
        let given: ResourceRequirements = serde_yaml::from_str(resources).unwrap();
        let requests = with_weight(given).requests?;
        requests.get("cpu").map(|cpu| cpu.0.clone())
    }

    #[test]
    fn a_container_never_has_the_least_weight() {
        let ours = Some(ASTERISK_CPU.to_owned());
        assert_eq!(cpu_request("{}"), ours);
        assert_eq!(cpu_request("{requests: {memory: 1Gi}}"), ours);
        assert_eq!(cpu_request("{requests: {cpu: 2}}").as_deref(), Some("2"));
        assert_eq!(cpu_request("{limits: {cpu: 2}}"), None);
    }
}
