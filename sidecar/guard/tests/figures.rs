//! Measurements, not tests: `cargo test -p pbx-guard --test figures -- --ignored --nocapture --test-threads 1`
//! (with `--profile local` for the binary as it ships).

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]
#![allow(clippy::cast_precision_loss, reason = "percentages for people")]

mod support;

use std::time::Duration;

use pbx_guard::boot_now_ns;
use pbx_guard::protocol::{Command, Event};
use rustix::process::Signal;
use support::{Guard, MS, kill, parent_of};

fn print_spread(name: &str, mut values_ns: Vec<u64>) {
    values_ns.sort_unstable();
    let us = |index: usize| values_ns[index] / 1000;
    let last = values_ns.len() - 1;
    println!(
        "{name}: n={} min {} us, median {} us, p99 {} us, max {} us",
        values_ns.len(),
        us(0),
        us(last / 2),
        us(last * 99 / 100),
        us(last)
    );
}

#[test]
#[ignore = "a measurement"]
fn latencies() {
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (mut starts, mut exits) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let ordered_at = boot_now_ns();
        let (_, pid) = guard.launch(&mut sidecar, None);
        starts.push(boot_now_ns() - ordered_at);
        let killed_at = boot_now_ns();
        kill(pid, Signal::KILL);
        assert!(matches!(sidecar.next(), Event::Exited { .. }));
        exits.push(boot_now_ns() - killed_at);
    }
    print_spread("Start -> Started", starts);
    print_spread("kill -9 -> Exited", exits);

    let (run, _) = guard.launch(&mut sidecar, None);
    let mut arms = Vec::new();
    for _ in 0..500 {
        let sent_at = boot_now_ns();
        sidecar.send(Command::Arm {
            run,
            deadline_ns: sent_at + 5000 * MS,
        });
        assert!(matches!(sidecar.next(), Event::Armed { .. }));
        arms.push(boot_now_ns() - sent_at);
        std::thread::sleep(Duration::from_millis(2));
    }
    print_spread("Arm -> Armed", arms);
    sidecar.send(Command::Stop { run });
    assert!(matches!(sidecar.next(), Event::Exited { .. }));
}

#[test]
#[ignore = "a measurement"]
fn deaths_at_the_deadline() {
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let mut late = Vec::new();
    for _ in 0..50 {
        let deadline_ns = boot_now_ns() + 40 * MS;
        guard.launch(&mut sidecar, Some(deadline_ns));
        let at_ns = loop {
            if let Event::Exited { at_ns, .. } = sidecar.next() {
                break at_ns;
            }
        };
        late.push(at_ns - deadline_ns);
    }
    print_spread("deadline -> gone", late);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_ten_arms_a_second() {
    const ARMS: u32 = 100;
    let mut guard = Guard::start();
    let mut sidecar = guard.greet();
    let (run, pid) = guard.launch(&mut sidecar, None);
    let leash = parent_of(pid);
    let used = || (Guard::usage(guard.pid()), Guard::usage(leash));
    let (begin, begin_ns) = (used(), boot_now_ns());
    for _ in 0..ARMS {
        sidecar.send(Command::Arm {
            run,
            deadline_ns: boot_now_ns() + 5000 * MS,
        });
        assert!(matches!(sidecar.next(), Event::Armed { .. }));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (end, took_ns) = (used(), boot_now_ns() - begin_ns);
    let percent = |end: u64, begin: u64| (end - begin) as f64 * 100.0 / took_ns as f64;
    println!(
        "guard: CPU {:.4} %, RSS {} KiB",
        percent(end.0.0, begin.0.0),
        end.0.1
    );
    println!(
        "leash: CPU {:.4} %, RSS {} KiB",
        percent(end.1.0, begin.1.0),
        end.1.1
    );
}
