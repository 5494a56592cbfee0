//! `cargo xtask bench ami`: the AMI hub and Asterisk's own manager, on a real Asterisk, in turns.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use pbx_tests::ami::fanout::{self, Load};
use pbx_tests::ami::{DIRECT, Door, HUB, Stand, abuse, crash, ping};
use pbx_tests::measure::markdown_table;
use pbx_tests::measure::{Figure, Goal};

use super::measured::chosen;
use crate::results::{ensure_met, write_json, write_table};

const DOCUMENT: &str = "docs/ami.md";
const MARKERS: (&str, &str) = ("<!-- bench:ami:begin -->", "<!-- bench:ami:end -->");
const CLIENTS: usize = 30;
const PINGS: usize = 5_000;
const NAMES: [&str; 6] = [
    "ami.ping",
    "ami.latency_us",
    "ami.fanout",
    "ami.stalled",
    "ami.abuse",
    "ami.crash_safe",
];

/// How to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table into docs/ami.md, between its markers
    #[arg(long)]
    docs: bool,
    /// This figure only, such as ami.ping; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Runs of each figure
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each run of ami.ping and ami.fanout
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of ami.abuse
    #[arg(long, default_value_t = 90)]
    abuse_seconds: u64,
}

/// Measures, prints the table, and fails when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let names = chosen(&NAMES, &arguments.only, |name| name)?;
    let mut stand = Stand::start("amibench")?;
    let mut figures = Vec::new();
    for name in names {
        eprintln!("==> {name}");
        let measured = match *name {
            "ami.ping" => pings(&stand, arguments),
            "ami.latency_us" => latency(&stand, arguments),
            "ami.fanout" => fan_out(&stand, arguments),
            "ami.stalled" => stalled(&stand, arguments),
            "ami.abuse" => abused(&stand, arguments),
            _ => crashed(&mut stand),
        };
        figures.extend(measured.with_context(|| (*name).to_owned())?);
    }
    let table = markdown_table(&figures);
    println!("{table}");
    write_json(arguments.json.as_deref(), &figures)?;
    if arguments.docs {
        write_table(DOCUMENT, MARKERS, &table)?;
    }
    ensure_met(&figures)
}

fn figure(name: &str, what: &str, unit: &str, goal: Goal, values: &[f64]) -> Figure {
    Figure::new(name, what, unit, goal, values, &[])
}

/// One run's values, a column for each row of the table.
fn note<const ROWS: usize>(values: &mut [Vec<f64>], run: [f64; ROWS]) {
    values
        .iter_mut()
        .zip(run)
        .for_each(|(all, one)| all.push(one));
}

/// Rows of the table: name, what it is, unit, goal; and their values.
fn figures_of<const ROWS: usize>(
    rows: [(&str, &str, &str, Goal); ROWS],
    values: &[Vec<f64>],
) -> Vec<Figure> {
    let rows = rows.into_iter().zip(values);
    rows.map(|((name, what, unit, goal), values)| figure(name, what, unit, goal, values))
        .collect()
}

/// Plain pings, which the hub asks once for all that wait in a row, and pings of one header more, which it takes like any other
/// action: each beside Asterisk's own manager, in turns.
fn pings(stand: &Stand, arguments: &Arguments) -> Result<Vec<Figure>> {
    let time = Duration::from_secs(arguments.seconds);
    let mut values = [const { Vec::new() }; 6];
    for _ in 0..arguments.runs {
        for (headers, values) in [&[], ping::ALONE].into_iter().zip(values.chunks_mut(3)) {
            let own = ping::rate(stand, DIRECT, headers, CLIENTS, time).context("directly")?;
            let through =
                ping::rate(stand, HUB, headers, CLIENTS, time).context("through the hub")?;
            eprintln!("    direct {own:.0}/s, through the hub {through:.0}/s");
            let row = [through, own, through / own];
            note(values, row);
        }
    }
    let (rate, share) = (Goal::AtLeast(100_000.0), Goal::AtLeast(0.8));
    let direct = "… of Asterisk's own manager, in turns with it";
    let ratio = "… the hub's share of it";
    let rows = [
        (
            "ami.ping",
            "Pings through the hub, 30 clients pipelined",
            "1/s",
            rate,
        ),
        ("ami.ping.direct", direct, "1/s", Goal::None),
        ("ami.ping.ratio", ratio, "", share),
        (
            "ami.ping.alone",
            "… pings of one header more, which share no answer: any other action",
            "1/s",
            Goal::None,
        ),
        ("ami.ping.alone.direct", direct, "1/s", Goal::None),
        ("ami.ping.alone.ratio", ratio, "", Goal::None),
    ];
    Ok(figures_of(rows, &values))
}

fn latency(stand: &Stand, arguments: &Arguments) -> Result<Vec<Figure>> {
    let median = |door: Door| -> Result<f64> {
        let mut times = ping::times_us(stand, door, PINGS)?;
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    };
    let (mut added, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let own = median(DIRECT)?;
        added.push(median(HUB)? - own);
        direct.push(own);
    }
    Ok(vec![
        figure(
            "ami.latency_us",
            "Ping of one client, one after the other: what the hub adds to the median",
            "µs",
            Goal::Median(100.0),
            &added,
        ),
        figure(
            "ami.latency_us.direct",
            "… median of Asterisk's own manager",
            "µs",
            Goal::None,
            &direct,
        ),
    ])
}

