//! The guard's dialogue with the sidecar: start, stop, exit, termination, reconnection.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;

use std::time::Duration;

use pbx_guard::boot_now_ns;
use pbx_guard::protocol::{Command, Event, ExitKind, RunId, StartRefusal};
use rustix::process::{Pid, Signal};
use support::{Guard, LIMIT, MS, alone, died_at_ns, kill, parent_of, wait_for_file};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn nothing_runs_until_the_sidecar_orders_it() {
    let _alone = alone();
    let guard = Guard::start();
    let mut sidecar = guard.connect();
    sidecar.send(Command::Hello);
    let before_ns = boot_now_ns();
    let Event::State {
        run: None,
        pid: 0,
        deadline_ns: 0,
        terminating: false,
        boot_now_ns: at,
    } = sidecar.next()
    else {
        panic!("an idle state");
    };
    assert!(at.abs_diff(before_ns) < 100 * MS);
}

#[test]
fn a_killed_asterisk_is_reported_within_20_ms_and_the_guard_goes_on() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let killed_at = boot_now_ns();
    kill(pid, Signal::KILL);
    let Event::Exited {
        run: ended,
        status,
        at_ns,
        asked,
    } = sidecar.next()
    else {
        panic!("Exited");
    };
    assert_eq!((ended, status, asked), (run, ExitKind::Signal(9), false));
    assert!(boot_now_ns() - killed_at < 20 * MS && at_ns > killed_at);
    let (next_run, _) = guard.launch(&mut sidecar, None);
    assert!(next_run > run);
}

#[test]
fn the_exit_code_is_forwarded() {
    let _alone = alone();
    let mut guard = Guard::start_with(&[], &["sh", "-c", "sleep 0.05; exit 7"]);
    let mut sidecar = guard.greet();
    guard.launch(&mut sidecar, None);
    assert!(matches!(
        sidecar.next(),
        Event::Exited {
            status: ExitKind::Code(7),
            asked: false,
            ..
        }
    ));
}

#[test]
fn a_program_that_cannot_be_executed_is_an_exit_without_start() {
    let _alone = alone();
    let guard = Guard::start_with(&[], &["/nowhere/asterisk"]);
    let mut sidecar = guard.greet();
    sidecar.send(Command::Start { deadline_ns: None });
    let event = sidecar.next();
    assert!(
        matches!(
            event,
            Event::Exited {
                status: ExitKind::SpawnError(2),
                ..
            }
        ),
        "{event:?}"
    );
}

#[test]
fn a_second_start_is_refused_while_one_runs() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    guard.launch(&mut sidecar, None);
    sidecar.send(Command::Start { deadline_ns: None });
    let reason = StartRefusal::AlreadyRunning;
    assert_eq!(sidecar.next(), Event::StartRefused { reason });
}

#[test]
fn stop_kills_and_is_answered_when_all_is_gone() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let leash = parent_of(pid);
    sidecar.send(Command::Stop { run });
    let event = sidecar.next();
    assert!(matches!(
        event,
        Event::Exited {
            asked: true,
            status: ExitKind::Signal(9),
            ..
        }
    ));
    for pid in [pid, leash] {
        assert!(
            rustix::process::test_kill_process(pid).is_err(),
            "reaped before the report"
        );
    }
    sidecar.send(Command::Stop { run });
    assert!(matches!(sidecar.next(), Event::State { run: None, .. }));
}

#[test]
fn a_stop_meant_for_an_earlier_run_changes_nothing() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    sidecar.send(Command::Stop {
        run: RunId(run.0 - 1),
    });
    assert!(matches!(sidecar.next(), Event::State { run: Some(now), .. } if now == run));
    assert_eq!(died_at_ns(pid, SHORT), None);
}

#[test]
fn what_asterisk_left_in_the_background_is_gone_too() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!("setsid sleep 60 & echo $! > {}; wait", file.display());
    let mut guard = Guard::start_with(&[], &["sh", "-c", &script]);
    let mut sidecar = guard.greet();
    let (_, pid) = guard.launch(&mut sidecar, None);
    let left: i32 = wait_for_file(&file).trim().parse().unwrap();
    kill(pid, Signal::KILL);
    assert!(matches!(sidecar.next(), Event::Exited { .. }));
    assert!(rustix::process::test_kill_process(Pid::from_raw(left).unwrap()).is_err());
}

#[test]
fn asterisk_gets_default_signals() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("status");
    // Not a shell, which would clear the mask itself.
    let command = ["cp", "/proc/self/status", file.to_str().unwrap()];
    let guard = Guard::start_with(&[], &command);
    let mut sidecar = guard.greet();
    sidecar.send(Command::Start { deadline_ns: None });
    let status = wait_for_file(&file);
    let is_mask = |line: &&str| line.starts_with("SigBlk") || line.starts_with("SigIgn");
    for line in status.lines().filter(is_mask) {
        let mask = line.split_ascii_whitespace().last().unwrap();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        // Signals 32 and 33 are libc's own: it lets nobody touch them.
        assert_eq!(mask & !0x1_8000_0000, 0, "{line}");
    }
}

