//! What moves, waits and is refused.

use super::*;

const NOW: BootTime = BootTime(1_000_000_000_000);
const GROUND: Ground = Ground {
    is_serving: true,
    is_paused: false,
    has_heir: true,
    drain_obstacle: None,
};

fn wish(strategy: SwitchoverStrategy) -> Wish {
    Wish {
        to: None,
        cause: Cause::Switchover,
        strategy,
        timeout: Duration::from_mins(1),
        requested_by: "test".into(),
    }
}

fn at(milliseconds: u64) -> BootTime {
    NOW.after(Duration::from_millis(milliseconds))
}

fn begun(strategy: SwitchoverStrategy) -> Desk {
    let mut desk = Desk::default();
    desk.begin(NOW, wish(strategy), &GROUND).unwrap();
    desk
}

fn state(desk: &Desk) -> SwitchoverState {
    desk.progress().unwrap().state
}

#[test]
fn an_immediate_move_unregisters_asks_and_is_done_with_the_demotion() {
    let mut desk = Desk::default();
    let first = desk.begin(NOW, wish(SwitchoverStrategy::Immediate), &GROUND);
    assert_eq!(first, Ok(Some(Step::Unregister)));
    let step = desk.on_unregistered(at(3));
    assert!(matches!(
        step,
        Some(Step::Move {
            drain_until: None,
            ..
        })
    ));
    desk.on_demoted();
    assert_eq!(
        (state(&desk), desk.is_busy()),
        (SwitchoverState::Done, false)
    );
}

#[test]
fn a_drain_lasts_until_asterisk_has_ended_and_tells_what_was_cut() {
    let mut desk = begun(SwitchoverStrategy::Drain);
    let step = desk.on_unregistered(at(3));
    let until = Some(at(60_003));
    assert!(matches!(step, Some(Step::Move { drain_until, .. }) if drain_until == until));
    desk.on_demoted();
    assert_eq!(state(&desk), SwitchoverState::Draining);
    assert_eq!(desk.on_calls(2), None);
    assert!(desk.is_busy());
    desk.on_exited();
    assert_eq!(state(&desk), SwitchoverState::Done);
    assert!(
        desk.progress()
            .unwrap()
            .message
            .contains("2 calls were cut")
    );
}

#[test]
fn when_idle_waits_for_the_last_call_or_the_timeout() {
    let mut desk = begun(SwitchoverStrategy::WhenIdle);
    assert_eq!(desk.on_tick(NOW), Some(Step::CountCalls));
    assert_eq!(desk.on_tick(at(100)), None);
    assert_eq!(desk.on_calls(1), None);
    assert_eq!(desk.on_tick(at(500)), Some(Step::CountCalls));
    assert_eq!(desk.on_calls(0), Some(Step::Unregister));

    let mut desk = begun(SwitchoverStrategy::WhenIdle);
    assert_eq!(desk.on_tick(at(60_000)), Some(Step::Unregister));
}

#[test]
fn only_a_waiting_move_can_be_called_off() {
    let mut desk = begun(SwitchoverStrategy::WhenIdle);
    assert_eq!(desk.cancel(), Ok(()));
    assert_eq!(state(&desk), SwitchoverState::Cancelled);
    assert_eq!(
        begun(SwitchoverStrategy::Drain).cancel(),
        Err(Objection::NothingToCancel)
    );
}

#[test]
fn a_refusal_of_the_core_ends_it_and_one_of_another_wish_does_not() {
    let mut desk = begun(SwitchoverStrategy::Immediate);
    assert!(!desk.on_refused("NoHeir"), "it was not asked yet");
    desk.on_unregistered(NOW);
    assert!(desk.on_refused("NoHeir"));
    assert_eq!(state(&desk), SwitchoverState::Refused);
}

#[test]
fn an_answer_that_never_comes_ends_it() {
    let mut desk = begun(SwitchoverStrategy::Immediate);
    desk.on_unregistered(NOW);
    assert_eq!(desk.next_deadline(), Some(NOW.after(ANSWER_PATIENCE)));
    desk.on_tick(NOW.after(ANSWER_PATIENCE));
    assert_eq!(state(&desk), SwitchoverState::Refused);
}

#[test]
fn a_crash_while_it_waits_is_another_move() {
    let mut desk = begun(SwitchoverStrategy::WhenIdle);
    desk.on_demoted();
    assert_eq!(state(&desk), SwitchoverState::Refused);
}

#[test]
fn each_obstacle_is_named_and_nothing_begins() {
    let refused = |ground| {
        let mut desk = Desk::default();
        let drain = wish(SwitchoverStrategy::Drain);
        let objection = desk.begin(NOW, drain, &ground).unwrap_err();
        assert!(!desk.is_busy());
        objection
    };
    let cases = [
        (
            Ground {
                is_serving: false,
                ..GROUND
            },
            Objection::NotActive,
        ),
        (
            Ground {
                is_paused: true,
                ..GROUND
            },
            Objection::Paused,
        ),
        (
            Ground {
                has_heir: false,
                ..GROUND
            },
            Objection::NoHeir,
        ),
        (
            Ground {
                drain_obstacle: Some("why".into()),
                ..GROUND
            },
            Objection::CannotDrain("why".into()),
        ),
    ];
    for (ground, objection) in cases {
        assert_eq!(refused(ground), objection);
    }
    let mut busy = begun(SwitchoverStrategy::WhenIdle);
    let second = busy.begin(NOW, wish(SwitchoverStrategy::Immediate), &GROUND);
    assert_eq!(second, Err(Objection::Busy));
}
