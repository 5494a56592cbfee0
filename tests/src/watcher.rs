//! What a watching client sees, and when: each change of the `PbxCluster`'s status, of its EndpointSlice and of its witness Lease,
//! stamped on arrival with the machine's boot-time clock. Works through an outage of the API: it watches again as soon as it can.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};
use pbx_crds::quorum::QuorumRecord;
use pbx_crds::{PbxCluster, PbxClusterStatus, names};
use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::cluster::Cluster;

const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// More changes than any scenario makes; older ones are forgotten.
const MOST_CHANGES: usize = 100_000;

/// A change and when it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Moment,
    /// What.
    pub change: Change,
}

/// What arrived.
#[derive(Clone, Debug)]
pub enum Change {
    /// The status of the resource.
    Status(Box<PbxClusterStatus>),
    /// Where the traffic goes.
    Traffic(Traffic),
    /// What the witness Lease says.
    Witness(QuorumRecord),
}

/// What the EndpointSlice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The address that it names.
    pub address: Option<String>,
    /// The epoch of who wrote it.
    pub epoch: i64,
}

/// The newest of everything.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The spec's generation.
    pub generation: Option<i64>,
    /// Status of the resource; empty before there is one.
    pub status: PbxClusterStatus,
    /// Where the traffic goes.
    pub traffic: Traffic,
    /// What the witness Lease says.
    pub witness: Option<QuorumRecord>,
}

/// A client that watches one `PbxCluster` on a thread of its own.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    record: Mutex<Record>,
    has_changed: Condvar,
}

#[derive(Debug, Default)]
struct Record {
    view: View,
    seen: Vec<Seen>,
}

impl Watcher {
    /// Watches the cluster `name` in `namespace`, which need not exist yet.
    pub fn start(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        // Another test of this process may have chosen it already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).context("read kubeconfig")?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make the watcher's runtime")?;
        let client = runtime.block_on(connect(kubeconfig))?;
        let (for_worker, namespace, name) =
            (Arc::clone(&shared), namespace.to_owned(), name.to_owned());
        let worker = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = watch_all(&client, &namespace, &name, &for_worker) => {}
                        _ = stopped => {}
                    }
                });
            })
            .context("start the watcher's thread")?;
        Ok(Self {
            shared,
            stop: Some(stop),
            worker: Some(worker),
        })
    }

    /// The newest of everything.
    pub fn view(&self) -> View {
        self.record().view.clone()
    }

    /// Everything that arrived at or after `since`.
    pub fn seen_since(&self, since: Moment) -> Vec<Seen> {
        let record = self.record();
        let first = record.seen.partition_point(|seen| seen.at < since);
        record.seen[first..].to_vec()
    }

    /// Waits until `condition` holds of the newest view; the error names `what` and shows the status.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&View) -> bool,
    ) -> Result<View> {
        let deadline = Instant::now() + timeout;
        let mut record = self.record();
        while !condition(&record.view) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let view = &record.view;
                bail!(
                    "waited {timeout:?} in vain for {what}; seen last: {:?}, generation {:?} (observed {:?}), {}",
                    view.traffic,
                    view.generation,
                    view.status.observed_generation,
                    describe(&view.status)
                );
            }
            let waited = self.shared.has_changed.wait_timeout(record, left);
            record = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(record.view.clone())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // A record is never left half-written: each change is one assignment and one push.
        self.shared
            .record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(worker) = self.worker.take() {
            worker.join().ok();
        }
    }
}

/// The conditions and the active, for a message to people.
pub fn describe(status: &PbxClusterStatus) -> String {
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|one| {
            format!(
                "{}={} ({}: {})",
                one.type_, one.status, one.reason, one.message
            )
        })
        .collect();
    let active = status.active.as_deref().unwrap_or("nobody");
    let switchover = status.switchover.as_ref().map_or_else(String::new, |one| {
        format!(
            ", switchover {}: {:?} ({})",
            one.requested_by, one.state, one.message
        )
    });
    format!(
        "active: {active}, epoch {:?}, {}{switchover}",
        status.epoch,
        conditions.join(", ")
    )
}

async fn connect(kubeconfig: Kubeconfig) -> Result<Client> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("use kubeconfig")?;
    Client::try_from(config).context("make a client of the API server")
}

