//! The seat map of the witness Lease (R13), as far as it is the operator's: the copy in the status, and the seat of an
//! occupant whose Kubernetes node is certainly gone. The number of seats is in [`count`].
//!
//! Everything else is the sidecars' own: they fill seats, ask occupants to leave and vacate their seats. Only when a node
//! is deleted or tainted out-of-service, and its pod with it, can nobody else say that the occupant is dead.
//! Order of writes, for a Lease that is lost in between: the request in the status, then in the Lease; Tq later the seat is
//! emptied. The holder and its hold are kept, each write is bound to the version read.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pbx_crds::quorum::QuorumRecord;
use pbx_crds::status::WitnessStatus;
use pbx_crds::{PbxCluster, names};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::ClusterKey;
use super::facts::Observed;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an orphaned seat is looked at. Sidecars need about a second to settle the usual case among themselves.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub mod count;

/// What to do about the seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatStep {
    /// Write this into the status.
    Remember(WitnessStatus),
    /// Ask the occupant of this seat to leave: write it into the Lease.
    Request(usize),
    /// Empty this seat.
    Vacate(usize),
    /// Change the number of seats in the Lease.
    Resize(u8),
    /// A death is certain, but not for long enough.
    Wait,
}

/// The copy of the map in the status. A request that the Lease does not show yet stays, as long as its occupant does.
pub fn remembered(
    lease: String,
    record: &QuorumRecord,
    old: Option<&WitnessStatus>,
    observed: &Observed,
) -> WitnessStatus {
    let old = old.cloned().unwrap_or_default();
    let occupants = &record.seats.occupants;
    let uid_of = |seat: usize| occupants.get(seat).cloned().flatten().unwrap_or_default();
    let is_kept = |seat: usize| old.seats.get(seat) == Some(&uid_of(seat));
    let count = count::remembered(record, &old, observed.nodes);
    let seats = 0..usize::from(count);
    let requested = seats.clone().filter(|seat| {
        let in_lease = record.seats.requested.get(*seat).copied().unwrap_or(false);
        let in_status = old.requested.iter().any(|one| usize::from(*one) == *seat);
        !uid_of(*seat).is_empty() && (in_lease || (in_status && is_kept(*seat)))
    });
    let node_name = |seat: usize| {
        let pod = observed.pods.values().find(|pod| pod.uid == uid_of(seat));
        let seen = pod.and_then(|pod| pod.node_name.clone());
        let known = old.node_names.get(seat).filter(|_| is_kept(seat)).cloned();
        seen.or(known).unwrap_or_default()
    };
    WitnessStatus {
        lease,
        requested: requested.map(|seat| seat as u8).collect(),
        resizing: count != record.seats.count,
        node_names: seats.clone().map(node_name).collect(),
        seats: seats.map(uid_of).collect(),
    }
}

/// What follows for the seat whose occupant's death has been certain for `dead_for`.
pub fn for_dead_occupant(
    seat: usize,
    record: &QuorumRecord,
    status: &WitnessStatus,
    dead_for: Duration,
    quarantine: Duration,
) -> SeatStep {
    let number = seat as u8;
    if !status.requested.contains(&number) {
        let mut asked = status.clone();
        asked.requested.push(number);
        asked.requested.sort_unstable();
        return SeatStep::Remember(asked);
    }
    if record.seats.requested.get(seat) != Some(&true) {
        return SeatStep::Request(seat);
    }
    if dead_for < quarantine {
        return SeatStep::Wait;
    }
    SeatStep::Vacate(seat)
}

