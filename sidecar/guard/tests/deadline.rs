//! The deadline: armed, moved, refused, and kept by the kernel while guard, leash and server are
//! stopped.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use pbx_guard::boot_now_ns;
use pbx_guard::protocol::{Command, Event, ExitKind, RunId, StartRefusal};
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use support::{Guard, LIMIT, MS, Sidecar, alone, died_at_ns, kill, parent_of, status_number};

/// How late the end may come; never early.
const TOLERANCE_NS: u64 = 20 * MS;

fn arm(sidecar: &mut Sidecar, run: RunId, deadline_ns: u64) -> Event {
    sidecar.send(Command::Arm { run, deadline_ns });
    sidecar.next()
}

fn assert_died_at(deadline_ns: u64, died_at: Option<u64>) {
    let died_at = died_at.expect("dead");
    assert!(
        died_at >= deadline_ns,
        "{} us early",
        (deadline_ns - died_at) / 1000
    );
    assert!(
        died_at - deadline_ns < TOLERANCE_NS,
        "{} us late",
        (died_at - deadline_ns) / 1000
    );
}

#[test]
fn asterisk_dies_at_its_deadline() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let deadline_ns = boot_now_ns() + 150 * MS;
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns),
        Event::Armed { run, deadline_ns }
    );
    assert_died_at(deadline_ns, died_at_ns(pid, LIMIT));
    let event = sidecar.next();
    let Event::Exited {
        status: ExitKind::Signal(9),
        asked: false,
        at_ns,
        ..
    } = event
    else {
        panic!("{event:?}");
    };
    assert!(at_ns < deadline_ns + TOLERANCE_NS, "reported late");
}

#[test]
fn a_renewed_deadline_keeps_it_alive() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let mut deadline_ns = 0;
    for _ in 0..10 {
        deadline_ns = boot_now_ns() + 150 * MS;
        assert_eq!(
            arm(&mut sidecar, run, deadline_ns),
            Event::Armed { run, deadline_ns }
        );
        assert_eq!(died_at_ns(pid, Duration::from_millis(50)), None);
    }
    assert_died_at(deadline_ns, died_at_ns(pid, LIMIT));
}

#[test]
fn a_start_with_a_deadline_is_armed_before_it_runs() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let deadline_ns = boot_now_ns() + 150 * MS;
    let (run, pid) = guard.launch(&mut sidecar, Some(deadline_ns));
    assert_eq!(sidecar.next(), Event::Armed { run, deadline_ns });
    assert_died_at(deadline_ns, died_at_ns(pid, LIMIT));
}

#[test]
fn r3_a_late_start_is_refused() {
    let _alone = alone();
    let guard = Guard::start();
    let mut sidecar = guard.greet();
    let reason = StartRefusal::DeadlinePassed;
    for deadline_ns in [0, 1, boot_now_ns()] {
        sidecar.send(Command::Start {
            deadline_ns: Some(deadline_ns),
        });
        assert_eq!(sidecar.next(), Event::StartRefused { reason });
    }
}

#[test]
fn r3_a_start_that_becomes_late_on_its_way_never_serves() {
    let _alone = alone();
    let guard = Guard::start();
    let mut sidecar = guard.greet();
    // Between the guard's own check and the execution: whatever the race gives, nothing is left.
    for step_ns in (0..3 * MS).step_by(100_000) {
        let deadline_ns = boot_now_ns() + step_ns;
        sidecar.send(Command::Start {
            deadline_ns: Some(deadline_ns),
        });
        let end = loop {
            match sidecar.next() {
                Event::Started { .. } | Event::Armed { .. } => {}
                end => break end,
            }
        };
        assert!(
            matches!(
                end,
                Event::StartRefused {
                    reason: StartRefusal::DeadlinePassed
                }
            ) || matches!(
                end,
                Event::Exited {
                    status: ExitKind::Signal(9),
                    ..
                }
            ),
            "{end:?}"
        );
        sidecar.send(Command::Hello);
        assert!(matches!(sidecar.next(), Event::State { run: None, .. }));
    }
}

