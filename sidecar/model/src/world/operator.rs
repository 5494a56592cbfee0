//! What the operator and the StatefulSet do in the world: seats of the dead, the number of seats, a Lease made anew.

use std::cmp::Ordering;
use std::time::Duration;

use pbx_core::{Holder, LeaseContent, MAX_NODES, Seats};

use super::event::Event;
use super::pod::Pod;
use super::{MS, SECOND, World};

impl World {
    /// The operator: a requested seat whose occupant is certainly dead for long enough is emptied (R13 2c).
    pub(super) fn operate(&mut self) {
        self.at(self.now + 500 * MS, Event::Operator);
        self.hear_epochs();
        let Some(lease) = self.api.lease else { return };
        let (uid, version, _) = self.lease_watched;
        if (uid, version) != (lease.uid, lease.version) {
            self.lease_watched = (lease.uid, lease.version, self.now);
        }
        self.remember(&lease.content.seats);
        self.resize(&lease.content);
        let patience = 2 * self.timing.quarantine().as_nanos() as u64;
        for seat in 0..usize::from(lease.content.seats.count) {
            let Some(occupant) = lease.content.seats.occupants[seat] else {
                continue;
            };
            let pod = self
                .pods
                .iter()
                .find(|pod| pod.occupant == occupant)
                .expect("a pod");
            let is_gone = pod
                .dead_since
                .is_some_and(|since| self.now > since + patience);
            let is_superfluous = seat >= usize::from(self.wanted_nodes);
            if is_gone && (lease.content.seats.requested[seat] || is_superfluous) {
                self.api.vacate(seat, occupant);
            }
        }
    }

    /// What the sidecars that it reaches report of the active.
    fn hear_epochs(&mut self) {
        let reaches = |pod: &&Pod| pod.paused_until <= self.now && pod.api_cut_until <= self.now;
        let reporting = self.pods.iter().filter(reaches);
        let views = reporting.filter_map(|pod| {
            let node = pod.node.as_ref()?;
            node.view(pod.clock.local(self.now)).epoch
        });
        let newest = views.max().unwrap_or_default();
        self.status_epoch = self.status_epoch.max(newest);
    }

    /// A number that is about to be written stands in the status first; not when somebody has taken a seat that goes since then.
    fn remember(&mut self, seats: &Seats) {
        let count = self.status.count;
        self.status = *seats;
        let mut going = usize::from(count)..usize::from(seats.count);
        let is_over = self.resizes_early || going.all(|seat| seats.occupants[seat].is_none());
        if count == self.wanted_nodes && is_over {
            self.status.count = count;
        }
        self.is_status_ahead = self.status.count != seats.count;
    }

    /// The operator brings the number of seats to what is wanted (R13): over a free Lease, or when the last seat is empty.
    fn resize(&mut self, content: &LeaseContent) {
        let (count, wanted) = (content.seats.count, self.wanted_nodes);
        let last = content.seats.count - 1;
        let is_due = match wanted.cmp(&count) {
            Ordering::Equal => {
                self.end_pods_above(last);
                return self.make_last_pod(last);
            }
            _ if self.resizes_early => true,
            Ordering::Greater => {
                content.holder == Holder::Nobody || self.is_hold_over(content.hold)
            }
            Ordering::Less => {
                let is_empty = content.seats.occupants[usize::from(last)].is_none();
                if self.is_inhabited(last) {
                    self.roll(self.pod_in(last));
                }
                is_empty && !self.is_inhabited(last)
            }
        };
        if !is_due {
            return;
        }
        if self.status.count != wanted {
            self.status.count = wanted;
            self.is_status_ahead = true;
            return;
        }
        self.api.set_count(wanted);
    }

    /// R9: the operator has seen the Lease unchanged for longer than any holder counts it.
    fn is_hold_over(&self, hold: Duration) -> bool {
        let (.., since) = self.lease_watched;
        let longest = self.timing.observed_hold(hold).as_nanos() as u64;
        self.now - since > longest * 102 / 100
    }

    /// As the StatefulSet does once it has one pod more.
    fn make_last_pod(&mut self, seat: u8) {
        if self.has_resized && !self.is_inhabited(seat) {
            let at = self.now + self.random.between(100 * MS, 2 * SECOND);
            self.at(at, Event::NewPod { seat });
        }
    }

    /// As the StatefulSet does with a pod that was on its way when it got a lower number: it never had a seat.
    fn end_pods_above(&mut self, last: u8) {
        for seat in last + 1..MAX_NODES as u8 {
            if self.is_inhabited(seat) {
                self.roll(self.pod_in(seat));
            }
        }
    }

    /// From the copy in the status, which may be older than what was lost.
    pub fn new_lease(&mut self) {
        if self.api.lease.is_none() {
            self.departures += 1;
            let is_odd = !self.status.count.is_multiple_of(2);
            let hold = self.timing.witness_hold_alone;
            self.api.create(self.status, self.status_epoch, hold);
            if is_odd && !self.is_status_ahead {
                self.api.free();
            }
        }
    }
}
