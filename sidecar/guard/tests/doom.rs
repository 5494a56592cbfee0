//! Asterisk's end is told before the kernel has taken it apart, and an ordinary thread's end is not taken for it.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use pbx_guard::boot_now_ns;
use pbx_guard::protocol::{Command, Event, ExitKind, RunId};
use rustix::process::{Pid, Signal};
use support::{Guard, LIMIT, MS, Sidecar, alone, kill};

const PART: &str = "PBX_GUARD_TEST_PART=many_threads";
/// The stand-in's threads, its first two (of the test harness) included.
const THREADS: usize = 10;
const SHORT_LIFE: Duration = Duration::from_millis(400);
/// Takes the kernel 10 ms and more to give back.
const MEMORY_BYTES: usize = 200 << 20;

#[test]
fn a_fatal_signal_is_told_before_the_process_is_gone() {
    let _alone = alone();
    let (mut guard, mut sidecar, run, pid) = armed_stand_in();
    let killed_at_ns = boot_now_ns();
    kill(pid, Signal::KILL);
    let Event::Doomed {
        run: doomed,
        at_ns,
        asked: false,
    } = sidecar.next()
    else {
        panic!("Doomed first");
    };
    assert_eq!(doomed, run);
    let Event::Exited {
        status,
        at_ns: gone_at_ns,
        ..
    } = sidecar.next()
    else {
        panic!("Exited second");
    };
    assert_eq!(status, ExitKind::Signal(9));
    println!(
        "doomed after {} us, gone after {} us",
        (at_ns - killed_at_ns) / 1_000,
        (gone_at_ns - killed_at_ns) / 1_000
    );
    assert!(at_ns < gone_at_ns);
    guard.launch(&mut sidecar, None);
}

#[test]
fn a_stop_is_told_as_asked() {
    let _alone = alone();
    let (_guard, mut sidecar, run, _) = armed_stand_in();
    sidecar.send(Command::Stop { run });
    assert!(matches!(sidecar.next(), Event::Doomed { asked: true, .. }));
    assert!(matches!(sidecar.next(), Event::Exited { asked: true, .. }));
}

#[test]
fn the_end_of_one_thread_tells_nothing() {
    let _alone = alone();
    let (_guard, mut sidecar, run, pid) = armed_stand_in();
    await_threads(pid, |count| count < THREADS);
    assert_eq!(sidecar.next_within(Duration::from_millis(50)), None);
    // The next renewal watches other threads.
    let deadline_ns = boot_now_ns() + 60_000 * MS;
    sidecar.send(Command::Arm { run, deadline_ns });
    assert_eq!(sidecar.next(), Event::Armed { run, deadline_ns });
    kill(pid, Signal::KILL);
    assert!(matches!(sidecar.next(), Event::Doomed { .. }));
    assert!(matches!(sidecar.next(), Event::Exited { .. }));
}

#[test]
fn a_stopped_process_is_not_taken_for_a_dead_one() {
    let _alone = alone();
    let (_guard, mut sidecar, _, pid) = armed_stand_in();
    kill(pid, Signal::STOP);
    assert_eq!(sidecar.next_within(2 * SHORT_LIFE), None);
    kill(pid, Signal::CONT);
    // Its short-lived thread ends now, and nothing else does.
    assert_eq!(sidecar.next_within(2 * SHORT_LIFE), None);
    kill(pid, Signal::KILL);
    assert!(matches!(sidecar.next(), Event::Exited { .. }));
}

/// A process of many threads and much memory, all of them there, with a deadline far away.
fn armed_stand_in() -> (Guard, Sidecar, RunId, Pid) {
    let myself = std::env::current_exe().unwrap();
    let command = [
        "env",
        PART,
        myself.to_str().unwrap(),
        "--ignored",
        "--exact",
        "stand_in_with_many_threads",
    ];
    let mut guard = Guard::start_with(&[], &command);
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    await_threads(pid, |count| count == THREADS);
    let deadline_ns = boot_now_ns() + 30_000 * MS;
    sidecar.send(Command::Arm { run, deadline_ns });
    assert_eq!(sidecar.next(), Event::Armed { run, deadline_ns });
    (guard, sidecar, run, pid)
}

fn await_threads(pid: Pid, is_right: impl Fn(usize) -> bool) {
    let begin = Instant::now();
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    while !is_right(fs::read_dir(&tasks).unwrap().count()) {
        assert!(begin.elapsed() < LIMIT, "the stand-in has other threads");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the guard starts here. The first thread it makes, which is watched, ends early.
#[test]
#[ignore = "no test: the process that stands in for Asterisk"]
fn stand_in_with_many_threads() {
    if std::env::var("PBX_GUARD_TEST_PART").is_err() {
        return;
    }
    let memory = vec![1_u8; MEMORY_BYTES];
    thread::spawn(|| thread::sleep(SHORT_LIFE));
    for _ in 3..THREADS {
        thread::spawn(|| thread::sleep(Duration::from_mins(1)));
    }
    thread::sleep(Duration::from_mins(1));
    assert_eq!(memory[MEMORY_BYTES / 2], 1);
}
