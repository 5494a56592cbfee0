//! What the sidecars may: their own objects by name, and nothing else. A pod of Asterisk itself gets no token at all.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use pbx_crds::names;

use super::{ValidatedCluster, metadata};

/// Who the sidecars are.
pub fn service_account(cluster: &ValidatedCluster) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(cluster, names::sidecar_account(&cluster.name)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// What they may. `list` with a name serves a watch that begins with a list of this one object.
pub fn role(cluster: &ValidatedCluster) -> Role {
    let name = &cluster.name;
    let pods = (0..cluster.nodes).map(|seat| names::pod(name, seat));
    let mut rules = vec![
        rule(
            "coordination.k8s.io",
            "leases",
            vec![names::lease(name)],
            &["get", "patch", "update"],
        ),
        rule(
            names::GROUP,
            "pbxclusters",
            vec![name.clone()],
            &["get", "list", "watch"],
        ),
        rule("", "pods", pods.collect(), &["get"]),
    ];
    if cluster.floating.is_none() {
        rules.push(rule(
            "discovery.k8s.io",
            "endpointslices",
            vec![names::endpoint_slice(name)],
            &["get", "list", "watch", "patch", "update"],
        ));
    }
    Role {
        metadata: metadata(cluster, names::sidecar_account(name)),
        rules: Some(rules),
    }
}

/// That they may it.
pub fn role_binding(cluster: &ValidatedCluster) -> RoleBinding {
    let account = names::sidecar_account(&cluster.name);
    RoleBinding {
        metadata: metadata(cluster, account.clone()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "Role".into(),
            name: account.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: account,
            namespace: Some(cluster.namespace.clone()),
            ..Subject::default()
        }]),
    }
}

fn rule(group: &str, resource: &str, resource_names: Vec<String>, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(resource_names),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}
