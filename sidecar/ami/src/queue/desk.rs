//! What is done next with which record: the queue without its file, its clock and its threads.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::record::{Arrival, Record, State};
use crate::class::Classes;
use crate::hub::{Outcome, Submission};

/// Actions under way at a time.
pub(super) const UNDER_WAY_LIMIT: usize = 64;
/// Actions that wait; beyond it none is taken.
pub(super) const WAITING_LIMIT: usize = 100_000;
/// Ended records that are kept, and for how long.
pub(super) const KEPT_LIMIT: usize = 10_000;
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// The records that have not ended, and which have.
#[derive(Debug, Default)]
pub(super) struct Desk {
    next_id: u64,
    open: BTreeMap<u64, Record>,
    ready: BTreeSet<u64>,
    busy_lanes: HashSet<String>,
    under_way: usize,
    /// Ended ones, oldest first, with their time.
    ended: BTreeMap<u64, u64>,
    changed: HashSet<u64>,
}

/// What a batch has changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// To be written before anything else.
    pub(super) records: Vec<Record>,
    /// To be forgotten.
    pub(super) forgotten: Vec<u64>,
    /// To be sent, once that is on disk.
    pub(super) submissions: Vec<Submission>,
}

impl Desk {
    /// What an earlier life left: whatever may have left then is unknown now. Those records are to be written.
    pub(super) fn load(records: Vec<Record>, now_ms: u64) -> (Self, Vec<Record>) {
        let mut desk = Self::default();
        let mut unknown = Vec::new();
        for mut record in records {
            desk.next_id = desk.next_id.max(record.id + 1);
            if record.state == State::Sent {
                record.error = Some("the sidecar was restarted between the action and its answer; it is not repeated".into());
                record.enter(State::Unknown, now_ms);
                unknown.push(record.clone());
            }
            if record.state.is_final() {
                desk.ended.insert(record.id, record.changed_ms);
            } else {
                desk.ready.insert(record.id);
                desk.open.insert(record.id, record);
            }
        }
        (desk, unknown)
    }

    /// Takes actions in, all or none. `None`: too many wait.
    pub(super) fn arrive(
        &mut self,
        arrivals: &[Arrival],
        lane: Option<&str>,
        now_ms: u64,
    ) -> Option<Vec<u64>> {
        if self.open.len() + arrivals.len() > WAITING_LIMIT {
            return None;
        }
        let mut ids = Vec::new();
        for arrival in arrivals {
            let id = self.next_id;
            self.next_id += 1;
            self.open.insert(id, Record::new(id, arrival, lane, now_ms));
            self.changed.insert(id);
            ids.push(id);
        }
        Some(ids)
    }

    /// An action has ended.
    pub(super) fn end(&mut self, outcome: &Outcome, now_ms: u64) {
        let Some(record) = self.open.get_mut(&outcome.number) else {
            return;
        };
        record.close(outcome, now_ms);
        self.under_way -= 1;
        if let Some(lane) = &record.lane {
            self.busy_lanes.remove(lane);
        }
        self.changed.insert(outcome.number);
    }

    /// Chooses what goes next if there is an Asterisk, and gives everything that this and the inputs before have changed. Ended records leave memory.
    pub(super) fn settle(&mut self, may_send: bool, now_ms: u64) -> Changes {
        let mut changes = Changes::default();
        for id in &self.changed {
            if let Some(record) = self
                .open
                .get_mut(id)
                .filter(|record| record.state == State::New)
            {
                record.enter(State::Ready, now_ms);
                self.ready.insert(*id);
            }
        }
        while may_send
            && self.under_way < UNDER_WAY_LIMIT
            && let Some(id) = self.next_ready()
        {
            changes.submissions.push(self.send(id, now_ms));
        }
        for id in std::mem::take(&mut self.changed) {
            let Some(record) = self.open.get(&id) else {
                continue;
            };
            let is_final = record.state.is_final();
            changes.records.push(record.clone());
            if is_final {
                self.open.remove(&id);
                self.ended.insert(id, now_ms);
            }
        }
        changes.forgotten = self.forget(now_ms);
        changes
    }

    /// The oldest whose lane is free.
    fn next_ready(&self) -> Option<u64> {
        let is_free = |id: &&u64| {
            let lane = self.open.get(id).and_then(|record| record.lane.as_ref());
            lane.is_none_or(|lane| !self.busy_lanes.contains(lane))
        };
        self.ready.iter().find(is_free).copied()
    }

