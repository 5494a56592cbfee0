//! The loop of one cluster: await a word, a wake or a moment; observe; derive; write what changed. One owner, no locks.
//!
//! The status goes first and waits for nothing else. Words that come during a write are taken together by the next turn.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pbx_crds::{PbxCluster, PbxClusterStatus};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::announce::{self, Announced};
use super::facts::{NodeReport, Observed, PodFacts, TemplateFacts};
use super::rollout::Rollout;
use super::seats::SeatKeeper;
use super::stream::{self, Word};
use super::write::Writer;
use super::{ClusterKey, Mailbox, Tools, status};

/// Words that wait; more make the sidecars wait.
const QUEUE: usize = 64;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(3);
/// A move makes several changes in a row (who serves, its history, where the traffic goes): one write tells them all, and
/// the API server's time goes to the traffic first.
const SETTLING: Duration = Duration::from_millis(40);
/// So long a standby may take to follow before the status tells that nobody serves: many times what a handover takes. A planned move
/// is told after the same time: nobody is alarmed by it, and by then kube-proxy, which often shares the machine with the API server,
/// has moved the traffic.
const HANDOVER_PATIENCE: Duration = Duration::from_millis(250);

/// Follows one cluster.
pub struct Observer {
    key: ClusterKey,
    tools: Tools,
    mailbox: Arc<Mailbox>,
    writer: Writer,
    sender: mpsc::Sender<(String, Word)>,
    words: mpsc::Receiver<(String, Word)>,
    followers: HashMap<String, Follower>,
    reports: BTreeMap<String, NodeReport>,
    announced: Announced,
    seats: SeatKeeper,
    /// Pods that were deleted here and may still stand in the store.
    deleted: HashSet<String>,
    retry: Duration,
    /// Since when the stored status is not the true one.
    differs_since: Option<Instant>,
}

struct Follower {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    /// An observer that has heard nothing yet.
    pub fn new(key: ClusterKey, tools: Tools, mailbox: Arc<Mailbox>) -> Self {
        let (sender, words) = mpsc::channel(QUEUE);
        Self {
            writer: Writer::new(tools.client.clone(), key.clone()),
            seats: SeatKeeper::new(tools.client.clone(), key.clone()),
            key,
            tools,
            mailbox,
            sender,
            words,
            followers: HashMap::new(),
            reports: BTreeMap::new(),
            announced: Announced::default(),
            deleted: HashSet::new(),
            retry: FIRST_RETRY,
            differs_since: None,
        }
    }

