//! This node's ledger: what it adds, what it learns from peers and from the status, and how it tells them.
//!
//! A ledger is larger than a datagram, so it travels in parts, each a small ledger of its own; merging is idempotent, so that
//! parts may be lost, doubled and reordered. Peers notice a difference by the digest in every beat.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pbx_core::{BootTime, Cause, MAX_NODES, Seat};
use pbx_crds::ledger::Ledger;
use pbx_crds::status::FailoverRecord;
use sha2::{Digest, Sha256};

use crate::record::RecordStore;

/// Entries in one part: 200 bytes each, in a datagram of 1300.
const ENTRIES_PER_PART: usize = 4;
/// A peer is told at most this often while its ledger differs.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// This node's ledger.
pub struct History {
    ledger: Ledger,
    store: RecordStore,
    node: String,
    told_at: [Option<BootTime>; MAX_NODES],
}

/// A promotion as the core tells it.
#[derive(Clone, Copy, Debug)]
pub struct Promotion {
    /// The epoch that began.
    pub epoch: i64,
    /// Why.
    pub cause: Cause,
    /// From the cause to the decision.
    pub detection: Duration,
    /// From the decision to the authority.
    pub took: Duration,
}

impl History {
    /// What this boot's record knows.
    pub fn open(store: RecordStore, node: String) -> Self {
        Self {
            ledger: store.read_ledger(),
            store,
            node,
            told_at: [None; MAX_NODES],
        }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// First eight bytes of its SHA-256: equal ledgers have equal digests.
    pub fn digest(&self) -> u64 {
        let text = serde_json::to_vec(&self.ledger).expect("a ledger of numbers and texts is JSON");
        Sha256::digest(text)
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .expect("SHA-256 has 32 bytes")
    }

    /// This node became active, in place of `from`.
    pub fn on_promoted(&mut self, time: Time, from: Option<String>, promotion: Promotion) {
        let (cause, planned) = (crd_cause(promotion.cause), promotion.cause.is_planned());
        self.ledger.record(FailoverRecord {
            epoch: promotion.epoch,
            time,
            from,
            to: self.node.clone(),
            cause,
            planned,
            detection_ms: whole_ms(promotion.detection),
            promotion_ms: whole_ms(promotion.took),
            traffic_ms: None,
        });
        self.save();
    }

    /// The traffic points here, `took` after the promotion.
    pub fn on_traffic_moved(&mut self, epoch: i64, took: Duration) {
        if let Some(known) = self.ledger.entries.get(&epoch).cloned() {
            self.ledger.record(FailoverRecord {
                traffic_ms: Some(whole_ms(took)),
                ..known
            });
            self.save();
        }
    }

    /// This node's Asterisk was started again in place, rather than another promoted.
    pub fn on_restarted_in_place(&mut self) {
        let own = self.ledger.own.entry(self.node.clone()).or_default();
        own.asterisk_restarts += 1;
        own.suppressed += 1;
        self.save();
    }

    /// A move that was asked for does not happen.
    pub fn on_suppressed(&mut self) {
        self.ledger
            .own
            .entry(self.node.clone())
            .or_default()
            .suppressed += 1;
        self.save();
    }

    /// Takes over what another part knows; returns whether anything was new.
    pub fn merge(&mut self, other: &Ledger) -> bool {
        let is_new = self.ledger.merge(other);
        if is_new {
            self.save();
        }
        is_new
    }

    /// Takes over a part that a peer told.
    pub fn on_part(&mut self, json: &[u8]) -> bool {
        serde_json::from_slice(json).is_ok_and(|part: Ledger| self.merge(&part))
    }

    /// What to tell `seat`, unless it was told just now.
    pub fn parts_for(&mut self, seat: Seat, now: BootTime) -> Option<Vec<Vec<u8>>> {
        let told_at = &mut self.told_at[usize::from(seat.0)];
        if told_at.is_some_and(|told_at| now.since(told_at) < TELL_INTERVAL) {
            return None;
        }
        *told_at = Some(now);
        Some(parts(&self.ledger))
    }

    fn save(&self) {
        if let Err(error) = self.store.write_ledger(&self.ledger) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger cannot be written; peers and status still know it"
            );
        }
    }
}

