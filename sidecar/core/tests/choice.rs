//! Whom a move goes to, and which moves are not made: health decides with the rank, people hold unplanned moves back.

use pbx_core::{
    Body, Cause, Command, Condition, Effect, Epoch, GuardEvent, Input, Notice, Role, Suppression,
};
use pbx_model::desk::Desk;

fn active_with(rank: u8, is_held_back: bool) -> Desk {
    let mut desk = Desk::active();
    desk.input(Input::Condition(Condition {
        is_ready: true,
        is_api_reachable: true,
        rank,
        is_held_back,
    }));
    desk
}

fn ask(desk: &mut Desk, cause: Cause) {
    desk.input(Input::Command(Command::Switchover { to: None, cause }));
}

/// The guard confirms, and nothing else happened meanwhile.
fn stopped(desk: &mut Desk) {
    assert!(desk.effects.contains(&Effect::Stop), "{:?}", desk.effects);
    desk.input(Input::Guard(GuardEvent::Stopped));
}

fn is_handed_over(desk: &Desk) -> bool {
    desk.sent()
        .any(|sent| matches!(sent.body, Body::Handover { .. }))
}

fn is_restarted(desk: &Desk) -> bool {
    let is_restart = |effect: &Effect| matches!(effect, Effect::RestartInPlace { .. });
    desk.effects.iter().any(is_restart)
}

#[test]
fn a_sick_active_hands_over_to_a_healthier_node() {
    let mut desk = active_with(3, false);
    ask(&mut desk, Cause::HealthFailed);
    stopped(&mut desk);
    assert!(is_handed_over(&desk));
}

#[test]
fn a_node_as_sick_as_the_active_is_no_heir_of_a_move_for_health() {
    let mut desk = active_with(0, false);
    ask(&mut desk, Cause::HealthFailed);
    let reason = Suppression::HeirSicker;
    assert_eq!(desk.notices(), [Notice::SwitchoverRefused { reason }]);
    assert_eq!(desk.view().role, Role::Active);
}

#[test]
fn a_hung_asterisk_without_a_healthier_heir_is_started_again_in_place() {
    let mut desk = active_with(0, false);
    ask(&mut desk, Cause::AsteriskHung);
    stopped(&mut desk);
    assert!(is_restarted(&desk) && !is_handed_over(&desk));
}

#[test]
fn held_back_a_crash_is_mended_in_place_and_a_switchover_still_moves() {
    let mut desk = active_with(0, true);
    desk.input(Input::Guard(GuardEvent::Exited { at: desk.now }));
    assert!(is_restarted(&desk) && !is_handed_over(&desk));

    let mut desk = active_with(0, true);
    ask(&mut desk, Cause::Switchover);
    stopped(&mut desk);
    assert!(is_handed_over(&desk));
}

#[test]
fn held_back_a_standby_does_not_bid_for_a_silent_active() {
    let bids_after = |is_held_back| {
        let mut desk = Desk::hot_standby(3);
        desk.input(Input::Condition(Condition {
            is_ready: true,
            is_api_reachable: true,
            rank: 0,
            is_held_back,
        }));
        for _ in 0..30 {
            desk.pass(50);
            desk.hear(2, Epoch(5), Body::Hello);
        }
        desk.view().epoch.is_some()
    };
    assert!(bids_after(false));
    assert!(!bids_after(true));
}

#[test]
fn held_back_the_first_start_goes_on() {
    let mut desk = Desk::standby(3);
    desk.input(Input::Condition(Condition {
        is_ready: true,
        is_api_reachable: true,
        rank: 0,
        is_held_back: true,
    }));
    desk.pass(100);
    assert!(desk.view().epoch.is_some());
}