async fn watch_all(client: &Client, namespace: &str, name: &str, shared: &Shared) {
    let clusters: Api<PbxCluster> = Api::namespaced(client.clone(), namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let slice_name = names::endpoint_slice(name);
    let lease_name = names::lease(name);
    let clusters = objects(clusters, name).for_each(|found| {
        shared.note(|view| note_cluster(view, found));
        std::future::ready(())
    });
    let slices = objects(slices, &slice_name).for_each(|found| {
        shared.note(|view| note_slice(view, found.as_ref()));
        std::future::ready(())
    });
    let leases = objects(leases, &lease_name).for_each(|found| {
        shared.note(|view| note_lease(view, found.as_ref()));
        std::future::ready(())
    });
    futures::join!(clusters, slices, leases);
}

/// Every state of one object, `None` once it is deleted.
fn objects<K>(api: Api<K>, name: &str) -> impl Stream<Item = Option<K>>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher::watcher(api, config)
        .or_else(|error| async move {
            // An outage of the API is part of the tests: watch again.
            tokio::time::sleep(RETRY_INTERVAL).await;
            Err(error)
        })
        .filter_map(|event| {
            std::future::ready(match event {
                Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found)) => {
                    Some(Some(found))
                }
                Ok(watcher::Event::Delete(_)) => Some(None),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => None,
            })
        })
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut View) -> Option<Change>) {
        let at = Moment::now();
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(change) = change(&mut record.view) {
            if record.seen.len() >= MOST_CHANGES {
                record.seen.drain(..MOST_CHANGES / 2);
            }
            record.seen.push(Seen { at, change });
        }
        self.has_changed.notify_all();
    }
}

fn note_cluster(view: &mut View, found: Option<PbxCluster>) -> Option<Change> {
    let Some(found) = found else {
        view.generation = None;
        view.status = PbxClusterStatus::default();
        return None;
    };
    view.generation = found.metadata.generation;
    let status = found.status.unwrap_or_default();
    let is_new = view.status != status;
    view.status = status.clone();
    is_new.then(|| Change::Status(Box::new(status)))
}

fn note_slice(view: &mut View, found: Option<&EndpointSlice>) -> Option<Change> {
    let traffic = found.map(traffic_of).unwrap_or_default();
    let is_new = view.traffic != traffic;
    view.traffic = traffic.clone();
    is_new.then_some(Change::Traffic(traffic))
}

fn note_lease(view: &mut View, found: Option<&Lease>) -> Option<Change> {
    let witness = found.and_then(|lease| quorum_of(lease).ok());
    view.witness.clone_from(&witness);
    witness.map(Change::Witness)
}

fn traffic_of(slice: &EndpointSlice) -> Traffic {
    let annotations = slice.metadata.annotations.iter().flatten();
    let epoch = annotations
        .filter(|(name, _)| name.as_str() == names::EPOCH_ANNOTATION)
        .find_map(|(_, value)| value.parse().ok());
    let mut addresses = slice
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses);
    Traffic {
        address: addresses.next().cloned(),
        epoch: epoch.unwrap_or(0),
    }
}

fn quorum_of(lease: &Lease) -> Result<QuorumRecord> {
    let annotations = lease.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(names::LEASE_ANNOTATION));
    let text = text.ok_or_else(|| anyhow!("the Lease carries no {}", names::LEASE_ANNOTATION))?;
    serde_json::from_str(text).context("read the witness Lease")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ObjectMeta;

    fn slice(address: &str, epoch: &str) -> EndpointSlice {
        let annotations = [(names::EPOCH_ANNOTATION.to_owned(), epoch.to_owned())].into();
        let endpoint = serde_json::json!({ "addresses": [address] });
        EndpointSlice {
            metadata: ObjectMeta {
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            endpoints: vec![serde_json::from_value(endpoint).unwrap()],
            ..EndpointSlice::default()
        }
    }

    #[test]
    fn traffic_is_told_once_for_each_change() {
        let mut view = View::default();
        let first = slice("198.18.128.5", "3");
        assert!(note_slice(&mut view, Some(&first)).is_some());
        assert!(note_slice(&mut view, Some(&first)).is_none());
        assert_eq!(view.traffic.address.as_deref(), Some("198.18.128.5"));
        assert!(note_slice(&mut view, Some(&slice("198.18.129.5", "4"))).is_some());
        assert_eq!(view.traffic.epoch, 4);
    }

    #[test]
    fn waiting_ends_with_what_was_seen() {
        let watcher = Watcher {
            shared: Arc::default(),
            stop: None,
            worker: None,
        };
        let patience = Duration::from_millis(20);
        let error = watcher
            .wait_until("a miracle", patience, |_| false)
            .unwrap_err();
        assert!(error.to_string().contains("a miracle"), "{error}");
        watcher.shared.note(|view| {
            view.traffic.epoch = 9;
            Some(Change::Traffic(view.traffic.clone()))
        });
        let view = watcher
            .wait_until("epoch 9", patience, |view| view.traffic.epoch == 9)
            .unwrap();
        assert_eq!(view.traffic.epoch, 9);
        assert_eq!(watcher.seen_since(Moment(0)).len(), 1);
    }
}
