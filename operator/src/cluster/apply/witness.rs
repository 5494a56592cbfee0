//! The witness Lease: made by the operator alone, and only when it is missing (R9). Its content is the sidecars' from then on.
//!
//! The seat map is written into the status *before* the Lease, and a Lease made again gets its map from there: so no
//! request to leave is ever forgotten (R13).

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use pbx_crds::quorum::QuorumRecord;
use pbx_crds::status::WitnessStatus;
use pbx_crds::{PbxCluster, names};

use super::{ApplyError, Objects};
use crate::cluster::build;
use crate::observe::seats;

impl Objects<'_> {
    /// Makes the Lease if there is none.
    pub(super) async fn ensure_lease(&self) -> Result<(), ApplyError> {
        let name = names::lease(&self.cluster.name);
        if let Some(lease) = self.get::<Lease>(&name).await? {
            return self.check_owner(&lease);
        }
        let record = self.remembered().await?;
        let lease = self.lease(name, &record);
        self.create(&lease).await.map(drop)
    }

    /// What the status remembers, written there first if it remembers nothing. Read uncached: a stale status would be a lost map.
    async fn remembered(&self) -> Result<QuorumRecord, ApplyError> {
        let name = &self.cluster.name;
        let found: Option<PbxCluster> = self.get(name).await?;
        let status = found.and_then(|cluster| cluster.status).unwrap_or_default();
        let epoch = u64::try_from(status.epoch.unwrap_or(0)).unwrap_or(0);
        let Some(witness) = &status.witness else {
            self.write_empty_map().await?;
            return Ok(QuorumRecord::first(self.cluster.nodes));
        };
        // The number that the lost Lease had, or was about to get: the spec's may be another by now.
        Ok(QuorumRecord::made_again(epoch, witness))
    }

    async fn write_empty_map(&self) -> Result<(), ApplyError> {
        let name = &self.cluster.name;
        let witness = WitnessStatus {
            lease: names::lease(name),
            seats: vec![String::new(); usize::from(self.cluster.nodes)],
            ..WitnessStatus::default()
        };
        let patch = seats::status_patch(Some(&self.cluster.uid), &witness);
        self.api::<PbxCluster>()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .map_err(|source| ApplyError::Write {
                kind: "PbxCluster".into(),
                name: name.clone(),
                source,
            })
    }

    fn lease(&self, name: String, record: &QuorumRecord) -> Lease {
        let content = serde_json::to_string(record).expect("a quorum record is JSON");
        let mut metadata = build::metadata(self.cluster, name);
        metadata.annotations = Some([(names::LEASE_ANNOTATION.to_owned(), content)].into());
        Lease {
            metadata,
            spec: None,
        }
    }
}
