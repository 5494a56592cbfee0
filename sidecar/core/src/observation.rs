//! The Lease as watched: since when it is unchanged (R9).

use serde::{Deserialize, Serialize};

use crate::{BootTime, LeaseView};

/// What was read, and since when it has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observation {
    pub(crate) lease: LeaseView,
    /// When the answer of the first read of this very version arrived.
    pub(crate) since: BootTime,
    /// No call has failed since: a write may be based on it (R14).
    pub(crate) is_fresh: bool,
}

impl Observation {
    pub(crate) fn new(now: BootTime, lease: &LeaseView) -> Self {
        Self {
            lease: *lease,
            since: now,
            is_fresh: true,
        }
    }

    /// Another answer. An older version of the same object says nothing and changes nothing.
    pub(crate) fn update(&mut self, now: BootTime, lease: &LeaseView) {
        let is_same_object = lease.uid == self.lease.uid;
        if is_same_object && lease.version < self.lease.version {
            return;
        }
        let is_unchanged = is_same_object && lease.version == self.lease.version;
        let since = if is_unchanged { self.since } else { now };
        *self = Self {
            lease: *lease,
            since,
            is_fresh: true,
        };
    }
}
