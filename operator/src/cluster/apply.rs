//! Step 4: brings the objects in the API server to what was built. A steady state makes no write.
//!
//! Objects are read, compared ([`compare`]), and only then applied, server-side, under one field manager. Two are
//! created once and left alone: the heartbeat key ([`key`]) and the witness Lease ([`witness`]).

mod compare;
mod key;
mod witness;

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use pbx_crds::names;
use pbx_crds::report::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::build::Resources;
use super::validate::{Config, ValidatedCluster};
use crate::context::Context;
use crate::observe::ClusterKey;

pub use key::KeyMemory;

/// What applying came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What keeps the cluster from being whole, if a person can mend it.
    pub problem: Option<Problem>,
    /// Hash of the user's ConfigMap, where there is one.
    pub user_hash: Option<String>,
    /// Look again by itself after this time.
    pub retry_after: Option<Duration>,
}

/// Why an object could not be brought to what was built.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Reading it.
    #[error("cannot read {kind} {name}")]
    Get {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API said.
        source: kube::Error,
    },
    /// Writing it.
    #[error("cannot write {kind} {name}")]
    Write {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API said.
        source: kube::Error,
    },
    /// It is somebody else's.
    #[error(
        "{kind} {name} exists already and does not belong to this cluster: rename or delete it, or give the cluster another name"
    )]
    NotOurs {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// No random bytes.
    #[error("the system gives no random bytes for the heartbeat key")]
    Random,
}

impl ApplyError {
    /// A stable reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Get { .. } => "ObjectUnreadable",
            Self::Write { .. } => "ObjectNotWritten",
            Self::NotOurs { .. } => "NameTaken",
            Self::Random => "NoRandom",
        }
    }
}

/// Applies everything, in the order in which one needs the other.
pub async fn apply(
    context: &Context,
    cluster: &ValidatedCluster,
    resources: Resources,
) -> Result<Applied, ApplyError> {
    let Resources {
        service_account,
        role,
        role_binding,
        sidecar_config,
        traffic,
        disruption_budget,
        stateful_set,
    } = resources;
    let objects = Objects { context, cluster };
    objects.apply(&service_account).await?;
    objects.apply(&role).await?;
    objects.apply(&role_binding).await?;
    objects.apply(&sidecar_config).await?;
    if let Some(traffic) = &traffic {
        objects.apply(&traffic.service).await?;
        objects.apply_slice(&traffic.endpoint_slice).await?;
    }
    objects.apply(&disruption_budget).await?;
    let is_waiting = context.observers.has_waiting_pod(&ClusterKey {
        namespace: cluster.namespace.clone(),
        name: cluster.name.clone(),
    });
    objects.ensure_key(is_waiting).await?;
    objects.ensure_lease().await?;
    let problem = match &stateful_set {
        Some(pods) => {
            objects.apply(pods).await?;
            None
        }
        None => Some(missing_config_map(cluster)),
    };
    Ok(Applied {
        problem,
        user_hash: user_hash(cluster),
        retry_after: is_waiting.then_some(KEY_RETRY),
    })
}

fn user_hash(cluster: &ValidatedCluster) -> Option<String> {
    match &cluster.config {
        Config::Present { hash } if !hash.is_empty() => Some(hash.clone()),
        Config::Present { .. } | Config::Missing => None,
    }
}

/// A pod that waits may wait for a key that somebody deleted: look again this often.
const KEY_RETRY: Duration = Duration::from_secs(10);

fn missing_config_map(cluster: &ValidatedCluster) -> Problem {
    let name = cluster.config_map.as_deref().unwrap_or_default();
    Problem {
        reason: "ConfigMapMissing".into(),
        message: format!(
            "ConfigMap {}/{name} does not exist: create it with Asterisk's files, or correct spec.asterisk.config.configMap",
            cluster.namespace
        ),
    }
}

/// The objects of one cluster.
struct Objects<'a> {
    context: &'a Context,
    cluster: &'a ValidatedCluster,
}

impl Objects<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), &self.cluster.namespace)
    }

    /// Applies `desired` unless it is as desired already.
    async fn apply<K>(&self, desired: &K) -> Result<(), ApplyError>
    where
        K: Object,
    {
        let live = self.get::<K>(&desired.name_any()).await?;
        let body = to_json(desired);
        self.apply_over(live.as_ref(), desired, body).await
    }

    /// The slice's endpoints are required at creation and the sidecars' ever after.
    async fn apply_slice(&self, desired: &EndpointSlice) -> Result<(), ApplyError> {
        let live = match self.get(&desired.name_any()).await? {
            Some(live) => live,
            None => self.create(desired).await?,
        };
        let mut body = to_json(desired);
        let fields = body.as_object_mut().expect("a slice is a JSON object");
        fields.remove("endpoints");
        self.apply_over(Some(&live), desired, body).await
    }

    async fn apply_over<K: Object>(
        &self,
        live: Option<&K>,
        desired: &K,
        body: Value,
    ) -> Result<(), ApplyError> {
        let body = compare::with_hash(body);
        if let Some(live) = live {
            self.check_owner(live)?;
            if compare::is_applied(&body, &to_json(live)) {
                return Ok(());
            }
        }
        let name = desired.name_any();
        let params = PatchParams::apply(names::OPERATOR_MANAGER).force();
        let patch = Patch::Apply(&body);
        let result = self.api::<K>().patch(&name, &params, &patch).await;
        match result {
            Ok(_) => {
                tracing::info!(kind = %K::kind(&()), name, namespace = %self.cluster.namespace, "applied");
                Ok(())
            }
            Err(source) => Err(ApplyError::Write {
                kind: K::kind(&()).into_owned(),
                name,
                source,
            }),
        }
    }

    async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, ApplyError> {
        self.api::<K>()
            .get_opt(name)
            .await
            .map_err(|source| ApplyError::Get {
                kind: K::kind(&()).into_owned(),
                name: name.into(),
                source,
            })
    }

    async fn create<K: Object>(&self, object: &K) -> Result<K, ApplyError> {
        let params = PostParams {
            field_manager: Some(names::OPERATOR_MANAGER.into()),
            dry_run: false,
        };
        self.api::<K>()
            .create(&params, object)
            .await
            .map_err(|source| ApplyError::Write {
                kind: K::kind(&()).into_owned(),
                name: object.name_any(),
                source,
            })
    }

    fn check_owner<K: Object>(&self, live: &K) -> Result<(), ApplyError> {
        let owners = live.owner_references();
        if owners.iter().any(|owner| owner.uid == self.cluster.uid) {
            return Ok(());
        }
        Err(ApplyError::NotOurs {
            kind: K::kind(&()).into_owned(),
            name: live.name_any(),
        })
    }
}

/// A namespaced object of a known kind.
trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

fn to_json<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("an object of the Kubernetes API is JSON")
}
