//! The live side: one observer per cluster follows its sidecars and writes its status, labels its pods, rolls them, and
//! keeps the seat map in the status. It waits for no reconcile.
//!
//! - [`facts`]: what is observed; [`status`], [`conditions`], [`rollout`], [`announce`], [`seats`]: what follows from it
//!   (all pure).
//! - [`stream`]: the report stream of one sidecar.
//! - [`observer`]: the loop of one cluster; [`write`]: its calls to the API.
//!
//! Here: which clusters have an observer, and what wakes it.

pub mod announce;
pub mod conditions;
pub mod facts;
pub mod observer;
pub mod rollout;
pub mod seats;
pub mod status;
pub mod stream;
pub mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use pbx_crds::{PbxCluster, names};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::events::Announcer;
use crate::metrics::Metrics;
pub use facts::ObjectsState;
use observer::Observer;

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ClusterKey {
    /// Of this cluster.
    pub fn of(cluster: &PbxCluster) -> Self {
        Self {
            namespace: cluster.namespace().unwrap_or_default(),
            name: cluster.name_any(),
        }
    }

    /// Of the cluster whose label `object` carries.
    pub fn of_labelled(object: &impl ResourceExt) -> Option<Self> {
        Some(Self {
            namespace: object.namespace()?,
            name: object.labels().get(names::CLUSTER_LABEL)?.clone(),
        })
    }

    /// For the stores of the watches.
    pub fn object_ref(&self) -> ObjectRef<PbxCluster> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// What the watches keep up to date.
#[derive(Clone)]
pub struct Stores {
    /// The clusters.
    pub clusters: Store<PbxCluster>,
    /// Their pods.
    pub pods: Store<Pod>,
    /// Their `StatefulSet`s.
    pub stateful_sets: Store<StatefulSet>,
    /// Their witnesses.
    pub leases: Store<Lease>,
}

/// What an observer needs.
#[derive(Clone)]
pub struct Tools {
    /// The API.
    pub client: Client,
    /// The watches.
    pub stores: Stores,
    /// Counts and gauges.
    pub metrics: Metrics,
    /// Events.
    pub announcer: Announcer,
}

/// The observers of all clusters.
pub struct Observers {
    tools: Tools,
    running: Mutex<HashMap<ClusterKey, Running>>,
}

/// What a reconcile leaves for the observer.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<(ObjectsState, u32)>,
    wake: Notify,
}

impl Mailbox {
    /// What the last reconcile found out.
    pub fn objects(&self) -> ObjectsState {
        lock(&self.state).0.clone()
    }

    /// Resolves when there may be something new. Wakes are never lost, only joined.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

struct Running {
    uid: Option<String>,
    mailbox: Arc<Mailbox>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observers {
    /// None yet.
    pub fn new(tools: Tools) -> Self {
        Self {
            tools,
            running: Mutex::default(),
        }
    }

    /// Something about this cluster may have changed: it gets an observer if it has none, and loses it when it is gone.
    pub fn wake(&self, key: &ClusterKey) {
        let cluster = self.tools.stores.clusters.get(&key.object_ref());
        let mut running = lock(&self.running);
        let Some(cluster) = cluster else {
            if running.remove(key).is_some() {
                self.tools.metrics.forget_cluster(key);
            }
            return;
        };
        let uid = cluster.uid();
        if running.get(key).is_none_or(|one| one.uid != uid) {
            running.insert(key.clone(), self.start(key, uid));
        }
        running[key].mailbox.wake.notify_one();
    }

    /// After a watch began anew: everything may have changed.
    pub fn wake_all(&self) {
        let stored = self.tools.stores.clusters.state();
        let mut keys: Vec<_> = stored.iter().map(|one| ClusterKey::of(one)).collect();
        keys.extend(lock(&self.running).keys().cloned());
        for key in keys {
            self.wake(&key);
        }
    }

    /// Takes what a reconcile found out.
    pub fn set_objects(&self, key: &ClusterKey, state: ObjectsState) {
        self.wake(key);
        let running = lock(&self.running);
        let Some(one) = running.get(key) else { return };
        let mut kept = lock(&one.mailbox.state);
        kept.1 = if state.has_failed {
            kept.1.saturating_add(1)
        } else {
            0
        };
        kept.0 = state;
        one.mailbox.wake.notify_one();
    }

    /// Whether a cluster of this UID exists.
    pub fn has(&self, uid: &str) -> bool {
        let running = lock(&self.running);
        running.values().any(|one| one.uid.as_deref() == Some(uid))
    }

    /// How many reconciles in a row failed.
    pub fn failures(&self, key: &ClusterKey) -> u32 {
        let running = lock(&self.running);
        running.get(key).map_or(1, |one| lock(&one.mailbox.state).1)
    }

    /// Whether a pod of the cluster has not started yet.
    pub fn has_waiting_pod(&self, key: &ClusterKey) -> bool {
        self.tools.stores.pods.state().iter().any(|pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            phase == Some("Pending") && ClusterKey::of_labelled(&**pod).as_ref() == Some(key)
        })
    }

    fn start(&self, key: &ClusterKey, uid: Option<String>) -> Running {
        let mailbox = Arc::new(Mailbox::default());
        let observer = Observer::new(key.clone(), self.tools.clone(), Arc::clone(&mailbox));
        Running {
            uid,
            mailbox,
            task: tokio::spawn(observer.run()),
        }
    }
}

/// No code panics while holding one of these; if it did, the value would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
