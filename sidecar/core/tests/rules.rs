//! One test, or more, for each rule of the protocol: the situation, and what comes of it. R13 is in seats.rs.

use std::time::Duration;

use pbx_core::{
    ApiAnswer, ApiCall, Body, BootTime, Cause, Command, Condition, Effect, Epoch, FoundAtStart,
    GuardEvent, Holder, Incarnation, Input, LeaseContent, LeaseView, Notice, Occupant, Refusal,
    Role, Seat, Suppression, Timing,
};
use pbx_model::desk::{Desk, record, seats};
use pbx_model::world::faults::Fault;
use pbx_model::world::{SECOND, World};

fn lease(version: u64, holder: Holder, hold: Duration) -> LeaseView {
    let content = LeaseContent {
        holder,
        epoch: Epoch(0),
        hold,
        seats: seats(2),
    };
    LeaseView {
        uid: 1,
        version,
        content,
    }
}

fn peer_holds() -> Holder {
    Holder::Node {
        seat: Seat(1),
        occupant: Occupant(1),
        incarnation: Incarnation(1),
    }
}

fn refusal(because: Refusal) -> Body {
    Body::Nack { because }
}

fn switchover() -> Input {
    Input::Command(Command::Switchover {
        to: None,
        cause: Cause::Switchover,
    })
}

#[test]
fn r1_a_candidate_counts_less_than_a_voter_keeps_and_a_newcomer_waits_longer() {
    let timing = Timing::default();
    let slow_voter = timing.deadtime.mul_f64(1.0 / 1.005);
    let fast_candidate = timing.counted_grant().mul_f64(1.0 / 0.995);
    assert!(fast_candidate <= slow_voter);
    assert!(timing.quarantine() >= timing.deadtime.mul_f64(1.005 / 0.995));
}

#[test]
fn r2_votes_count_from_the_send_time_of_the_beat() {
    let mut desk = Desk::bidding(3);
    let epoch = desk.view().epoch.unwrap();
    let sent_at = desk.now;
    desk.pass(50);
    desk.hear(
        1,
        epoch,
        Body::Ack {
            beat_sent_at: sent_at,
        },
    );
    let expected = sent_at.after(Timing::default().counted_grant());
    assert_eq!(desk.view().authority_until, expected);
}

#[test]
fn r2_an_echo_from_the_future_counts_nothing() {
    let mut desk = Desk::bidding(3);
    let epoch = desk.view().epoch.unwrap();
    let future = desk.now.after(Duration::from_millis(1));
    desk.hear(
        1,
        epoch,
        Body::Ack {
            beat_sent_at: future,
        },
    );
    assert_eq!(desk.view().authority_until, BootTime(0));
}

#[test]
fn r3_the_deadline_is_the_authority_less_the_kill_and_serving_waits_for_its_confirmation() {
    let mut desk = Desk::bidding(3);
    let epoch = desk.view().epoch.unwrap();
    let sent_at = desk.now;
    desk.hear(
        1,
        epoch,
        Body::Ack {
            beat_sent_at: sent_at,
        },
    );
    let deadline = desk.armed().unwrap();
    assert_eq!(
        deadline,
        desk.view()
            .authority_until
            .before(Timing::default().kill_margin)
    );
    assert_eq!(desk.view().role, Role::Bidding);
    desk.input(Input::Guard(GuardEvent::Armed { deadline }));
    assert_eq!(desk.view().role, Role::Active);
}

#[test]
fn r3_a_confirmation_that_comes_too_late_promotes_nobody() {
    let mut desk = Desk::bidding(3);
    let epoch = desk.view().epoch.unwrap();
    let sent_at = desk.now;
    desk.hear(
        1,
        epoch,
        Body::Ack {
            beat_sent_at: sent_at,
        },
    );
    let deadline = desk.armed().unwrap();
    desk.pass(720);
    desk.input(Input::Guard(GuardEvent::Armed { deadline }));
    assert_ne!(desk.view().role, Role::Active);
}

#[test]
fn r4_nothing_is_given_up_before_the_stop_is_confirmed() {
    let mut desk = Desk::active();
    desk.input(switchover());
    assert_eq!(desk.effects, vec![Effect::Stop]);
    assert_eq!(desk.view().role, Role::Stopping);
    desk.effects.clear();
    desk.pass(100);
    let gives_up = |body: &Body| matches!(body, Body::Handover { .. } | Body::Release);
    assert!(!desk.sent().any(|sent| gives_up(&sent.body)));
    desk.input(Input::Guard(GuardEvent::Stopped));
    assert!(matches!(desk.sent_to(1)[..], [Body::Handover { .. }]));
    assert_eq!(desk.sent_to(2), vec![Body::Release]);
}

