//! The number of seats: brought from what the Lease has to `spec.nodes`, one compare-and-swap at the right moment (R13). Pure.
//!
//! Between 2 and 3, and between 4 and 5: there the quorum stays, and one vote goes from the witness to a node, or back. It may go only
//! when it is certainly over: the Lease is free, or seen unchanged for longer than its holder counts it (a life that is gone may have left it), or the last seat empty and its pod gone. The status has the new number first, so that
//! a Lease lost in between is made again with it.

use std::time::Duration;

use pbx_crds::names;
use pbx_crds::quorum::{HolderRecord, QuorumRecord};
use pbx_crds::status::WitnessStatus;

use super::SeatStep;
use crate::observe::facts::Observed;

/// The number that the copy in the status has: the Lease's, or the one that was about to be written. Whoever took a seat that goes
/// since then has a vote: a Lease made again without it would give that vote to the witness as well.
pub fn remembered(record: &QuorumRecord, old: &WitnessStatus, wanted: u8) -> u8 {
    let is_empty = |seat| is_empty(seat, record);
    let was_about_to = old.seats.len() == usize::from(wanted);
    if was_about_to && (wanted..record.seats.count).all(is_empty) {
        wanted
    } else {
        record.seats.count
    }
}

/// The next step towards the wanted number; `None`: nothing to do, or something is awaited.
pub fn next_step(
    record: &QuorumRecord,
    status: &WitnessStatus,
    observed: &Observed,
    unchanged_for: Duration,
) -> Option<SeatStep> {
    let (count, wanted) = (record.seats.count, observed.nodes);
    if count == wanted || voters(count) != voters(wanted) {
        return None;
    }
    let is_over = if wanted > count {
        record.holder == HolderRecord::Nobody || unchanged_for > longest_count(record.hold_ms)
    } else {
        (wanted..count).all(|seat| is_given_up(seat, record, observed))
    };
    if !is_over {
        return None;
    }
    if status.seats.len() != usize::from(wanted) {
        return Some(SeatStep::Remember(with_count(status, wanted)));
    }
    Some(SeatStep::Resize(wanted))
}

/// The same map with another number of seats; new ones are empty. Of an odd number nobody holds the witness.
pub fn resize(record: &mut QuorumRecord, count: u8) {
    if count > record.seats.count {
        record.holder = HolderRecord::Nobody;
    }
    let seats = &mut record.seats;
    seats.count = count;
    seats.occupants.resize(count.into(), None);
    seats.requested.resize(count.into(), false);
}

/// What the change of the number waits for; `None`: the number is the wanted one.
pub fn awaited(observed: &Observed) -> Option<String> {
    let witness = observed.status.witness.as_ref()?;
    let (count, wanted) = (witness.seats.len(), observed.nodes);
    if count == usize::from(wanted) {
        return None;
    }
    if count < usize::from(wanted) {
        return Some(format!(
            "spec.nodes is {wanted}, {count} have seats: waiting for Lease {} to be free, which it is once both nodes hear each other",
            witness.lease
        ));
    }
    let name = names::pod(&observed.name, wanted);
    Some(format!(
        "spec.nodes is {wanted}, {count} have seats: waiting for {name} to give up its seat; if its machine is gone for good, \
         delete its Node object, or taint it node.kubernetes.io/out-of-service"
    ))
}

fn is_given_up(seat: u8, record: &QuorumRecord, observed: &Observed) -> bool {
    let name = names::pod(&observed.name, seat);
    is_empty(seat, record) && !observed.pods.contains_key(&name)
}

fn is_empty(seat: u8, record: &QuorumRecord) -> bool {
    let occupant = record.seats.occupants.get(usize::from(seat));
    occupant.is_none_or(Option::is_none)
}

fn with_count(status: &WitnessStatus, count: u8) -> WitnessStatus {
    let mut changed = status.clone();
    changed.resizing = true;
    changed.seats.resize(count.into(), String::new());
    changed.node_names.resize(count.into(), String::new());
    changed.requested.retain(|seat| *seat < count);
    changed
}

/// R9: longer than the holder counts it by its own clock, which may be slower than ours by 1 % and a bit.
fn longest_count(hold_ms: u64) -> Duration {
    Duration::from_millis(hold_ms) * 21 / 20
}

