//! The witness: GET and PATCH of the Lease as the core asks for them (R9, R14).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use pbx_core::{
    ApiAnswer, ApiCall, Epoch, Holder, Incarnation, LeaseContent, LeaseView, LeaseWrite, MAX_NODES,
    Occupant, Seat, Seats,
};
use pbx_crds::names;
use pbx_crds::quorum::{HolderRecord, QuorumRecord, SeatsRecord};
use serde_json::json;

use super::{KubeError, format_uid, parse_uid, within};

/// The Lease of one cluster.
#[derive(Clone)]
pub struct WitnessLease {
    /// Each over a connection of its own.
    apis: [Api<Lease>; 2],
    /// Which of them is used.
    current: Arc<AtomicUsize>,
    /// Calls in a row that failed.
    failures: Arc<AtomicUsize>,
    cluster: String,
    name: String,
    deadline: Duration,
}

impl WitnessLease {
    /// The Lease `name` of `cluster` in `namespace`; each call fails after `deadline`.
    ///
    /// Two clients, which must not share a connection: one that has lost a packet answers nothing until TCP has repeated
    /// it, 0.2 s and more later, and a failover may wait for just this call. The second connects when it is needed.
    pub fn new(
        clients: [Client; 2],
        namespace: &str,
        cluster: &str,
        name: &str,
        deadline: Duration,
    ) -> Self {
        Self {
            apis: clients.map(|client| Api::namespaced(client, namespace)),
            current: Arc::default(),
            failures: Arc::default(),
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            deadline,
        }
    }

    /// Carries out what the core asks for. The second value says whether the API server answered.
    pub async fn call(&self, call: &ApiCall) -> (ApiAnswer, bool) {
        let result = match call {
            ApiCall::Read => self.read().await,
            ApiCall::Write(write) => self.write(write).await,
        };
        match result {
            Ok(answer) => {
                self.note_answer();
                (answer, true)
            }
            Err(error) => {
                self.note_failure(&error);
                (ApiAnswer::Failed, error.is_answered())
            }
        }
    }

    fn api(&self) -> &Api<Lease> {
        &self.apis[self.current.load(Ordering::Relaxed)]
    }

    fn note_answer(&self) {
        let failures = self.failures.swap(0, Ordering::Relaxed);
        if failures > 0 {
            tracing::info!(failures, "the witness answers again");
        }
    }

    fn note_failure(&self, error: &KubeError) {
        if !error.is_answered() {
            self.current.fetch_xor(1, Ordering::Relaxed);
        }
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a call to the witness failed: trying on"
            );
        }
    }

    async fn read(&self) -> Result<ApiAnswer, KubeError> {
        match within(
            "read Lease",
            &self.name,
            self.deadline,
            self.api().get(&self.name),
        )
        .await
        {
            Ok(lease) => Ok(view(&lease).map_or(ApiAnswer::Missing, ApiAnswer::Lease)),
            Err(error) if error.code() == Some(404) => Ok(ApiAnswer::Missing),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, write: &LeaseWrite) -> Result<ApiAnswer, KubeError> {
        let patch = Patch::Merge(patch(&self.cluster, write));
        let params = PatchParams {
            field_manager: Some(names::SIDECAR_MANAGER.into()),
            ..PatchParams::default()
        };
        let call = self.api().patch(&self.name, &params, &patch);
        match within("write Lease", &self.name, self.deadline, call).await {
            Ok(written) => Ok(view(&written).map_or(ApiAnswer::Conflict, ApiAnswer::Lease)),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(ApiAnswer::Conflict),
            Err(error) => Err(error),
        }
    }
}

/// What the core knows of a Lease; `None` when it is not one of ours.
fn view(lease: &Lease) -> Option<LeaseView> {
    let text = lease
        .metadata
        .annotations
        .as_ref()?
        .get(names::LEASE_ANNOTATION)?;
    let record: QuorumRecord = serde_json::from_str(text).ok()?;
    Some(LeaseView {
        uid: parse_uid(lease.metadata.uid.as_deref()?)?,
        version: lease.metadata.resource_version.as_deref()?.parse().ok()?,
        content: content(&record)?,
    })
}