#[test]
fn r4_the_passed_deadline_of_the_kernel_confirms_a_stop_that_the_guard_does_not() {
    let mut desk = Desk::active();
    let deadline = desk.view().deadline.unwrap();
    desk.input(switchover());
    let killed_by = deadline.after(Timing::default().kill_margin);
    desk.pass((killed_by.since(desk.now).as_millis()) as u64);
    assert_eq!(desk.view().role, Role::Stopping);
    desk.pass(1);
    assert_ne!(desk.view().role, Role::Stopping);
}

#[test]
fn r4_a_sidecar_without_its_record_stops_what_it_finds_armed() {
    let deadline = Some(BootTime(1_000_500_000_000));
    let desk = Desk::started(2, None, FoundAtStart::Running { deadline });
    assert_eq!(desk.effects, vec![Effect::Stop]);
}

#[test]
fn r5_a_handover_is_above_all_epochs_and_echoes_the_heirs_last_stamp() {
    let mut desk = Desk::active();
    let served = desk.view().epoch.unwrap();
    desk.pass(3);
    desk.hear(1, Epoch(0), Body::Hello);
    let heard = desk.now;
    desk.pass(2);
    desk.input(Input::Guard(GuardEvent::Exited { at: desk.now }));
    let sent = desk.sent().find(|sent| sent.to == Seat(1)).unwrap();
    assert!(sent.epoch > served);
    assert!(
        matches!(sent.body, Body::Handover { echo, cause: Cause::AsteriskExited, .. } if echo == heard)
    );
}

#[test]
fn r5_an_heir_counts_the_vote_from_its_own_echoed_stamp() {
    let mut desk = Desk::hot_standby(3);
    let (cause, detected_after_us) = (Cause::Switchover, 0);
    let echo = desk.now;
    desk.pass(5);
    desk.hear(
        1,
        Epoch(9),
        Body::Handover {
            echo,
            cause,
            detected_after_us,
        },
    );
    assert_eq!(desk.view().epoch, Some(Epoch(9)));
    assert_eq!(
        desk.view().authority_until,
        echo.after(Timing::default().counted_grant())
    );
    assert!(desk.armed().is_some());
}

#[test]
fn r6_an_ack_of_another_epoch_counts_nothing() {
    let mut desk = Desk::bidding(3);
    let epoch = desk.view().epoch.unwrap();
    let sent_at = desk.now;
    desk.hear(
        1,
        epoch.next_of(Seat(1)),
        Body::Ack {
            beat_sent_at: sent_at,
        },
    );
    assert_eq!(desk.view().authority_until, BootTime(0));
}

#[test]
fn r6_a_release_frees_only_the_very_life_that_it_was_granted_to() {
    let mut desk = Desk::standby(3);
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    assert!(desk.view().peers[1].is_granted);
    let mut release = desk.message(1, Epoch(5), Body::Release);
    release.incarnation = Incarnation(2);
    desk.input(Input::Message(release));
    assert!(desk.view().peers[1].is_granted, "another life's release");
    desk.hear(2, Epoch(5), Body::Release);
    assert!(desk.view().peers[1].is_granted, "another node's release");
}

#[test]
fn r6_a_live_grant_is_not_given_up_for_a_higher_epoch() {
    let mut desk = Desk::standby(3);
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    desk.hear(2, Epoch(8), Body::Beat { is_active: true });
    assert_eq!(desk.sent_to(2), vec![refusal(Refusal::Committed)]);
    desk.pass(801);
    desk.hear(2, Epoch(8), Body::Beat { is_active: true });
    assert!(desk.view().peers[2].is_granted || desk.view().epoch.is_some());
}

#[test]
fn r7_quarantine_grants_nothing_and_says_nothing() {
    let mut desk = Desk::started(3, None, FoundAtStart::Nothing);
    desk.pass(1);
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    assert_eq!(desk.sent().count(), 0);
    assert_eq!(desk.view().role, Role::Quarantined);
}

#[test]
fn r7_the_record_is_written_before_the_grant_leaves() {
    let mut desk = Desk::standby(3);
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    let Effect::Record(written) = desk.effects[0] else {
        panic!("{:?}", desk.effects)
    };
    assert_eq!(written.grant.map(|grant| grant.3), Some(Epoch(5)));
    assert!(matches!(desk.effects[1], Effect::Send(_)));
}

