//! What the driver orders, event by event.

use super::*;

const NOW: BootTime = BootTime(1_000_000_000_000);
const RUN: RunId = RunId(7);

fn in_ms(milliseconds: u64) -> BootTime {
    NOW.after(Duration::from_millis(milliseconds))
}

fn state(run: Option<RunId>, deadline_ns: u64) -> Event {
    Event::State {
        run,
        pid: 0,
        deadline_ns,
        terminating: false,
        boot_now_ns: NOW.0,
    }
}

fn exited(asked: bool) -> Event {
    Event::Exited {
        run: RUN,
        status: ExitKind::Signal(9),
        at_ns: NOW.0,
        asked,
    }
}

fn idle() -> Driver {
    let mut driver = Driver::default();
    driver.on_event(NOW, state(None, 0), &mut Vec::new());
    driver
}

fn running() -> Driver {
    let mut driver = idle();
    driver.start_slack(&mut Vec::new());
    driver.on_event(NOW, Event::Started { run: RUN, pid: 1 }, &mut Vec::new());
    driver
}

fn orders(act: impl FnOnce(&mut Vec<Order>)) -> Vec<Order> {
    let mut orders = Vec::new();
    act(&mut orders);
    orders
}

#[test]
fn a_running_standby_is_armed() {
    let mut driver = running();
    let got = orders(|out| driver.arm(NOW, in_ms(700), out));
    assert_eq!(
        got,
        [Order::Send(Command::Arm {
            run: RUN,
            deadline_ns: in_ms(700).0
        })]
    );
}

#[test]
fn a_stopped_one_is_started_with_its_deadline() {
    let mut driver = idle();
    let got = orders(|out| driver.arm(NOW, in_ms(700), out));
    assert_eq!(
        got,
        [Order::Send(Command::Start {
            deadline_ns: Some(in_ms(700).0)
        })]
    );
}

#[test]
fn what_is_wanted_during_a_start_follows_it() {
    let mut driver = idle();
    driver.start_slack(&mut Vec::new());
    assert_eq!(orders(|out| driver.arm(NOW, in_ms(700), out)), []);
    let got = orders(|out| driver.on_event(NOW, Event::Started { run: RUN, pid: 1 }, out));
    assert!(
        got.contains(&Order::Send(Command::Arm {
            run: RUN,
            deadline_ns: in_ms(700).0
        })),
        "{got:?}"
    );
}

#[test]
fn a_stop_is_confirmed_by_the_exit_alone() {
    let mut driver = running();
    assert_eq!(
        orders(|out| driver.stop(out)),
        [Order::Send(Command::Stop { run: RUN })]
    );
    let got = orders(|out| driver.on_event(NOW, exited(true), out));
    assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
    assert_eq!(
        orders(|out| driver.stop(out)),
        [Order::Core(GuardEvent::Stopped)]
    );
}

#[test]
fn a_doomed_run_is_told_at_once_and_the_next_starts_when_it_is_gone() {
    let mut driver = running();
    let doomed = Event::Doomed {
        run: RUN,
        at_ns: NOW.0,
        asked: false,
    };
    let got = orders(|out| driver.on_event(NOW, doomed, out));
    assert_eq!(
        got,
        [
            Order::Core(GuardEvent::Exited { at: NOW }),
            Order::Note(GuardNote::Ending)
        ]
    );
    assert_eq!(orders(|out| driver.arm(NOW, in_ms(700), out)), []);
    let got = orders(|out| driver.on_event(in_ms(30), exited(false), out));
    assert!(
        matches!(
            got[..],
            [
                Order::Note(GuardNote::Exited { asked: false, .. }),
                Order::Send(Command::Start {
                    deadline_ns: Some(_)
                })
            ]
        ),
        "{got:?}"
    );
}

#[test]
fn a_stop_is_confirmed_by_doom() {
    let mut driver = running();
    driver.stop(&mut Vec::new());
    let doomed = Event::Doomed {
        run: RUN,
        at_ns: NOW.0,
        asked: true,
    };
    let got = orders(|out| driver.on_event(NOW, doomed, out));
    assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
    assert_eq!(
        orders(|out| driver.stop(out)),
        [Order::Core(GuardEvent::Stopped)]
    );
}

