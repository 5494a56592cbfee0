//! The figures of a crowd at one host, in turns with the same host without it.

use std::time::Duration;

use anyhow::Result;
use pbx_tests::bare_hosts::BareHosts;
use pbx_tests::doors;
use pbx_tests::doors::crowd::effects::{self, CROWDED, Memory};
use pbx_tests::doors::crowd::{Crowd, Size};
use pbx_tests::measure::{Figure, Goal};

use super::{Arguments, HOSTS, figure, ratio, repeat};

const CROWD: Size = Size {
    websockets: 1_000,
    heartbeats: 200,
    stalled_websockets: 100,
    stalled_heartbeats: 100,
    reconnecting: 100,
};
/// Each state has its turn so often.
const TURNS: usize = 2;
const JITTER_RUNS: usize = 3;
const JITTER_TIME: Duration = Duration::from_secs(5);
/// How much more than without the crowd is as good as the same.
const SAME: f64 = 1.1;
const STALLED_KIB: f64 = 64.0;

/// Failovers and jitters, and those that could not be measured.
#[derive(Default)]
struct Seen {
    failovers: (Vec<f64>, Vec<String>),
    jitters: (Vec<f64>, Vec<String>),
}

/// Memory first: later the allocator has seen worse.
pub(super) fn figures(arguments: &Arguments) -> Result<Vec<Figure>> {
    let hosts = doors::start(HOSTS)?;
    let memory = effects::memory(&hosts, CROWD)?;
    eprintln!("    {memory:?}");
    let (mut without, mut with) = (Seen::default(), Seen::default());
    let (mut lost, mut visits) = (0, 0);
    for _ in 0..TURNS {
        look(&hosts, arguments.runs.div_ceil(TURNS), &mut without);
        let crowd = Crowd::start(&hosts, CROWDED, CROWD)?;
        look(&hosts, arguments.runs.div_ceil(TURNS), &mut with);
        lost += crowd.lost();
        visits += crowd.visits();
    }
    let mut figures = rows(&without, &with, (lost, visits));
    figures.extend(of_memory(memory));
    Ok(figures)
}

fn look(hosts: &BareHosts, failovers: usize, seen: &mut Seen) {
    let found = repeat("jitter", JITTER_RUNS, || {
        effects::jitter_ms(hosts, JITTER_TIME)
    });
    seen.jitters.0.extend(found.0);
    seen.jitters.1.extend(found.1);
    let found = repeat("failover", failovers, || effects::failover_ms(hosts));
    seen.failovers.0.extend(found.0);
    seen.failovers.1.extend(found.1);
}

fn rows(without: &Seen, with: &Seen, (lost, visits): (usize, usize)) -> Vec<Figure> {
    let ms = |name: &str, what: &str, found: &(Vec<f64>, Vec<String>)| {
        Figure::new(name, what, "ms", Goal::None, &found.0, &found.1)
    };
    let calm = ms(
        "doors.crowd.failover_ms.without",
        "kill of the active's Asterisk until another core serves, no clients",
        &without.failovers,
    );
    let crowded = ms(
        "doors.crowd.failover_ms",
        "… with 1,000 subscribers, 200 Heartbeat clients, 100 of each stalled, 100 coming and going",
        &with.failovers,
    );
    let same = Goal::Median(SAME);
    let name = "doors.crowd.failover_ms.ratio";
    let of_failovers = figure(
        name,
        "… with, times without",
        "×",
        same,
        &ratio(&crowded, &calm),
    );
    let calm_jitter = ms(
        "doors.crowd.jitter_ms.without",
        "jitter of the heartbeats' round trip, jobs told four times a second, no clients",
        &without.jitters,
    );
    let jitter = ms("doors.crowd.jitter_ms", "… with the crowd", &with.jitters);
    let name = "doors.crowd.jitter_ms.ratio";
    let of_jitters = figure(
        name,
        "… with, times without",
        "×",
        same,
        &ratio(&jitter, &calm_jitter),
    );
    let what = "clients that read and were cut off";
    let lost = figure(
        "doors.crowd.lost",
        what,
        "clients",
        Goal::Max(0.0),
        &[count(lost)],
    );
    let what = "visits of those who come and go";
    let visits = figure(
        "doors.crowd.visits",
        what,
        "visits",
        Goal::None,
        &[count(visits)],
    );
    vec![
        calm,
        crowded,
        of_failovers,
        calm_jitter,
        jitter,
        of_jitters,
        lost,
        visits,
    ]
}

fn of_memory(memory: Memory) -> Vec<Figure> {
    let kib = |name: &str, what: &str, goal: Goal, value: f64| {
        figure(&format!("doors.crowd.{name}"), what, "KiB", goal, &[value])
    };
    let most = Goal::Max(STALLED_KIB);
    vec![
        kib(
            "websocket_kib",
            "memory for each subscriber",
            Goal::None,
            memory.of_websocket,
        ),
        kib(
            "heartbeat_kib",
            "memory for each Heartbeat client",
            Goal::None,
            memory.of_heartbeat,
        ),
        kib(
            "stalled_websocket_kib",
            "memory for each stalled subscriber, at its highest",
            most,
            memory.of_stalled_websocket,
        ),
        kib(
            "stalled_heartbeat_kib",
            "memory for each stalled Heartbeat client, at its highest",
            most,
            memory.of_stalled_heartbeat,
        ),
        kib(
            "before_kib",
            "the sidecar's memory before the crowd",
            Goal::None,
            memory.before,
        ),
        kib("after_kib", "… after it", Goal::None, memory.after),
        figure(
            "doors.crowd.after.ratio",
            "… after, times before",
            "×",
            Goal::Max(SAME),
            &[memory.after / memory.before],
        ),
    ]
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 are counted")]
fn count(number: usize) -> f64 {
    number as f64
}