#[test]
fn r7_a_resumed_grant_keeps_its_vote_for_a_whole_deadtime() {
    let grant = Some((Seat(1), Occupant(1), Incarnation(1), Epoch(5)));
    let found = record(3);
    let mut desk = Desk::started(
        3,
        Some(pbx_core::Record { grant, ..found }),
        FoundAtStart::Nothing,
    );
    desk.pass(799);
    desk.hear(2, Epoch(9), Body::Beat { is_active: true });
    assert_eq!(desk.sent_to(2), vec![refusal(Refusal::Committed)]);
}

#[test]
fn r8_the_witness_is_freed_only_when_the_deadline_rests_on_the_nodes() {
    for seed in 1..=20 {
        let mut world = World::new(2, seed);
        world.run_for(40_000);
        world.inflict(Fault::CutBoth {
            one: 0,
            other: 1,
            for_ns: 2 * SECOND,
        });
        world.run_for(1_500);
        assert!(world.api.is_held(), "the active lives on the witness");
        world.run_for(2_000);
        assert!(!world.api.is_held(), "freed when the peer is back");
        assert_eq!(world.overlap, None);
    }
}

#[test]
fn r9_anothers_hold_is_watched_for_longer_than_it_counts() {
    let mut desk = Desk::bidding(2);
    let hold = Duration::from_millis(800);
    let answer = ApiAnswer::Lease(lease(7, peer_holds(), hold));
    let mut writes_after = None;
    let started = desk.now;
    for _ in 0..1_000 {
        desk.effects.clear();
        desk.pass(1);
        let open = desk.effects.iter().find_map(|effect| match effect {
            Effect::Call { id, call } => Some((*id, *call)),
            _ => None,
        });
        match open {
            Some((id, ApiCall::Read)) => desk.input(Input::Api { call: id, answer }),
            Some((_, ApiCall::Write(_))) => {
                writes_after = Some(desk.now.since(started));
                break;
            }
            None => {}
        }
    }
    let waited = writes_after.expect("taken in the end");
    assert!(
        waited >= Timing::default().observed_hold(hold),
        "{waited:?}"
    );
}

#[test]
fn r10_a_refusal_raises_the_own_epoch_and_keeps_the_votes() {
    let mut desk = Desk::active();
    let authority = desk.view().authority_until;
    desk.hear(1, Epoch(40), refusal(Refusal::EpochTooLow));
    assert_eq!(desk.view().epoch, Some(Epoch(45)));
    assert_eq!(desk.view().authority_until, authority);
    assert_eq!(
        desk.notices(),
        vec![Notice::EpochRaised { epoch: Epoch(45) }]
    );
    assert_eq!(desk.view().role, Role::Active);
}

#[test]
fn r11_a_candidate_yields_to_an_active_but_not_to_a_lesser_candidate() {
    let mut desk = Desk::bidding(3);
    desk.hear(1, Epoch(6), Body::Beat { is_active: false });
    assert!(
        desk.view().epoch.is_some(),
        "seat 1 is the lesser candidate"
    );
    desk.hear(1, Epoch(6), Body::Beat { is_active: true });
    assert_eq!(desk.view().epoch, None);
    assert!(desk.view().peers[1].is_granted);
}

#[test]
fn r12_an_unready_heir_declines_with_a_release() {
    let mut desk = Desk::standby(3);
    let body = Body::Handover {
        echo: desk.now,
        cause: Cause::Switchover,
        detected_after_us: 0,
    };
    desk.hear(1, Epoch(9), body);
    assert_eq!(desk.sent_to(1), vec![Body::Release]);
    assert_eq!(desk.view().epoch, None);
}

#[test]
fn r12_a_silent_peer_is_no_heir_and_asterisk_starts_again_in_place() {
    let mut desk = Desk::active();
    desk.pass(685);
    desk.input(Input::Guard(GuardEvent::Exited { at: desk.now }));
    let is_restart = |effect: &Effect| matches!(effect, Effect::RestartInPlace { .. });
    assert!(desk.effects.iter().any(is_restart));
    let reason = Suppression::NoHeir;
    assert!(
        matches!(desk.notices()[..], [Notice::RestartedInPlace { reason: said, .. }] if said == reason)
    );
    assert_eq!(desk.view().role, Role::Active);
}