#[test]
fn a_lost_connection_proves_nothing() {
    let mut driver = running();
    driver.on_lost();
    assert_eq!(orders(|out| driver.stop(out)), []);
    let got = orders(|out| driver.on_event(NOW, state(Some(RUN), 0), out));
    assert!(
        got.contains(&Order::Send(Command::Stop { run: RUN })),
        "{got:?}"
    );
    assert!(!got.contains(&Order::Core(GuardEvent::Stopped)), "{got:?}");
}

#[test]
fn a_stop_that_found_its_run_gone_takes_nothing_back_from_the_start_that_followed() {
    let mut driver = running();
    driver.arm(NOW, in_ms(700), &mut Vec::new());
    driver.stop(&mut Vec::new());
    let got = orders(|out| driver.on_event(NOW, exited(false), out));
    assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
    let got = orders(|out| driver.arm(NOW, in_ms(900), out));
    assert!(matches!(got[..], [Order::Send(Command::Start { .. })]));
    // The guard answers the stop, which reached it after the end.
    assert_eq!(orders(|out| driver.on_event(NOW, state(None, 0), out)), []);
}

#[test]
fn what_was_wanted_of_a_guard_that_runs_nothing_is_not_started() {
    let mut driver = running();
    driver.arm(NOW, in_ms(700), &mut Vec::new());
    driver.on_lost();
    let got = orders(|out| driver.on_event(NOW, state(None, 0), out));
    assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
    assert_eq!(driver.next_deadline(), None);
    assert_eq!(orders(|out| driver.on_tick(in_ms(100), out)), []);
}

#[test]
fn a_deadline_of_a_run_that_was_told_to_have_ended_is_nobodys() {
    let mut driver = running();
    let doomed = Event::Doomed {
        run: RUN,
        at_ns: NOW.0,
        asked: false,
    };
    driver.on_event(NOW, doomed, &mut Vec::new());
    let late = Event::Armed {
        run: RUN,
        deadline_ns: in_ms(700).0,
    };
    assert_eq!(orders(|out| driver.on_event(NOW, late, out)), []);
}

#[test]
fn a_guard_that_runs_nothing_is_told_from_one_that_does() {
    assert_eq!(found(&state(None, 0)), FoundAtStart::Nothing);
    assert_eq!(
        found(&state(Some(RUN), 0)),
        FoundAtStart::Running { deadline: None }
    );
    assert_eq!(
        found(&state(Some(RUN), 9)),
        FoundAtStart::Running {
            deadline: Some(BootTime(9))
        }
    );
}

#[test]
fn a_crash_loop_is_held_back_and_an_extended_deadline_is_used() {
    let mut driver = running();
    driver.on_event(NOW, exited(false), &mut Vec::new());
    assert_eq!(
        orders(|out| driver.arm(NOW, in_ms(700), out)).len(),
        1,
        "the first start is immediate"
    );
    driver.on_event(NOW, Event::Started { run: RUN, pid: 2 }, &mut Vec::new());
    driver.on_event(NOW, exited(false), &mut Vec::new());
    assert_eq!(orders(|out| driver.arm(NOW, in_ms(700), out)), []);
    assert_eq!(orders(|out| driver.arm(in_ms(100), in_ms(800), out)), []);
    assert_eq!(driver.next_deadline(), Some(in_ms(250)));
    let got = orders(|out| driver.on_tick(in_ms(250), out));
    assert_eq!(
        got,
        [Order::Send(Command::Start {
            deadline_ns: Some(in_ms(800).0)
        })]
    );
}