fn content(record: &QuorumRecord) -> Option<LeaseContent> {
    let count = record.seats.count;
    if usize::from(count) > MAX_NODES
        || record.seats.occupants.len() > MAX_NODES
        || record.seats.requested.len() > MAX_NODES
    {
        return None;
    }
    let mut seats = Seats {
        count,
        occupants: [None; MAX_NODES],
        requested: [false; MAX_NODES],
    };
    for (seat, uid) in record.seats.occupants.iter().enumerate() {
        seats.occupants[seat] = uid
            .as_deref()
            .map(parse_uid)
            .map(|uid| uid.map(Occupant))
            .unwrap_or_default();
    }
    seats.requested[..record.seats.requested.len()].copy_from_slice(&record.seats.requested);
    let holder = match &record.holder {
        HolderRecord::Nobody => Holder::Nobody,
        HolderRecord::Created => Holder::Created,
        HolderRecord::Node {
            seat,
            occupant,
            incarnation,
        } => Holder::Node {
            seat: Seat(*seat),
            occupant: Occupant(parse_uid(occupant)?),
            incarnation: Incarnation(*incarnation),
        },
    };
    Some(LeaseContent {
        holder,
        epoch: Epoch(record.epoch),
        hold: Duration::from_millis(record.hold_ms),
        seats,
    })
}

fn record(content: &LeaseContent) -> QuorumRecord {
    let count = usize::from(content.seats.count);
    let occupants = content.seats.occupants[..count]
        .iter()
        .map(|uid| uid.map(|uid| format_uid(uid.0)))
        .collect();
    let requested = content.seats.requested[..count].to_vec();
    let holder = match content.holder {
        Holder::Nobody => HolderRecord::Nobody,
        Holder::Created => HolderRecord::Created,
        Holder::Node {
            seat,
            occupant,
            incarnation,
        } => HolderRecord::Node {
            seat: seat.0,
            occupant: format_uid(occupant.0),
            incarnation: incarnation.0,
        },
    };
    QuorumRecord {
        holder,
        epoch: content.epoch.0,
        hold_ms: content.hold.as_millis() as u64,
        seats: SeatsRecord {
            count: content.seats.count,
            occupants,
            requested,
        },
    }
}

/// The change to write. It carries the resourceVersion and the UID that were read, so it is a compare-and-swap; a PATCH and
/// not a PUT, so that labels and owner need not be known here to survive. The holder's name is for people (`kubectl get lease`).
fn patch(cluster: &str, write: &LeaseWrite) -> serde_json::Value {
    let text = serde_json::to_string(&record(&write.content))
        .expect("a record of numbers and texts is JSON");
    let holder = match write.content.holder {
        Holder::Node { seat, .. } => Some(names::pod(cluster, seat.0)),
        Holder::Nobody | Holder::Created => None,
    };
    json!({
        "metadata": {
            "uid": format_uid(write.uid),
            "resourceVersion": write.version.to_string(),
            "annotations": { names::LEASE_ANNOTATION: text },
        },
        "spec": { "holderIdentity": holder },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Vec<LeaseContent> {
        let seats = Seats {
            count: 2,
            occupants: [Some(Occupant(5)), None, None, None, None],
            requested: [true, false, false, false, false],
        };
        let node = Holder::Node {
            seat: Seat(1),
            occupant: Occupant(9),
            incarnation: Incarnation(3),
        };
        [Holder::Nobody, Holder::Created, node]
            .into_iter()
            .map(|holder| LeaseContent {
                holder,
                epoch: Epoch(4),
                hold: Duration::from_millis(800),
                seats,
            })
            .collect()
    }

    #[test]
    fn a_content_is_read_as_it_was_written() {
        for written in contents() {
            assert_eq!(content(&record(&written)), Some(written));
        }
    }

    #[test]
    fn a_write_is_bound_to_what_was_read() {
        let write = LeaseWrite {
            uid: 7,
            version: 42,
            content: contents()[2],
        };
        let patch = patch("office", &write);
        assert_eq!(patch["metadata"]["resourceVersion"], "42");
        assert_eq!(patch["metadata"]["uid"], format_uid(7));
        assert_eq!(patch["spec"]["holderIdentity"], "office-1");
    }

    #[test]
    fn a_lease_with_too_many_seats_is_none_of_ours() {
        let mut record = record(&contents()[0]);
        record.seats.count = 9;
        assert_eq!(content(&record), None);
    }
}
