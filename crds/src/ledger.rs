//! History and counts as a value that can be merged: every sidecar keeps one, sends it to its peers and to the operator,
//! and the status of the resource is one too. Merging is idempotent, so that nothing is counted twice:
//!
//! - a change of the active is an entry named by its epoch;
//! - the oldest entries are folded into counts, and `through_epoch` says up to which epoch;
//! - what only one node counts (restarts, suppressed moves) grows only there, and the greater number wins.
//!
//! Out of scope: an entry that reaches nobody before 20 newer ones were folded elsewhere is not counted any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::status::{ClusterCounts, FailoverRecord, NodeCounts, PbxClusterStatus};

/// Entries that are kept; older ones are in the counts alone.
pub const KEPT_ENTRIES: usize = 20;

/// History and counts of a cluster, as far as one part knows them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// Changes up to this epoch are folded into `folded`.
    pub through_epoch: i64,
    /// Counts of the changes up to `through_epoch`, by node. `asterisk_restarts` and `suppressed` stay zero here.
    pub folded: BTreeMap<String, NodeCounts>,
    /// What only the node itself counts.
    pub own: BTreeMap<String, OwnCounts>,
    /// The changes after `through_epoch`, by epoch.
    pub entries: BTreeMap<i64, FailoverRecord>,
}

/// What only the node itself counts. Grows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnCounts {
    /// Times its Asterisk was started again in place.
    pub asterisk_restarts: u64,
    /// Moves that were not made.
    pub suppressed: u64,
}

impl Ledger {
    /// The ledger that a status tells.
    pub fn from_status(status: &PbxClusterStatus) -> Self {
        let through_epoch = status.counts.through_epoch;
        let entries: BTreeMap<_, _> = status
            .failover_history
            .iter()
            .filter(|record| record.epoch > through_epoch)
            .map(|record| (record.epoch, record.clone()))
            .collect();
        let mut ledger = Self {
            through_epoch,
            entries,
            ..Self::default()
        };
        for node in &status.nodes {
            let counts = node.counts;
            let later = ledger.counts_of_entries(&node.name);
            ledger
                .folded
                .insert(node.name.clone(), minus(counts, later));
            let own = OwnCounts {
                asterisk_restarts: counts.asterisk_restarts,
                suppressed: counts.suppressed,
            };
            ledger.own.insert(node.name.clone(), own);
        }
        ledger
    }

    /// Adds a change of the active. One that is known already only gains what it lacked.
    pub fn record(&mut self, record: FailoverRecord) {
        if record.epoch <= self.through_epoch {
            return;
        }
        self.entries
            .entry(record.epoch)
            .and_modify(|known| known.traffic_ms = known.traffic_ms.or(record.traffic_ms))
            .or_insert(record);
        self.fold_oldest();
    }

    /// Takes over all that `other` knows; returns whether anything was new.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.clone();
        if other.through_epoch > self.through_epoch {
            self.through_epoch = other.through_epoch;
            self.folded.clone_from(&other.folded);
            self.entries.retain(|epoch, _| *epoch > other.through_epoch);
        }
        for record in other.entries.values() {
            self.record(record.clone());
        }
        for (node, theirs) in &other.own {
            let ours = self.own.entry(node.clone()).or_default();
            ours.asterisk_restarts = ours.asterisk_restarts.max(theirs.asterisk_restarts);
            ours.suppressed = ours.suppressed.max(theirs.suppressed);
        }
        *self != before
    }

    /// All counts of `node`.
    pub fn node_counts(&self, node: &str) -> NodeCounts {
        let own = self.own.get(node).copied().unwrap_or_default();
        let folded = self.folded.get(node).copied().unwrap_or_default();
        let counts = plus(folded, self.counts_of_entries(node));
        NodeCounts {
            asterisk_restarts: own.asterisk_restarts,
            suppressed: own.suppressed,
            ..counts
        }
    }

    /// Counts of the whole cluster.
    pub fn cluster_counts(&self) -> ClusterCounts {
        let nodes = self.folded.keys().chain(self.own.keys());
        let named = self
            .entries
            .values()
            .flat_map(|record| record.from.iter().chain([&record.to]));
        let all: std::collections::BTreeSet<&String> = nodes.chain(named).collect();
        let mut counts = ClusterCounts {
            through_epoch: self.through_epoch,
            ..ClusterCounts::default()
        };
        for node in all {
            let of_node = self.node_counts(node);
            counts.failovers += of_node.failovers;
            counts.switchovers += of_node.switchovers;
            counts.suppressed += of_node.suppressed;
            counts.drills += of_node.drills;
        }
        counts
    }

    /// The changes, newest first.
    pub fn history(&self) -> Vec<FailoverRecord> {
        self.entries.values().rev().cloned().collect()
    }

    /// The newest change in which `node` won or lost the role.
    pub fn last_of(&self, node: &str) -> Option<&FailoverRecord> {
        self.entries
            .values()
            .rev()
            .find(|record| record.to == node || record.from.as_deref() == Some(node))
    }

    fn counts_of_entries(&self, node: &str) -> NodeCounts {
        self.entries
            .values()
            .fold(NodeCounts::default(), |counts, record| {
                plus(counts, counts_of(record, node))
            })
    }

    fn fold_oldest(&mut self) {
        while self.entries.len() > KEPT_ENTRIES {
            let (epoch, record) = self
                .entries
                .pop_first()
                .expect("there are more than the kept ones");
            self.through_epoch = epoch;
            for node in record
                .from
                .iter()
                .chain([&record.to])
                .collect::<std::collections::BTreeSet<_>>()
            {
                let folded = self.folded.entry(node.clone()).or_default();
                *folded = plus(*folded, counts_of(&record, node));
            }
        }
    }
}

