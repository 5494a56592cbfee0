//! What the witness Lease says, as the JSON of its annotation ([`crate::names::LEASE_ANNOTATION`]).
//!
//! The twin of the core's Lease content: the operator makes it and reads the seats, the sidecars do the rest. No rules here.

use serde::{Deserialize, Serialize};

use crate::status::WitnessStatus;

/// How long the pseudo-holder of a new Lease is observed: the longest hold that any node may have had (R9).
pub const LONGEST_HOLD_MS: u64 = 15_000;

/// The content of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuorumRecord {
    /// Who holds the witness.
    pub holder: HolderRecord,
    /// The highest epoch that was written.
    pub epoch: u64,
    /// How long the holder counts on it, in milliseconds.
    pub hold_ms: u64,
    /// Who sits where.
    pub seats: SeatsRecord,
}

/// Who holds the witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum HolderRecord {
    /// Free.
    Nobody,
    /// The operator made the Lease anew.
    Created,
    /// A node, in one life.
    Node {
        /// Its seat.
        seat: u8,
        /// UID of its pod.
        occupant: String,
        /// Its life.
        incarnation: u64,
    },
}

/// The seats: `occupants` and `requested` have `count` entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeatsRecord {
    /// The configured number of nodes.
    pub count: u8,
    /// UID of the pod in each seat; null: nobody.
    pub occupants: Vec<Option<String>>,
    /// Whether the occupant was asked to leave for good.
    pub requested: Vec<bool>,
}

impl SeatsRecord {
    /// `count` empty seats.
    pub fn empty(count: u8) -> Self {
        Self {
            count,
            occupants: vec![None; usize::from(count)],
            requested: vec![false; usize::from(count)],
        }
    }

    /// The map that a status remembers, for a Lease made again (R9): requests stay requests.
    pub fn from_status(status: &WitnessStatus) -> Self {
        let mut map = Self::empty(status.seats.len() as u8);
        for (seat, occupant) in map.occupants.iter_mut().enumerate() {
            *occupant = status
                .seats
                .get(seat)
                .filter(|uid| !uid.is_empty())
                .cloned();
        }
        for (seat, requested) in map.requested.iter_mut().enumerate() {
            *requested = status.requested.iter().any(|one| usize::from(*one) == seat);
        }
        map
    }
}

impl QuorumRecord {
    /// The content of the very first Lease of a cluster: free, since nobody can count on an earlier one. The status says
    /// that a Lease was made *before* it is made, so this is written once in a cluster's life.
    pub fn first(count: u8) -> Self {
        Self {
            holder: HolderRecord::Nobody,
            ..Self::created(0, SeatsRecord::empty(count))
        }
    }

    /// The content of a Lease that was made again, from what the status remembers. Everyone observes it before taking it (R9),
    /// unless its number of seats is odd, and was before: then nobody held the lost one.
    pub fn made_again(epoch: u64, status: &WitnessStatus) -> Self {
        let made = Self::created(epoch, SeatsRecord::from_status(status));
        if made.seats.count.is_multiple_of(2) || status.resizing {
            return made;
        }
        Self {
            holder: HolderRecord::Nobody,
            ..made
        }
    }

    /// The content of a Lease that everyone observes before taking it (R9).
    pub fn created(epoch: u64, seats: SeatsRecord) -> Self {
        Self {
            holder: HolderRecord::Created,
            epoch,
            hold_ms: LONGEST_HOLD_MS,
            seats,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_lease_reads_as_documented() {
        let record = QuorumRecord::created(0, SeatsRecord::empty(2));
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "holder": {"kind": "Created"}, "epoch": 0, "holdMs": 15000,
                "seats": {"count": 2, "occupants": [null, null], "requested": [false, false]}
            })
        );
    }

    #[test]
    fn the_first_lease_is_free_and_one_made_again_is_not() {
        assert_eq!(QuorumRecord::first(2).holder, HolderRecord::Nobody);
        let again = QuorumRecord::created(7, SeatsRecord::empty(2));
        assert_eq!(again.holder, HolderRecord::Created);
    }

    #[test]
    fn a_lease_made_again_is_free_only_where_nobody_can_have_held_the_lost_one() {
        let made = |count: usize, resizing: bool| {
            let status = WitnessStatus {
                seats: vec![String::new(); count],
                resizing,
                ..WitnessStatus::default()
            };
            QuorumRecord::made_again(7, &status).holder
        };
        assert_eq!(made(3, false), HolderRecord::Nobody);
        assert_eq!(made(3, true), HolderRecord::Created);
        assert_eq!(made(2, false), HolderRecord::Created);
    }

    #[test]
    fn a_map_from_the_status_keeps_occupants_and_requests() {
        let status = WitnessStatus {
            seats: vec!["uid-a".into(), String::new(), String::new()],
            requested: vec![0],
            ..WitnessStatus::default()
        };
        let map = SeatsRecord::from_status(&status);
        assert_eq!(map.occupants, [Some("uid-a".to_owned()), None, None]);
        assert_eq!(map.requested, [true, false, false]);
    }
}