    fn send(&mut self, id: u64, now_ms: u64) -> Submission {
        self.ready.remove(&id);
        let record = self.open.get_mut(&id).expect("what is ready is open");
        record.enter(State::Sent, now_ms);
        self.busy_lanes.extend(record.lane.clone());
        self.under_way += 1;
        self.changed.insert(id);
        Submission {
            number: id,
            action: record.wire(),
            write: Classes::from_bits(record.write),
        }
    }

    fn forget(&mut self, now_ms: u64) -> Vec<u64> {
        let mut forgotten = Vec::new();
        while let Some((id, ended_ms)) = self.ended.first_key_value() {
            let is_old = now_ms.saturating_sub(*ended_ms) > KEPT_MS;
            if !is_old && self.ended.len() <= KEPT_LIMIT {
                break;
            }
            forgotten.push(*id);
            self.ended.pop_first();
        }
        forgotten
    }

    /// A record that has not ended.
    pub(super) fn open(&self, id: u64) -> Option<&Record> {
        self.open.get(&id)
    }

    /// Whether a record of this lane has not ended.
    pub(super) fn is_lane_open(&self, lane: &str) -> bool {
        self.open
            .values()
            .any(|record| record.lane.as_deref() == Some(lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::End;

    fn arrival(text: &str) -> Arrival {
        Arrival::new(vec![text.to_owned()], Classes::ALL).unwrap()
    }

    fn done(number: u64) -> Outcome {
        Outcome {
            number,
            end: End::Answered { is_success: true },
            answer: b"Response: Success\r\nUniqueid: 1.2\r\n\r\n".to_vec(),
        }
    }

    #[test]
    fn it_is_sent_on_disk_before_it_is_sent() {
        let mut desk = Desk::default();
        desk.arrive(&[arrival("Action: Ping")], None, 5).unwrap();
        let changes = desk.settle(true, 6);
        assert_eq!(changes.submissions[0].action, b"Action: Ping\r\n\r\n");
        assert_eq!(changes.records[0].state, State::Sent);
        desk.end(&done(0), 7);
        let record = desk.settle(true, 8).records.remove(0);
        assert_eq!(
            (record.state, record.uniqueid.as_deref()),
            (State::Done, Some("1.2"))
        );
        assert!(desk.open(0).is_none());
    }

    #[test]
    fn a_lane_has_one_under_way_and_others_pass_it() {
        let mut desk = Desk::default();
        let two = [arrival("Action: One"), arrival("Action: Two")];
        desk.arrive(&two, Some("a"), 0).unwrap();
        desk.arrive(&[arrival("Action: Three")], None, 0).unwrap();
        let sent = |desk: &mut Desk| -> Vec<u64> {
            desk.settle(true, 0)
                .submissions
                .iter()
                .map(|one| one.number)
                .collect()
        };
        assert_eq!(sent(&mut desk), [0, 2]);
        desk.end(&done(0), 1);
        assert!(desk.is_lane_open("a"));
        assert_eq!(sent(&mut desk), [1]);
        desk.end(&done(1), 1);
        sent(&mut desk);
        assert!(!desk.is_lane_open("a"));
    }

    #[test]
    fn after_a_restart_what_may_have_left_is_unknown_and_the_rest_goes_once() {
        let mut desk = Desk::default();
        let many = vec![arrival("Action: Ping"); UNDER_WAY_LIMIT + 2];
        desk.arrive(&many, None, 0).unwrap();
        let records = desk.settle(true, 0).records;
        assert_eq!(records.len(), many.len());
        let (mut desk, unknown) = Desk::load(records, 9);
        assert_eq!(unknown.len(), UNDER_WAY_LIMIT);
        assert!(unknown.iter().all(|record| record.state == State::Unknown));
        assert_eq!(desk.settle(true, 9).submissions.len(), 2);
        let id = desk.arrive(&many[..1], None, 9).unwrap()[0];
        assert_eq!(id, many.len() as u64);
    }

    #[test]
    fn ended_records_are_forgotten_by_number_and_age() {
        let mut desk = Desk::default();
        for _ in 0..KEPT_LIMIT + 10 {
            let id = desk.arrive(&[arrival("Action: Ping")], None, 0).unwrap()[0];
            desk.settle(true, 0);
            desk.end(&done(id), 0);
        }
        assert!(!desk.settle(true, 1).forgotten.is_empty());
        assert_eq!(desk.settle(true, KEPT_MS + 2).forgotten.len(), KEPT_LIMIT);
    }

    #[test]
    fn a_line_end_begins_no_action_of_its_own() {
        let bad = Arrival::new(
            vec!["Action: Ping\r\n\r\nAction: Logoff".into()],
            Classes::ALL,
        );
        assert!(bad.unwrap_err().contains("line end"));
        assert!(Arrival::new(vec!["X: y".into()], Classes::ALL).is_err());
    }
}