fn voters(count: u8) -> u8 {
    count + u8::from(count.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::observed;

    const SHORT: Duration = Duration::from_secs(1);

    fn record(holder: HolderRecord, occupants: &[&str]) -> QuorumRecord {
        let mut record = QuorumRecord::first(occupants.len() as u8);
        record.holder = holder;
        for (seat, uid) in occupants.iter().enumerate() {
            record.seats.occupants[seat] = (!uid.is_empty()).then(|| (*uid).to_owned());
        }
        record
    }

    fn status(count: usize) -> WitnessStatus {
        WitnessStatus {
            lease: "office-witness".into(),
            seats: vec!["u".into(); count],
            node_names: vec!["kube-0".into(); count],
            ..WitnessStatus::default()
        }
    }

    fn wanting(nodes: u8) -> Observed {
        Observed {
            nodes,
            ..observed()
        }
    }

    #[test]
    fn who_takes_a_seat_that_goes_is_not_forgotten() {
        let ahead = status(2);
        let empty = record(HolderRecord::Nobody, &["a", "b", ""]);
        assert_eq!(remembered(&empty, &ahead, 2), 2);
        let taken = record(HolderRecord::Nobody, &["a", "b", "c"]);
        assert_eq!(remembered(&taken, &ahead, 2), 3);
        assert_eq!(
            remembered(&taken, &status(4), 4),
            4,
            "seats that come are empty"
        );
    }

    #[test]
    fn a_node_more_waits_for_a_free_lease_and_stands_in_the_status_first() {
        let held = HolderRecord::Node {
            seat: 0,
            occupant: "a".into(),
            incarnation: 1,
        };
        for holder in [held, HolderRecord::Created] {
            let record = record(holder, &["a", "b"]);
            assert_eq!(next_step(&record, &status(2), &wanting(3), SHORT), None);
            let long = Duration::from_secs(16);
            assert!(next_step(&record, &status(2), &wanting(3), long).is_some());
        }
        let free = record(HolderRecord::Nobody, &["a", "b"]);
        let Some(SeatStep::Remember(first)) = next_step(&free, &status(2), &wanting(3), SHORT)
        else {
            panic!("the status comes first");
        };
        assert_eq!((first.seats.len(), first.node_names.len()), (3, 3));
        let step = next_step(&free, &first, &wanting(3), SHORT);
        assert_eq!(step, Some(SeatStep::Resize(3)));
        let mut grown = free;
        resize(&mut grown, 3);
        let seats = grown.seats;
        assert_eq!((seats.count, seats.occupants[2].clone()), (3, None));
    }

    #[test]
    fn a_node_less_waits_for_its_seat_and_its_pod() {
        let seated = record(HolderRecord::Nobody, &["a", "b", "c"]);
        assert_eq!(next_step(&seated, &status(3), &wanting(2), SHORT), None);
        let empty = record(HolderRecord::Nobody, &["a", "b", ""]);
        let mut with_pod = wanting(2);
        let mut pod = with_pod.pods["office-0"].clone();
        pod.name = "office-2".into();
        with_pod.pods.insert(pod.name.clone(), pod);
        assert_eq!(next_step(&empty, &status(3), &with_pod, SHORT), None);
        assert!(matches!(
            next_step(&empty, &status(3), &wanting(2), SHORT),
            Some(SeatStep::Remember(_))
        ));
        let step = next_step(&empty, &status(2), &wanting(2), SHORT);
        assert_eq!(step, Some(SeatStep::Resize(2)));
    }

    #[test]
    fn another_quorum_is_never_written() {
        let free = record(HolderRecord::Nobody, &["a", "b", ""]);
        assert_eq!(next_step(&free, &status(4), &wanting(4), SHORT), None);
    }

    #[test]
    fn a_number_that_is_about_to_be_written_stays_in_the_status() {
        let two = record(HolderRecord::Nobody, &["a", "b"]);
        assert_eq!(remembered(&two, &status(3), 3), 3);
        assert_eq!(remembered(&two, &status(3), 2), 2);
        assert_eq!(remembered(&two, &status(2), 3), 2);
    }

    #[test]
    fn what_is_awaited_says_what_to_do() {
        let mut observed = wanting(3);
        observed.status.witness = Some(status(2));
        assert!(awaited(&observed).unwrap().contains("office-witness"));
        observed.nodes = 2;
        assert_eq!(awaited(&observed), None);
        observed.status.witness = Some(status(3));
        assert!(awaited(&observed).unwrap().contains("office-2"));
    }
}