/// What one change adds to the counts of `node`. The very first start replaces nobody, and is neither failover nor switchover.
fn counts_of(record: &FailoverRecord, node: &str) -> NodeCounts {
    let lost = u64::from(record.from.as_deref() == Some(node));
    NodeCounts {
        promotions: u64::from(record.to == node),
        demotions: lost,
        failovers: if record.planned { 0 } else { lost },
        switchovers: if record.planned { lost } else { 0 },
        drills: if record.cause == crate::Cause::Drill {
            lost
        } else {
            0
        },
        ..NodeCounts::default()
    }
}

fn plus(a: NodeCounts, b: NodeCounts) -> NodeCounts {
    NodeCounts {
        promotions: a.promotions + b.promotions,
        demotions: a.demotions + b.demotions,
        failovers: a.failovers + b.failovers,
        switchovers: a.switchovers + b.switchovers,
        drills: a.drills + b.drills,
        ..NodeCounts::default()
    }
}

fn minus(a: NodeCounts, b: NodeCounts) -> NodeCounts {
    NodeCounts {
        promotions: a.promotions.saturating_sub(b.promotions),
        demotions: a.demotions.saturating_sub(b.demotions),
        failovers: a.failovers.saturating_sub(b.failovers),
        switchovers: a.switchovers.saturating_sub(b.switchovers),
        drills: a.drills.saturating_sub(b.drills),
        ..NodeCounts::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::Cause;
    use crate::status::{NodeState, NodeStatus};

    fn change(
        epoch: i64,
        from: Option<&str>,
        to: &str,
        cause: Cause,
        planned: bool,
    ) -> FailoverRecord {
        FailoverRecord {
            epoch,
            time: Time(Timestamp::from_second(1_700_000_000 + epoch).unwrap()),
            from: from.map(Into::into),
            to: to.into(),
            cause,
            planned,
            detection_ms: 1,
            promotion_ms: 2,
            traffic_ms: None,
        }
    }

    fn ping_pong(epochs: std::ops::RangeInclusive<i64>) -> Ledger {
        let mut ledger = Ledger::default();
        for epoch in epochs {
            let (from, to) = if epoch % 2 == 0 {
                ("a", "b")
            } else {
                ("b", "a")
            };
            ledger.record(change(
                epoch,
                (epoch > 1).then_some(from),
                to,
                Cause::AsteriskExited,
                false,
            ));
        }
        ledger
    }

    #[test]
    fn the_first_start_is_no_failover() {
        let ledger = ping_pong(1..=1);
        assert_eq!(ledger.cluster_counts(), ClusterCounts::default());
        assert_eq!(ledger.node_counts("a").promotions, 1);
    }

    #[test]
    fn folding_keeps_the_counts() {
        let ledger = ping_pong(1..=101);
        assert_eq!(ledger.entries.len(), KEPT_ENTRIES);
        assert_eq!(ledger.cluster_counts().failovers, 100);
        assert_eq!(ledger.node_counts("a").promotions, 51);
        assert_eq!(ledger.node_counts("b").demotions, 50);
    }

    #[test]
    fn merging_twice_counts_once() {
        let mut ours = ping_pong(1..=25);
        let theirs = ping_pong(1..=31);
        assert!(ours.merge(&theirs));
        assert!(!ours.merge(&theirs));
        assert_eq!(ours, theirs);
        assert_eq!(ours.cluster_counts().failovers, 30);
    }

    #[test]
    fn merging_is_the_same_in_either_order() {
        let mut left = ping_pong(1..=10);
        left.record(change(12, Some("a"), "b", Cause::PodDeleted, true));
        let mut right = ping_pong(1..=11);
        right.own.insert(
            "a".into(),
            OwnCounts {
                asterisk_restarts: 3,
                suppressed: 1,
            },
        );
        let (mut a, mut b) = (left.clone(), right.clone());
        a.merge(&right);
        b.merge(&left);
        assert_eq!(a, b);
        assert_eq!(a.cluster_counts().switchovers, 1);
        assert_eq!(a.node_counts("a").asterisk_restarts, 3);
    }

    #[test]
    fn a_later_traffic_time_completes_the_entry() {
        let mut ledger = ping_pong(1..=2);
        let mut again = ledger.entries[&2].clone();
        again.traffic_ms = Some(9);
        ledger.record(again);
        assert_eq!(ledger.entries[&2].traffic_ms, Some(9));
        assert_eq!(ledger.cluster_counts().failovers, 1);
    }

    #[test]
    fn a_status_carries_the_whole_ledger() {
        let mut ledger = ping_pong(1..=50);
        ledger.own.insert(
            "a".into(),
            OwnCounts {
                asterisk_restarts: 7,
                suppressed: 2,
            },
        );
        let nodes = ["a", "b"].map(|name| NodeStatus {
            name: name.into(),
            state: NodeState::Standby,
            detail: "Ready".into(),
            since: None,
            epoch: None,
            address: None,
            node_name: None,
            asterisk: None,
            health: None,
            links: vec![],
            last_cause: None,
            counts: ledger.node_counts(name),
        });
        let status = PbxClusterStatus {
            nodes: nodes.into(),
            failover_history: ledger.history(),
            counts: ledger.cluster_counts(),
            ..PbxClusterStatus::default()
        };
        let read = Ledger::from_status(&status);
        assert_eq!(read.cluster_counts(), ledger.cluster_counts());
        assert_eq!(read.node_counts("a"), ledger.node_counts("a"));
        assert_eq!(read.entries, ledger.entries);
    }
}