/// Calm beats are 330 ms apart: an answer that takes 200 ms is late, and no silence.
#[test]
fn r12_a_late_answer_to_a_calm_beat_does_not_cost_the_heir() {
    let mut desk = Desk::active();
    desk.pass(500);
    desk.input(Input::Guard(GuardEvent::Exited { at: desk.now }));
    let is_handover = |body: &Body| matches!(body, Body::Handover { .. });
    assert!(desk.sent_to(1).iter().any(is_handover));
    assert_eq!(desk.view().epoch, None);
}

#[test]
fn r12_a_handover_received_while_serving_is_never_declined() {
    let mut desk = Desk::active();
    let epoch = desk.view().epoch.unwrap();
    desk.input(Input::Condition(Condition::default()));
    let body = Body::Handover {
        echo: desk.now,
        cause: Cause::Switchover,
        detected_after_us: 0,
    };
    desk.hear(1, epoch, body);
    assert!(
        desk.sent_to(1).is_empty(),
        "a release would free a vote that counts"
    );
}

#[test]
fn r14_one_call_at_a_time_and_a_late_answer_is_discarded() {
    let mut desk = Desk::bidding(2);
    let open = desk.call.unwrap();
    desk.effects.clear();
    desk.pass(130);
    assert!(
        desk.calls().is_empty(),
        "no second call before the first has ended"
    );
    desk.pass(40);
    assert_ne!(desk.call, Some(open), "given up, and asked again");
    let late = ApiAnswer::Lease(lease(7, Holder::Nobody, Duration::from_millis(800)));
    desk.input(Input::Api {
        call: open,
        answer: late,
    });
    assert!(desk.effects.is_empty(), "{:?}", desk.effects);
}

#[test]
fn a_switchover_without_an_heir_is_refused_and_the_active_goes_on() {
    let mut desk = Desk::active();
    desk.pass(685);
    desk.input(switchover());
    let reason = Suppression::NoHeir;
    assert_eq!(desk.notices(), vec![Notice::SwitchoverRefused { reason }]);
    assert_eq!(desk.view().role, Role::Active);
}

#[test]
fn the_preferred_node_takes_the_role_back_when_it_is_proven() {
    let mut world = World::new(2, 4);
    world.preferred_seat = Some(Seat(1));
    world.run_for(5_000);
    world.run_for(20_000);
    assert_eq!(world.active(), Some(world.pod_in(1)));
}

#[test]
fn a_sidecar_that_comes_back_with_its_record_goes_on_serving() {
    let mut world = World::new(2, 5);
    world.run_for(5_000);
    let active = world.active().unwrap();
    let (since, _) = world.serving_since;
    world.kill_sidecar(active, true);
    world.run_for(5_000);
    assert_eq!(
        world.serving_since,
        (since, Some(active)),
        "no interruption"
    );
    let resumed = |notice: &(u64, usize, Notice)| matches!(notice.2, Notice::Resumed { .. });
    assert_eq!(
        world
            .notices
            .iter()
            .filter(|notice| resumed(notice))
            .count(),
        1
    );
}

/// Found by the simulator: the new life was refused for ever, as the vote was renewed for the former one.
#[test]
fn r5_an_heir_that_begins_another_life_is_given_up() {
    let mut desk = Desk::active();
    desk.input(switchover());
    desk.input(Input::Guard(GuardEvent::Stopped));
    assert!(matches!(desk.sent_to(1)[0], Body::Handover { .. }));
    let mut hello = desk.message(1, Epoch(0), Body::Hello);
    hello.incarnation = Incarnation(2);
    desk.input(Input::Message(hello));
    desk.effects.clear();
    desk.pass(200);
    let sent = desk.sent_to(1);
    let is_handover = |body: &Body| matches!(body, Body::Handover { .. });
    assert!(!sent.iter().any(is_handover), "{sent:?}");
}

/// Found by the simulator: after a reboot with a wall clock that had gone back, no peer ever listened again.
#[test]
fn r13_a_life_rises_above_a_former_one_after_its_quarantine_too() {
    let mut desk = Desk::active();
    let epoch = desk.view().epoch.expect("serves");
    let mut hello = desk.message(1, Epoch(0), Body::Hello);
    hello.to_incarnation = Incarnation(5_000);
    desk.input(Input::Message(hello));
    assert_eq!(desk.view().incarnation, Incarnation(5_001));
    assert_eq!(desk.view().role, Role::Active, "it keeps what it counts");
    assert!(
        desk.view().epoch > Some(epoch),
        "under an epoch of the new name"
    );
}