#[test]
fn a_new_connection_replaces_the_old_and_finds_the_run() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut old = guard.greet();
    let (run, pid) = guard.launch(&mut old, None);
    let mut new = guard.connect();
    new.send(Command::Hello);
    let Event::State {
        run: found,
        pid: found_pid,
        ..
    } = new.next()
    else {
        panic!("State comes first");
    };
    assert_eq!(
        (found, found_pid),
        (Some(run), pid.as_raw_nonzero().get().cast_unsigned())
    );
    assert!(old.is_closed());
}

#[test]
fn losing_the_connection_changes_nothing() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (_, pid) = guard.launch(&mut sidecar, None);
    drop(sidecar);
    assert_eq!(died_at_ns(pid, SHORT), None);
}

#[test]
fn no_event_comes_before_hello() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (_, pid) = guard.launch(&mut sidecar, None);
    let mut silent = guard.connect();
    assert!(sidecar.is_closed());
    kill(pid, Signal::KILL);
    assert_eq!(silent.next_within(SHORT), None);
    silent.send(Command::Hello);
    assert!(matches!(silent.next(), Event::State { run: None, .. }));
}

#[test]
fn garbage_costs_the_connection_and_nothing_else() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, _) = guard.launch(&mut sidecar, None);
    sidecar.send_bytes(&[0xff; 200]);
    assert!(sidecar.is_closed());
    let mut sidecar = guard.connect();
    sidecar.send(Command::Hello);
    assert!(matches!(sidecar.next(), Event::State { run: Some(found), .. } if found == run));
}

#[test]
fn terminate_is_reported_and_remembered_and_asterisk_goes_on() {
    let _alone = alone();
    let mut guard = Guard::start_with(&["--grace", "60"], &["sleep", "60"]);
    let mut sidecar = guard.greet();
    let (_, pid) = guard.launch(&mut sidecar, None);
    kill(guard.pid(), Signal::TERM);
    let event = sidecar.next();
    let Event::Terminating {
        at_ns,
        grace_ends_ns,
    } = event
    else {
        panic!("expected Terminating, got {event:?}");
    };
    assert_eq!(grace_ends_ns - at_ns, 60_000 * MS);
    assert_eq!(died_at_ns(pid, SHORT), None);
    let mut next = guard.connect();
    next.send(Command::Hello);
    assert!(matches!(
        next.next(),
        Event::State {
            terminating: true,
            ..
        }
    ));
    assert_eq!(next.next(), event);
}

#[test]
fn exit_kills_asterisk_and_ends_the_guard() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    guard.launch(&mut sidecar, None);
    sidecar.send(Command::Exit);
    assert!(matches!(sidecar.next(), Event::Exited { asked: true, .. }));
    assert!(sidecar.is_closed());
    assert_eq!(guard.exit_status().code(), Some(0));
}

#[test]
fn the_guard_stops_by_itself_2_s_before_the_grace_ends() {
    let _alone = alone();
    let mut guard = Guard::start_with(&["--grace", "3"], &["sleep", "60"]);
    let mut sidecar = guard.greet();
    guard.launch(&mut sidecar, None);
    kill(guard.pid(), Signal::TERM);
    let Event::Terminating { at_ns, .. } = sidecar.next() else {
        panic!("Terminating");
    };
    let Event::Exited {
        at_ns: gone_at,
        asked: true,
        ..
    } = sidecar.next()
    else {
        panic!("Exited, asked");
    };
    assert!(
        (1000 * MS..1050 * MS).contains(&(gone_at - at_ns)),
        "{}",
        gone_at - at_ns
    );
    assert_eq!(guard.exit_status().code(), Some(0));
}

#[test]
fn killing_the_guard_takes_everything_along() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (_, pid) = guard.launch(&mut sidecar, None);
    let leash = parent_of(pid);
    kill(guard.pid(), Signal::KILL);
    assert!(died_at_ns(pid, LIMIT).is_some());
    assert!(died_at_ns(leash, LIMIT).is_some());
}

#[test]
fn killing_the_guard_takes_a_stopped_leash_along() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (_, pid) = guard.launch(&mut sidecar, None);
    // Stopped, it cannot see that its socket is closed: only the kernel ends it.
    kill(parent_of(pid), Signal::STOP);
    kill(guard.pid(), Signal::KILL);
    assert!(died_at_ns(pid, LIMIT).is_some());
}

#[test]
fn killing_the_leash_takes_asterisk_along() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    kill(parent_of(pid), Signal::KILL);
    let event = sidecar.next();
    assert!(
        matches!(event, Event::Exited { run: r, asked: false, .. } if r == run),
        "{event:?}"
    );
    assert!(rustix::process::test_kill_process(pid).is_err());
}

#[test]
fn an_idle_guard_terminates_on_exit_alone() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    kill(guard.pid(), Signal::TERM);
    assert!(matches!(sidecar.next(), Event::Terminating { .. }));
    sidecar.send(Command::Exit);
    assert_eq!(guard.exit_status().code(), Some(0));
}