/// Whether what ran on `node` is certainly dead: it is gone, or a person said so by the taint.
pub fn is_lost(node: Option<&Node>) -> bool {
    let Some(node) = node else { return true };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints
        .into_iter()
        .flatten()
        .any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The merge patch that writes `witness`. Every field stands in it: one left out would keep its old value.
pub fn status_patch(uid: Option<&str>, witness: &WitnessStatus) -> serde_json::Value {
    let WitnessStatus {
        lease,
        seats,
        requested,
        node_names,
        resizing,
    } = witness;
    json!({
        "metadata": {"uid": uid},
        "status": {"witness": {
            "lease": lease, "seats": seats, "requested": requested, "nodeNames": node_names, "resizing": resizing
        }},
    })
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// Writing the map into the status.
    #[error("cannot write the seat map into the status")]
    Status(#[source] kube::Error),
    /// Reading a Kubernetes node.
    #[error("cannot read node {node}")]
    GetNode {
        /// Which.
        node: String,
        /// What the API said.
        source: kube::Error,
    },
    /// Writing the Lease.
    #[error("cannot write the seat map into the Lease")]
    Lease(#[source] kube::Error),
    /// No answer.
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

/// Keeps the seats of one cluster.
pub struct SeatKeeper {
    client: Client,
    key: ClusterKey,
    /// Since when the death of an occupant, by UID, has been certain.
    dead_since: HashMap<String, Instant>,
    /// The version of the Lease that was seen last, and since when.
    watched: Option<(String, Instant)>,
}

impl SeatKeeper {
    /// Knows of no death yet.
    pub fn new(client: Client, key: ClusterKey) -> Self {
        Self {
            client,
            key,
            dead_since: HashMap::new(),
            watched: None,
        }
    }

    /// One turn; returns when to look again by itself.
    pub async fn turn(
        &mut self,
        cluster: &PbxCluster,
        observed: &Observed,
        lease: Option<&Lease>,
    ) -> Option<Instant> {
        let lease = lease?;
        let record = record_of(lease)?;
        match self.try_turn(cluster, observed, lease, &record).await {
            Ok(is_settled) => (!is_settled).then(|| Instant::now() + LOOK_AGAIN),
            Err(error) => {
                tracing::warn!(cluster = %self.key.name, namespace = %self.key.namespace, error = &error as &dyn std::error::Error, "seat map not kept");
                Some(Instant::now() + LOOK_AGAIN)
            }
        }
    }

    async fn try_turn(
        &mut self,
        cluster: &PbxCluster,
        observed: &Observed,
        lease: &Lease,
        record: &QuorumRecord,
    ) -> Result<bool, SeatError> {
        let old = observed.status.witness.as_ref();
        let now = remembered(lease.name_any(), record, old, observed);
        if old != Some(&now) {
            self.write_status(cluster, &now).await?;
        }
        let occupants = &record.seats.occupants;
        self.dead_since
            .retain(|uid, _| occupants.iter().flatten().any(|occupant| occupant == uid));
        let mut is_settled = true;
        for (seat, uid) in occupants.iter().enumerate() {
            let Some(uid) = uid else { continue };
            if observed.pods.values().any(|pod| pod.uid == *uid) {
                continue;
            }
            is_settled = false;
            let node = now.node_names.get(seat).cloned().unwrap_or_default();
            if !node.is_empty() && self.is_node_lost(&node).await? {
                let since = *self
                    .dead_since
                    .entry(uid.clone())
                    .or_insert_with(Instant::now);
                let quarantine = cluster.spec.failover.deadtime.get() * 2;
                let step = for_dead_occupant(seat, record, &now, since.elapsed(), quarantine);
                self.take(step, cluster, lease, record).await?;
            }
        }
        let unchanged_for = self.watch(lease);
        if let Some(step) = count::next_step(record, &now, observed, unchanged_for) {
            self.take(step, cluster, lease, record).await?;
        }
        Ok(is_settled && record.seats.count == observed.nodes)
    }

    /// R9: for how long the Lease has been seen unchanged.
    fn watch(&mut self, lease: &Lease) -> Duration {
        let version = lease.resource_version().unwrap_or_default();
        let since = match &self.watched {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.watched = Some((version, since));
        since.elapsed()
    }

    async fn take(
        &self,
        step: SeatStep,
        cluster: &PbxCluster,
        lease: &Lease,
        record: &QuorumRecord,
    ) -> Result<(), SeatError> {
        let mut changed = record.clone();
        match step {
            SeatStep::Wait => return Ok(()),
            SeatStep::Remember(status) => return self.write_status(cluster, &status).await,
            SeatStep::Request(seat) => changed.seats.requested[seat] = true,
            SeatStep::Vacate(seat) => {
                changed.seats.occupants[seat] = None;
                changed.seats.requested[seat] = false;
            }
            SeatStep::Resize(count) => count::resize(&mut changed, count),
        }
        self.write_lease(lease, &changed).await?;
        tracing::info!(cluster = %self.key.name, namespace = %self.key.namespace, ?step, "seat map changed");
        Ok(())
    }

    async fn is_node_lost(&self, node: &str) -> Result<bool, SeatError> {
        let api = Api::<Node>::all(self.client.clone());
        let found = timeout(CALL_TIMEOUT, api.get_opt(node))
            .await
            .map_err(|_| SeatError::Timeout)?
            .map_err(|source| SeatError::GetNode {
                node: node.into(),
                source,
            })?;
        Ok(is_lost(found.as_ref()))
    }

    async fn write_status(
        &self,
        cluster: &PbxCluster,
        witness: &WitnessStatus,
    ) -> Result<(), SeatError> {
        let api = Api::<PbxCluster>::namespaced(self.client.clone(), &self.key.namespace);
        let patch = status_patch(cluster.uid().as_deref(), witness);
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        let writing = api.patch_status(&self.key.name, &params, &patch);
        let result = timeout(CALL_TIMEOUT, writing).await;
        result
            .map_err(|_| SeatError::Timeout)?
            .map(drop)
            .map_err(SeatError::Status)
    }

    /// A compare-and-swap: `lease` carries the version that was read.
    async fn write_lease(&self, lease: &Lease, record: &QuorumRecord) -> Result<(), SeatError> {
        let content = serde_json::to_string(record).expect("a quorum record is JSON");
        let mut lease = lease.clone();
        lease
            .annotations_mut()
            .insert(names::LEASE_ANNOTATION.into(), content);
        let api = Api::<Lease>::namespaced(self.client.clone(), &self.key.namespace);
        let name = lease.name_any();
        let params = PostParams::default();
        let result = timeout(CALL_TIMEOUT, api.replace(&name, &params, &lease)).await;
        result
            .map_err(|_| SeatError::Timeout)?
            .map(drop)
            .map_err(SeatError::Lease)
    }
}

/// What the Lease says; `None`, with a word in the log, when it is not one of ours.
fn record_of(lease: &Lease) -> Option<QuorumRecord> {
    let text = lease.annotations().get(names::LEASE_ANNOTATION)?;
    match serde_json::from_str::<QuorumRecord>(text) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(lease = %lease.name_any(), namespace = lease.namespace().as_deref(), error = &error as &dyn std::error::Error, "the witness Lease is unreadable: delete it, and the operator makes it again from the status");
            None
        }
    }
}

#[cfg(test)]
mod tests;