#[test]
fn an_earlier_deadline_does_not_move_it_back() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let deadline_ns = boot_now_ns() + 300 * MS;
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns),
        Event::Armed { run, deadline_ns }
    );
    let earlier_ns = boot_now_ns() + 50 * MS;
    assert_eq!(
        arm(&mut sidecar, run, earlier_ns),
        Event::Armed { run, deadline_ns }
    );
    assert_died_at(deadline_ns, died_at_ns(pid, LIMIT));
}

#[test]
fn an_extension_holds_without_a_word_and_is_told_before_the_end() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let first_ns = boot_now_ns() + 200 * MS;
    assert_eq!(
        arm(&mut sidecar, run, first_ns),
        Event::Armed {
            run,
            deadline_ns: first_ns
        }
    );
    let deadline_ns = boot_now_ns() + 400 * MS;
    sidecar.send(Command::Extend { run, deadline_ns });
    assert_died_at(deadline_ns, died_at_ns(pid, LIMIT));
    // Nothing came between; how the end is seen differs.
    assert_eq!(sidecar.next(), Event::Armed { run, deadline_ns });
    assert!(matches!(
        sidecar.next(),
        Event::Doomed { .. } | Event::Exited { .. }
    ));
}

#[test]
fn a_confirmation_that_nobody_waits_for_wakes_nobody() {
    const EXTENSIONS: u64 = 20;
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let mut deadline_ns = boot_now_ns() + 60_000 * MS;
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns),
        Event::Armed { run, deadline_ns }
    );
    // On one processor the leash answers when the guard sleeps.
    for process in [guard.pid(), parent_of(pid)] {
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(Some(process), &first).unwrap();
    }
    let before = sleeps(guard.pid());
    for _ in 0..EXTENSIONS {
        deadline_ns += MS;
        sidecar.send(Command::Extend { run, deadline_ns });
        std::thread::sleep(Duration::from_millis(5));
    }
    let count = sleeps(guard.pid()) - before;
    assert!(count < EXTENSIONS * 3 / 2, "{count}");
    // An order whose answer is wanted is answered, and by what the kernel was given last.
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns - MS),
        Event::Armed { run, deadline_ns }
    );
}

/// How often a process has gone to sleep.
fn sleeps(pid: Pid) -> u64 {
    status_number(pid, "voluntary_ctxt_switches:")
}

#[test]
fn a_passed_deadline_and_another_run_are_refused() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let deadline_ns = boot_now_ns();
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns),
        Event::ArmRefused { run, deadline_ns }
    );
    let (other, deadline_ns) = (RunId(run.0 + 1), boot_now_ns() + 500 * MS);
    let refused = Event::ArmRefused {
        run: other,
        deadline_ns,
    };
    assert_eq!(arm(&mut sidecar, other, deadline_ns), refused);
    assert_eq!(died_at_ns(pid, Duration::from_millis(600)), None);
}

#[test]
fn the_state_tells_the_deadline_to_a_new_sidecar() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let deadline_ns = boot_now_ns() + 300 * MS;
    arm(&mut sidecar, run, deadline_ns);
    drop(sidecar);
    let mut sidecar = guard.connect();
    sidecar.send(Command::Hello);
    let state = sidecar.next();
    assert!(matches!(state, Event::State { deadline_ns: found, .. } if found == deadline_ns));
    assert_died_at(deadline_ns, died_at_ns(pid, LIMIT));
}

/// Stops those that `select` picks, and lets them go on only long after the deadline.
fn dies_while_stopped(select: fn(guard: Pid, leash: Pid, server: Pid) -> Vec<Pid>) {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, server) = guard.launch(&mut sidecar, None);
    let stopped = select(guard.pid(), parent_of(server), server);
    let deadline_ns = boot_now_ns() + 150 * MS;
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns),
        Event::Armed { run, deadline_ns }
    );
    for &pid in &stopped {
        kill(pid, Signal::STOP);
    }
    assert_died_at(deadline_ns, died_at_ns(server, LIMIT));
    kill(guard.pid(), Signal::CONT);
    let event = sidecar.next();
    assert!(
        matches!(
            event,
            Event::Exited {
                status: ExitKind::Signal(9),
                ..
            }
        ),
        "{event:?}"
    );
}

