//! One watched scope (a namespace, or all): its watches, its observers and its controller.
//!
//! Each kind is watched once. Clusters, pods, `StatefulSet`s and Leases are kept, since observers read them; of the other
//! objects only the metadata is seen, as a trigger.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PartialObjectMeta};
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{PredicateConfig, WatchStreamExt as _};
use kube::{Client, Resource, ResourceExt};
use pbx_crds::{PbxCluster, names};
use serde::de::DeserializeOwned;

use crate::api::WatchRetry;
use crate::cluster::{self, apply::KeyMemory};
use crate::context::Context;
use crate::events::Announcer;
use crate::metrics::Metrics;
use crate::observe::{ClusterKey, Observers, Stores, Tools};
use crate::settings::Settings;

/// What all scopes share.
#[derive(Clone)]
pub struct Shared {
    /// The API.
    pub client: Client,
    /// The arguments.
    pub settings: Arc<Settings>,
    /// Counts.
    pub metrics: Metrics,
    /// Events.
    pub announcer: Announcer,
}

/// Works on the clusters in `namespace` (`None`: all), for ever.
pub async fn run(shared: Shared, namespace: Option<String>) {
    let (clusters, cluster_writer) = reflector::store();
    let (pods, pod_writer) = reflector::store();
    let (stateful_sets, set_writer) = reflector::store();
    let (leases, lease_writer) = reflector::store();
    let stores = Stores {
        clusters: clusters.clone(),
        pods,
        stateful_sets,
        leases: leases.clone(),
    };
    let observers = Arc::new(Observers::new(Tools {
        client: shared.client.clone(),
        stores,
        metrics: shared.metrics.clone(),
        announcer: shared.announcer.clone(),
    }));
    let scope = Scope {
        client: shared.client.clone(),
        namespace,
        observers: Arc::clone(&observers),
    };
    let clusters_changed = scope
        .kept::<PbxCluster>(watcher::Config::default(), cluster_writer, cluster_key)
        .predicate_filter(spec_or_life, PredicateConfig::default());
    let sets_changed = scope.kept::<StatefulSet>(labelled(), set_writer, ClusterKey::of_labelled);
    let pods_changed = scope.kept::<Pod>(labelled(), pod_writer, ClusterKey::of_labelled);
    let leases_lost = scope
        .kept::<Lease>(labelled(), lease_writer, ClusterKey::of_labelled)
        .try_filter(move |lease| {
            let is_lost = leases.get(&ObjectRef::from_obj(lease)).is_none();
            std::future::ready(is_lost)
        });
    let config_maps = scope.metadata::<ConfigMap>(watcher::Config::default());
    let by_config_map = clusters.clone();
    let context = Arc::new(Context {
        client: shared.client,
        settings: shared.settings,
        metrics: shared.metrics,
        observers,
        keys: KeyMemory::default(),
    });
    let controller = Controller::for_stream(clusters_changed, clusters)
        .owns_stream(sets_changed)
        .owns_stream(scope.metadata::<Service>(labelled()))
        .owns_stream(scope.metadata::<ServiceAccount>(labelled()))
        .owns_stream(scope.metadata::<EndpointSlice>(labelled()))
        .owns_stream(scope.metadata::<PodDisruptionBudget>(labelled()))
        .owns_stream(scope.metadata::<Role>(labelled()))
        .owns_stream(scope.metadata::<RoleBinding>(labelled()))
        .owns_stream(leases_lost)
        .watches_stream(config_maps, move |map| users_of(&by_config_map, &map))
        .run(cluster::reconcile, cluster::on_error, context);
    let pods_watched = pods_changed.for_each(|_| std::future::ready(()));
    tokio::join!(
        controller.for_each(|_| std::future::ready(())),
        pods_watched
    );
}

struct Scope {
    client: Client,
    namespace: Option<String>,
    observers: Arc<Observers>,
}

impl Scope {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// A watch whose objects are kept, and whose changes wake the observer of their cluster.
    fn kept<K>(
        &self,
        config: watcher::Config,
        writer: reflector::store::Writer<K>,
        key_of: fn(&K) -> Option<ClusterKey>,
    ) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let observers = Arc::clone(&self.observers);
        watcher(self.api::<K>(), config)
            .backoff(WatchRetry::default())
            .modify(|object| object.managed_fields_mut().clear())
            .reflect(writer)
            .inspect_ok(move |event| match event {
                Event::Apply(object) | Event::Delete(object) => {
                    if let Some(key) = key_of(object) {
                        observers.wake(&key);
                    }
                }
                Event::Init | Event::InitApply(_) => {}
                Event::InitDone => observers.wake_all(),
            })
            .touched_objects()
            .filter(is_heard)
    }

    /// A watch of metadata alone.
    fn metadata<K>(
        &self,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + use<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        watcher(self.api::<PartialObjectMeta<K>>(), config)
            .backoff(WatchRetry::default())
            .touched_objects()
            .filter(is_heard)
    }
}

/// A controller pauses all its watches together, up to 30 s for each failure of any of them: an outage that fails a dozen of them
/// stopped its work for minutes (seen). So it never hears of one: each watch has a retry of its own.
fn is_heard<K>(touched: &Result<K, watcher::Error>) -> std::future::Ready<bool> {
    std::future::ready(touched.is_ok())
}

fn labelled() -> watcher::Config {
    watcher::Config::default().labels(names::CLUSTER_LABEL)
}

#[allow(clippy::unnecessary_wraps, reason = "one of two ways to find a key")]
fn cluster_key(cluster: &PbxCluster) -> Option<ClusterKey> {
    Some(ClusterKey::of(cluster))
}

/// A change of the spec, or another cluster of the same name; not a change of the status.
#[allow(
    clippy::unnecessary_wraps,
    reason = "a predicate of kube may have none"
)]
fn spec_or_life(cluster: &PbxCluster) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    cluster.uid().hash(&mut hasher);
    cluster.metadata.generation.hash(&mut hasher);
    Some(hasher.finish())
}

/// The clusters that a ConfigMap concerns: its owner, and those whose files it holds.
fn users_of(
    clusters: &Store<PbxCluster>,
    map: &PartialObjectMeta<ConfigMap>,
) -> Vec<ObjectRef<PbxCluster>> {
    let name = map.name_any();
    let namespace = map.namespace();
    let owner = map.labels().get(names::CLUSTER_LABEL);
    clusters
        .state()
        .iter()
        .filter(|cluster| cluster.namespace() == namespace)
        .filter(|cluster| {
            let config = &cluster.spec.asterisk.config;
            config.config_map.as_ref() == Some(&name) || owner == Some(&cluster.name_any())
        })
        .map(|cluster| ObjectRef::from_obj(&**cluster))
        .collect()
}