#[test]
fn a_drained_one_counts_as_stopped_once_it_is_closed_and_has_its_last_deadline() {
    let mut driver = running();
    driver.arm(NOW, in_ms(700), &mut Vec::new());
    let until = in_ms(60_000);
    assert_eq!(orders(|out| assert!(driver.drain(until, out))), []);
    let got = orders(|out| driver.on_closed(true, out));
    let last = Command::Arm {
        run: RUN,
        deadline_ns: until.0,
    };
    assert_eq!(got, [Order::Send(last)]);
    let armed = |deadline: BootTime| Event::Armed {
        run: RUN,
        deadline_ns: deadline.0,
    };
    // What was on its way is the core's.
    let got = orders(|out| driver.on_event(NOW, armed(in_ms(700)), out));
    assert!(matches!(got[..], [Order::Core(GuardEvent::Armed { .. })]));
    let got = orders(|out| driver.on_event(NOW, armed(until), out));
    assert_eq!(
        got,
        [
            Order::Core(GuardEvent::Stopped),
            Order::Note(GuardNote::Draining)
        ]
    );
    let got = orders(|out| driver.on_event(in_ms(900), exited(false), out));
    assert!(
        matches!(
            got[..],
            [Order::Note(GuardNote::Exited { quick_exits: 0, .. })]
        ),
        "the core knows already: {got:?}"
    );
}

#[test]
fn one_that_cannot_be_closed_is_stopped() {
    let mut driver = running();
    driver.arm(NOW, in_ms(700), &mut Vec::new());
    assert!(driver.drain(in_ms(60_000), &mut Vec::new()));
    assert_eq!(
        orders(|out| driver.on_closed(false, out)),
        [Order::Send(Command::Stop { run: RUN })]
    );
    let got = orders(|out| driver.on_event(NOW, exited(true), out));
    assert_eq!(got[0], Order::Core(GuardEvent::Stopped));
}

#[test]
fn who_is_to_serve_again_ends_its_drain_and_starts_armed() {
    let mut driver = running();
    let until = in_ms(60_000);
    driver.drain(until, &mut Vec::new());
    driver.on_closed(true, &mut Vec::new());
    let armed = Event::Armed {
        run: RUN,
        deadline_ns: until.0,
    };
    driver.on_event(NOW, armed, &mut Vec::new());
    let got = orders(|out| driver.arm(NOW, in_ms(800), out));
    assert_eq!(got, [Order::Send(Command::Stop { run: RUN })]);
    let got = orders(|out| driver.on_event(NOW, exited(true), out));
    let start = Order::Send(Command::Start {
        deadline_ns: Some(in_ms(800).0),
    });
    assert_eq!(got.last(), Some(&start));
    assert!(!got.iter().any(|order| matches!(order, Order::Core(_))));
}

#[test]
fn only_a_standby_is_restarted_for_its_health() {
    let mut standby = running();
    assert_eq!(
        orders(|out| standby.stop_slack(out)),
        [Order::Send(Command::Stop { run: RUN })]
    );
    let mut active = running();
    active.arm(NOW, in_ms(700), &mut Vec::new());
    assert_eq!(orders(|out| active.stop_slack(out)), []);
}

#[test]
fn a_deadline_is_confirmed_once_a_second_and_extended_between() {
    let mut driver = running();
    let arm = |driver: &mut Driver, now: BootTime, until: BootTime| {
        orders(|out| driver.arm(now, until, out))
    };
    let asked = |until: BootTime| Command::Arm {
        run: RUN,
        deadline_ns: until.0,
    };
    let silent = |until: BootTime| Command::Extend {
        run: RUN,
        deadline_ns: until.0,
    };
    let first = in_ms(700);
    assert_eq!(arm(&mut driver, NOW, first), [Order::Send(asked(first))]);
    let second = in_ms(900);
    let got = arm(&mut driver, in_ms(200), second);
    assert_eq!(got, [Order::Send(asked(second))], "not confirmed yet");
    let confirmed = Event::Armed {
        run: RUN,
        deadline_ns: first.0,
    };
    driver.on_event(in_ms(201), confirmed, &mut Vec::new());
    let third = in_ms(1_100);
    assert_eq!(
        arm(&mut driver, in_ms(400), third),
        [Order::Send(silent(third))]
    );
    let late = in_ms(2_000);
    assert_eq!(
        arm(&mut driver, in_ms(1_201), late),
        [Order::Send(asked(late))]
    );
}