    /// Runs until its task is aborted.
    pub async fn run(mut self) {
        let mut next_turn: Option<Instant> = None;
        loop {
            let at = next_turn.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                () = self.mailbox.woken() => {}
                Some(word) = self.words.recv() => self.take(word),
                () = sleep_until(at) => {}
            }
            while let Ok(word) = self.words.try_recv() {
                self.take(word);
            }
            next_turn = self.turn().await;
        }
    }

    fn take(&mut self, (uid, word): (String, Word)) {
        match word {
            Word::Report(report) => {
                let said = NodeReport {
                    report: *report,
                    is_connected: true,
                };
                self.reports.insert(uid, said);
            }
            Word::Lost => {
                if let Some(said) = self.reports.get_mut(&uid) {
                    said.is_connected = false;
                }
            }
        }
    }

    /// One turn; returns when the next is due by itself.
    async fn turn(&mut self) -> Option<Instant> {
        let cluster = self.tools.stores.clusters.get(&self.key.object_ref())?;
        let pods = self.pods(&cluster);
        self.follow(&pods);
        let observed = self.observe(&cluster, pods);
        let now = Timestamp::now();
        let (status, rollout) = status::status_of(&observed, now);
        if let Some(until) = self.settles_at(&observed, &status) {
            return Some(until);
        }
        let mut retry = self.write_status(&cluster, &observed, &status).await;
        self.tools
            .metrics
            .show_active(&self.key, &observed, &status);
        retry |= self.label_pods(&observed, &status).await;
        retry |= self.roll(&rollout).await;
        // A cluster that was deleted and made again begins with empty seats: its predecessor's Lease may still stand for a moment.
        let is_own = |lease: &Arc<Lease>| {
            let mut owners = lease.owner_references().iter();
            owners.any(|owner| cluster.uid().as_ref() == Some(&owner.uid))
        };
        let lease = self
            .tools
            .stores
            .leases
            .get(&self.lease_ref())
            .filter(is_own);
        let look_again = self.seats.turn(&cluster, &observed, lease.as_deref()).await;
        for announcement in self.announced.news(&observed) {
            self.tools.announcer.announce(&cluster, announcement);
        }
        let change = status::next_change(&observed, now).map(|at| from_now(at, now));
        let retry = retry.then(|| Instant::now() + self.retry);
        [change, retry, look_again].into_iter().flatten().min()
    }

    /// The moment until which more is waited for before anything is written; `None`: go on now.
    fn settles_at(&mut self, observed: &Observed, status: &PbxClusterStatus) -> Option<Instant> {
        if *status == observed.status {
            self.differs_since = None;
            return None;
        }
        let has_time = status::is_between_actives(observed, status)
            || status::tells_of_planned_move(observed, status);
        let patience = if has_time {
            HANDOVER_PATIENCE
        } else {
            SETTLING
        };
        let since = *self.differs_since.get_or_insert_with(Instant::now);
        Some(since + patience).filter(|until| *until > Instant::now())
    }

    fn pods(&self, cluster: &PbxCluster) -> BTreeMap<String, PodFacts> {
        let pods = self.tools.stores.pods.state();
        let began_at = created_at(cluster);
        pods.iter()
            .filter(|pod| ClusterKey::of_labelled(&***pod).as_ref() == Some(&self.key))
            .filter_map(|pod| PodFacts::of(pod))
            .filter(|pod| pod.is_of_cluster_made_at(began_at))
            .map(|mut pod| {
                pod.is_terminating |= self.deleted.contains(&pod.uid);
                (pod.name.clone(), pod)
            })
            .collect()
    }

    fn observe(&self, cluster: &PbxCluster, pods: BTreeMap<String, PodFacts>) -> Observed {
        let set_ref = ObjectRef::new(&self.key.name).within(&self.key.namespace);
        let set = self.tools.stores.stateful_sets.get(&set_ref);
        Observed {
            name: self.key.name.clone(),
            created_at: created_at(cluster),
            nodes: cluster.spec.nodes,
            initdead: cluster.spec.failover.initdead.get(),
            status: self.writer.known_status(cluster),
            objects: self.mailbox.objects(),
            pods,
            reports: self.reports.clone(),
            template: set.map_or_else(TemplateFacts::default, |set| TemplateFacts::of(&set)),
        }
    }

    /// One stream per pod with an address; the words of pods that are gone are forgotten.
    fn follow(&mut self, pods: &BTreeMap<String, PodFacts>) {
        let is_present = |uid: &String| pods.values().any(|pod| pod.uid == *uid);
        self.followers.retain(|uid, _| is_present(uid));
        self.reports.retain(|uid, _| is_present(uid));
        self.deleted.retain(is_present);
        self.writer.forget_marks(is_present);
        for pod in pods.values() {
            let Some(address) = &pod.address else {
                continue;
            };
            let is_followed = self
                .followers
                .get(&pod.uid)
                .is_some_and(|one| one.address == *address);
            let Ok(ip) = address.parse() else { continue };
            if !is_followed {
                let following = stream::follow(ip, pod.uid.clone(), self.sender.clone());
                let follower = Follower {
                    address: address.clone(),
                    task: tokio::spawn(following),
                };
                self.followers.insert(pod.uid.clone(), follower);
            }
        }
    }

    /// Returns whether to try again.
    async fn write_status(
        &mut self,
        cluster: &PbxCluster,
        observed: &Observed,
        status: &PbxClusterStatus,
    ) -> bool {
        if *status == observed.status {
            return false;
        }
        if let Err(error) = self.writer.write_status(cluster, status).await {
            tracing::warn!(cluster = %self.key.name, namespace = %self.key.namespace, reason = error.reason(), error = &error as &dyn std::error::Error, "status not written");
            self.retry = (self.retry * 2).min(LONGEST_RETRY);
            return true;
        }
        self.retry = FIRST_RETRY;
        self.differs_since = None;
        for record in announce::new_changes(&observed.status, status) {
            self.tools.metrics.changed(&self.key, &record);
            let announcement = announce::of_change(&record);
            self.tools.announcer.announce(cluster, announcement);
        }
        false
    }

    async fn label_pods(&mut self, observed: &Observed, status: &PbxClusterStatus) -> bool {
        let mut has_failed = false;
        for pod in observed.pods.values().filter(|pod| !pod.is_terminating) {
            let role = if status.active.as_ref() == Some(&pod.name) {
                "active"
            } else {
                "standby"
            };
            let hash = observed.objects.user_hash.as_deref();
            if let Err(error) = self.writer.mark_pod(pod, role, hash).await {
                tracing::warn!(pod = %pod.name, namespace = %self.key.namespace, reason = error.reason(), error = &error as &dyn std::error::Error, "pod not labelled");
                has_failed = true;
            }
        }
        has_failed
    }

    async fn roll(&mut self, rollout: &Rollout) -> bool {
        let Rollout::Replace { pod, uid, message } = rollout else {
            return false;
        };
        match self.writer.delete_pod(pod, uid).await {
            Ok(()) => {
                tracing::info!(%pod, namespace = %self.key.namespace, why = %message, "pod replaced");
                self.deleted.insert(uid.clone());
                false
            }
            Err(error) => {
                tracing::warn!(%pod, namespace = %self.key.namespace, reason = error.reason(), error = &error as &dyn std::error::Error, "pod not replaced");
                true
            }
        }
    }

    fn lease_ref(&self) -> ObjectRef<k8s_openapi::api::coordination::v1::Lease> {
        ObjectRef::new(&pbx_crds::names::lease(&self.key.name)).within(&self.key.namespace)
    }
}

fn created_at(cluster: &PbxCluster) -> Timestamp {
    let created_at = cluster.creation_timestamp();
    created_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn from_now(at: Timestamp, now: Timestamp) -> Instant {
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    Instant::now() + wait
}