fn fan_out(stand: &Stand, arguments: &Arguments) -> Result<Vec<Figure>> {
    let load = Load {
        door: HUB,
        readers: CLIENTS,
        stalled: 0,
        trickling: 0,
        rate: 10_000,
        size: 150,
        time: Duration::from_secs(arguments.seconds),
    };
    let mut values = [const { Vec::new() }; 5];
    for _ in 0..arguments.runs {
        let own = fanout::measure(
            stand,
            Load {
                door: DIRECT,
                ..load
            },
        )?;
        let seen = fanout::measure(stand, load)?;
        eprintln!(
            "    {:.0} events/s to {CLIENTS}: {} lost, p99 {:.0} µs (direct {:.0}/s, {:.0} µs), {:.0} % of a core",
            seen.rate,
            seen.lost,
            seen.p99_us(),
            own.rate,
            own.p99_us(),
            seen.hub_cpu_percent
        );
        let row = [
            seen.p99_us() / 1e3,
            own.p99_us() / 1e3,
            count(seen.lost),
            seen.hub_cpu_percent,
            seen.rate,
        ];
        note(&mut values, row);
    }
    let whole = "30 clients, 10,000 events/s: from raising to arrival, p99";
    let own = "… by Asterisk's own manager, in turns with it";
    let rows = [
        ("ami.fanout", whole, "ms", Goal::Median(5.0)),
        ("ami.fanout.direct", own, "ms", Goal::None),
        ("ami.fanout.lost", "… events lost", "events", Goal::Max(0.0)),
        (
            "ami.fanout.cpu",
            "… the hub's share of a core",
            "%",
            Goal::Median(50.0),
        ),
        ("ami.fanout.rate", "… events raised", "1/s", Goal::None),
    ];
    Ok(figures_of(rows, &values))
}

fn stalled(stand: &Stand, arguments: &Arguments) -> Result<Vec<Figure>> {
    let calm = Load {
        door: HUB,
        readers: CLIENTS - 2,
        stalled: 0,
        trickling: 0,
        rate: 1_000,
        size: 2_000,
        time: Duration::from_secs(arguments.seconds * 2),
    };
    let mut values = [const { Vec::new() }; 4];
    for _ in 0..arguments.runs {
        let without = fanout::measure(stand, calm)?;
        let with = fanout::measure(
            stand,
            Load {
                stalled: 1,
                trickling: 1,
                ..calm
            },
        )?;
        eprintln!(
            "    p99 {:.0} µs, with them {:.0} µs; hub {:+} KiB against {:+}, asterisk {:+} KiB",
            without.p99_us(),
            with.p99_us(),
            with.hub_growth_kib,
            without.hub_growth_kib,
            with.asterisk_growth_kib
        );
        values[0].push(with.p99_us() / without.p99_us());
        values[1].push(
            f64::from(i32::try_from(
                with.hub_growth_kib - without.hub_growth_kib.max(0),
            )?) / 2.0,
        );
        values[2].push(f64::from(i32::try_from(with.asterisk_growth_kib)?));
        values[3].push(count(with.lost));
    }
    Ok(vec![
        figure(
            "ami.stalled",
            "one stalled and one trickling reader among 30: p99 of the others, times that without",
            "×",
            Goal::Median(1.2),
            &values[0],
        ),
        figure(
            "ami.stalled.hub_kib",
            "… the hub's memory for each",
            "KiB",
            Goal::Max(1024.0),
            &values[1],
        ),
        figure(
            "ami.stalled.asterisk_kib",
            "… growth of Asterisk",
            "KiB",
            Goal::Max(2048.0),
            &values[2],
        ),
        figure(
            "ami.stalled.lost",
            "… events lost by the others",
            "events",
            Goal::Max(0.0),
            &values[3],
        ),
    ])
}

fn abused(stand: &Stand, arguments: &Arguments) -> Result<Vec<Figure>> {
    let seen = abuse::measure(stand, CLIENTS, Duration::from_secs(arguments.abuse_seconds))?;
    eprintln!("    {seen:?}");
    Ok(vec![
        figure(
            "ami.abuse",
            "abuse by 25 clients: growth of Asterisk's memory",
            "%",
            Goal::Max(5.0),
            &[seen.asterisk_growth_percent],
        ),
        figure(
            "ami.abuse.unanswered",
            "… actions of 5 well-behaved clients without an answer",
            "actions",
            Goal::Max(0.0),
            &[count(seen.unanswered)],
        ),
        figure(
            "ami.abuse.asked",
            "… their actions",
            "actions",
            Goal::None,
            &[count(seen.asked)],
        ),
        figure(
            "ami.abuse.abuses",
            "… connections of the abusers",
            "connections",
            Goal::None,
            &[count(seen.abuses)],
        ),
        figure(
            "ami.abuse.hub_kib",
            "… growth of the hub's memory",
            "KiB",
            Goal::Max(16_384.0),
            &[f64::from(i32::try_from(seen.hub_growth_kib)?)],
        ),
    ])
}

fn crashed(stand: &mut Stand) -> Result<Vec<Figure>> {
    let seen = crash::measure(stand, 1_000, 5)?;
    eprintln!("    {seen:?}");
    Ok(vec![
        figure(
            "ami.crash_safe",
            "1,000 queued actions, five kills: done twice, lost, or told wrongly",
            "actions",
            Goal::Max(0.0),
            &[count(seen.wrong)],
        ),
        figure(
            "ami.crash_safe.done",
            "… done once",
            "actions",
            Goal::None,
            &[count(seen.done)],
        ),
        figure(
            "ami.crash_safe.unknown",
            "… reported unknown",
            "actions",
            Goal::None,
            &[count(seen.unknown)],
        ),
    ])
}

#[allow(
    clippy::cast_precision_loss,
    reason = "fewer than 2^52 things are counted"
)]
fn count(number: usize) -> f64 {
    number as f64
}