#[test]
fn it_dies_with_the_guard_stopped() {
    dies_while_stopped(|guard, _, _| vec![guard]);
}

#[test]
fn it_dies_with_the_leash_stopped() {
    dies_while_stopped(|_, leash, _| vec![leash]);
}

#[test]
fn it_dies_with_everything_stopped() {
    dies_while_stopped(|guard, leash, server| vec![guard, leash, server]);
}

#[test]
fn a_stopped_leash_confirms_nothing() {
    let _alone = alone();
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, server) = guard.launch(&mut sidecar, None);
    kill(parent_of(server), Signal::STOP);
    sidecar.send(Command::Arm {
        run,
        deadline_ns: boot_now_ns() + 1000 * MS,
    });
    assert_eq!(sidecar.next_within(Duration::from_millis(200)), None);
    sidecar.send(Command::Stop { run });
    assert!(matches!(sidecar.next(), Event::Exited { asked: true, .. }));
}

#[test]
fn a_thawed_server_answers_nothing_after_its_deadline() {
    let _alone = alone();
    for _ in 0..5 {
        freeze_and_count_strays();
    }
}

/// Freezes everything under load until after the deadline; fails on any answer after the thaw.
fn freeze_and_count_strays() {
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = std::env::current_exe().unwrap();
    let port_argument = format!("PBX_GUARD_TEST_PORT={port}");
    let command = [
        "env",
        &port_argument,
        server.to_str().unwrap(),
        "--ignored",
        "--exact",
    ];
    let command = [&command[..], &["stand_in_for_asterisk"]].concat();
    let mut guard = Guard::start_with(&[], &command);
    let mut sidecar = guard.greet();
    let (run, server) = guard.launch(&mut sidecar, None);
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.connect(("127.0.0.1", port)).unwrap();
    phone
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    await_answer(&phone);

    let deadline_ns = boot_now_ns() + 100 * MS;
    assert_eq!(
        arm(&mut sidecar, run, deadline_ns),
        Event::Armed { run, deadline_ns }
    );
    let all = [guard.pid(), parent_of(server), server];
    for pid in all {
        kill(pid, Signal::STOP);
    }
    while boot_now_ns() < deadline_ns + 50 * MS {
        let _ = phone.send(b"?");
        std::thread::sleep(Duration::from_millis(1));
    }
    drain(&phone);
    for pid in all {
        // Those that the kernel killed are zombies: the signal does nothing.
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
    assert!(phone.recv(&mut [0; 8]).is_err(), "an answer after the thaw");
}

fn await_answer(phone: &UdpSocket) {
    let begin = Instant::now();
    while phone.send(b"?").is_err() || phone.recv(&mut [0; 8]).is_err() {
        assert!(begin.elapsed() < LIMIT, "the stand-in does not answer");
    }
}

/// Takes what was answered before the freeze, and the kernel's refusals since.
fn drain(phone: &UdpSocket) {
    phone.set_nonblocking(true).unwrap();
    loop {
        match phone.recv(&mut [0; 8]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            _ => {}
        }
    }
    phone.set_nonblocking(false).unwrap();
}

/// The server that the guard starts in `freeze_and_count_strays`: answers every datagram.
#[test]
#[ignore = "no test: the process that stands in for Asterisk"]
fn stand_in_for_asterisk() {
    let Some(port) = std::env::var("PBX_GUARD_TEST_PORT")
        .ok()
        .and_then(|p| p.parse::<u16>().ok())
    else {
        return;
    };
    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    while let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
        socket.send_to(b"!", from).unwrap();
    }
}