/// The counts first, then the entries a few at a time.
fn parts(ledger: &Ledger) -> Vec<Vec<u8>> {
    let head = Ledger {
        entries: std::collections::BTreeMap::new(),
        ..ledger.clone()
    };
    let entries: Vec<_> = ledger.entries.iter().collect();
    let tails = entries.chunks(ENTRIES_PER_PART).map(|chunk| Ledger {
        entries: chunk
            .iter()
            .map(|(epoch, record)| (**epoch, (*record).clone()))
            .collect(),
        ..Ledger::default()
    });
    std::iter::once(head)
        .chain(tails)
        .map(|part| serde_json::to_vec(&part).expect("a ledger of numbers and texts is JSON"))
        .collect()
}

/// Rounded up, so that what took time is never zero.
fn whole_ms(duration: Duration) -> i64 {
    duration.as_micros().div_ceil(1000) as i64
}

/// The cause as the resource has it.
pub fn crd_cause(cause: Cause) -> pbx_crds::Cause {
    match cause {
        Cause::Startup => pbx_crds::Cause::Startup,
        Cause::AsteriskExited => pbx_crds::Cause::AsteriskExited,
        Cause::AsteriskHung => pbx_crds::Cause::AsteriskHung,
        Cause::HealthFailed => pbx_crds::Cause::HealthFailed,
        Cause::NodeSilent => pbx_crds::Cause::NodeSilent,
        Cause::PodDeleted => pbx_crds::Cause::PodDeleted,
        Cause::Switchover => pbx_crds::Cause::Switchover,
        Cause::Drill => pbx_crds::Cause::Drill,
        Cause::Preferred => pbx_crds::Cause::Preferred,
        Cause::QuorumLost => pbx_crds::Cause::QuorumLost,
        Cause::GuardExpired => pbx_crds::Cause::GuardExpired,
        Cause::SidecarRestarted => pbx_crds::Cause::SidecarRestarted,
        Cause::Contention => pbx_crds::Cause::Contention,
        Cause::TrafficFailed => pbx_crds::Cause::TrafficFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::codec::MAX_PAYLOAD_BYTES;

    fn history(folder: &tempfile::TempDir, node: &str) -> History {
        History::open(
            RecordStore::open(&folder.path().join(node)).unwrap(),
            node.into(),
        )
    }

    fn promote(history: &mut History, epoch: i64, from: &str) {
        let promotion = Promotion {
            epoch,
            cause: Cause::AsteriskExited,
            detection: Duration::from_micros(300),
            took: Duration::from_millis(2),
        };
        let time = Time(k8s_openapi::jiff::Timestamp::from_second(1_700_000_000).unwrap());
        history.on_promoted(time, Some(from.into()), promotion);
    }

    #[test]
    fn the_twins_of_a_cause_have_one_name() {
        for cause in crate::peer::codec::CAUSES {
            assert_eq!(crd_cause(cause).as_str(), format!("{cause:?}"));
        }
    }

    #[test]
    fn parts_fit_a_datagram_and_make_the_ledger_whole_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut ours = history(&folder, "a-node-with-a-name-as-long-as-the-rules-allow-0");
        for epoch in 1..=100 {
            promote(
                &mut ours,
                epoch,
                "a-node-with-a-name-as-long-as-the-rules-allow-1",
            );
            ours.on_traffic_moved(epoch, Duration::from_millis(9));
        }
        ours.on_restarted_in_place();
        let mut theirs = history(&folder, "b");
        let mut parts = ours
            .parts_for(Seat(1), BootTime(1_000_000_000_000))
            .unwrap();
        parts.reverse();
        for part in &parts {
            assert!(part.len() < MAX_PAYLOAD_BYTES, "{} bytes", part.len());
            theirs.on_part(part);
        }
        assert_eq!(ours.digest(), theirs.digest());
        assert_eq!(theirs.ledger().cluster_counts().failovers, 100);
    }

    #[test]
    fn a_restarted_sidecar_remembers() {
        let folder = tempfile::tempdir().unwrap();
        promote(&mut history(&folder, "a"), 3, "b");
        assert_eq!(history(&folder, "a").ledger().cluster_counts().failovers, 1);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut ours = history(&folder, "a");
        assert!(!ours.on_part(b"\xff\xfe"));
        assert!(!ours.on_part(b"[]"));
    }
}
