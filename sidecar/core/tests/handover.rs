//! What a handover leads to when its messages come late.

use std::time::Duration;

use pbx_core::{Body, Cause, Command, Epoch, GuardEvent, Input, Notice, Refusal, Seat};
use pbx_model::desk::Desk;

/// What becomes of the heir before this node serves again.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It declines.
    Declines,
    /// It declines, and a later bid was heard of.
    DeclinesLate,
    /// It releases the vote under a later epoch than it was given.
    EndsLater,
    /// Nobody hears of it, since this node stood still for longer than its vote lasts.
    Unheard,
}

/// Of an heir that has served meanwhile, or lost to another, the end is no switchover any more: each is counted once.
#[test]
fn r12_an_heir_that_may_have_served_leaves_no_switchover_behind() {
    for (fate, expected) in [
        (Fate::Declines, Cause::Switchover),
        (Fate::DeclinesLate, Cause::NodeSilent),
        (Fate::EndsLater, Cause::NodeSilent),
        (Fate::Unheard, Cause::NodeSilent),
    ] {
        let (mut desk, handed_over) = handed_over();
        let later = Epoch(handed_over.0 + 5);
        match fate {
            Fate::Declines => desk.hear(1, handed_over, Body::Release),
            Fate::DeclinesLate => {
                let because = Refusal::Committed;
                desk.hear(2, later, Body::Nack { because });
                desk.hear(1, handed_over, Body::Release);
            }
            Fate::EndsLater => desk.hear(1, later, Body::Release),
            Fate::Unheard => {
                desk.now = desk.now.after(Duration::from_secs(1));
                desk.input(Input::Tick);
            }
        }
        assert_eq!(cause_of_next(&mut desk), expected, "{fate:?}");
    }
}

/// An active that has handed over, and the epoch it gave.
fn handed_over() -> (Desk, Epoch) {
    let mut desk = Desk::active();
    let (to, cause) = (None, Cause::Switchover);
    desk.input(Input::Command(Command::Switchover { to, cause }));
    desk.input(Input::Guard(GuardEvent::Stopped));
    let mut to_heir = desk.sent().filter(|sent| sent.to == Seat(1));
    let handed_over = to_heir.next().expect("a handover").epoch;
    drop(to_heir);
    (desk, handed_over)
}

/// What its next promotion is told to be because of.
fn cause_of_next(desk: &mut Desk) -> Cause {
    desk.become_ready();
    for _ in 0..200 {
        if desk.view().epoch.is_none() {
            desk.pass(1);
        }
    }
    let epoch = desk.view().epoch.expect("it bids again");
    let beat_sent_at = desk.now;
    desk.hear(1, epoch, Body::Ack { beat_sent_at });
    desk.hear(2, epoch, Body::Ack { beat_sent_at });
    let deadline = beat_sent_at.after(Duration::from_millis(700));
    desk.input(Input::Guard(GuardEvent::Armed { deadline }));
    let cause = |notice: &Notice| match notice {
        Notice::Promoted { cause, .. } => Some(*cause),
        _ => None,
    };
    desk.notices()
        .iter()
        .find_map(cause)
        .expect("it is promoted")
}

/// A third hears that the active leaves, after another has bid: if nobody comes, that one may have served.
#[test]
fn r6_a_pods_end_is_planned_until_another_has_bid() {
    for (other_bid, expected) in [(false, Cause::PodDeleted), (true, Cause::QuorumLost)] {
        let mut desk = Desk::hot_standby(3);
        let epoch = Epoch(5);
        desk.hear(1, epoch, Body::Beat { is_active: true });
        desk.hear(1, epoch, Body::Leave);
        if other_bid {
            let because = Refusal::Committed;
            desk.hear(2, Epoch(8), Body::Nack { because });
        }
        desk.hear(1, epoch, Body::Release);
        assert_eq!(cause_of_next(&mut desk), expected);
    }
}
