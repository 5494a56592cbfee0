//! What a handover leads to when its messages come late.

use std::time::Duration;

use pbx_core::{Body, Cause, Command, Epoch, GuardEvent, Input, Notice, Refusal, Seat};
use pbx_model::desk::Desk;

/// Of an heir that has served meanwhile, or lost to another, the end is no switchover any more: each is counted once.
#[test]
fn r12_a_handover_that_is_declined_late_is_no_switchover_any_more() {
    let switchover = Input::Command(Command::Switchover {
        to: None,
        cause: Cause::Switchover,
    });
    let refusal = Body::Nack {
        because: Refusal::Committed,
    };
    for (is_late, expected) in [(false, Cause::Switchover), (true, Cause::NodeSilent)] {
        let mut desk = Desk::active();
        desk.input(switchover);
        desk.input(Input::Guard(GuardEvent::Stopped));
        let mut to_heir = desk.sent().filter(|sent| sent.to == Seat(1));
        let handed_over = to_heir.next().expect("a handover").epoch;
        drop(to_heir);
        if is_late {
            desk.hear(2, Epoch(handed_over.0 + 5), refusal);
        }
        desk.hear(1, handed_over, Body::Release);
        desk.become_ready();
        for _ in 0..100 {
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
        let is_promoted = |notice: &Notice| matches!(notice, Notice::Promoted { cause, .. } if *cause == expected);
        assert!(
            desk.notices().iter().any(is_promoted),
            "{:?}",
            desk.notices()
        );
    }
}
