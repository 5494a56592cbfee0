//! `cargo xtask soak`: three hosts with real Asterisks and the default timings on a machine whose cores are all busy. Nothing fails, so
//! nothing may fail over.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use pbx_crds::cluster::FailoverSpec;
use pbx_crds::report::Report;
use pbx_crds::status::ClusterCounts;
use pbx_tests::bare_hosts::BareHosts;
use pbx_tests::failover::Contender;
use pbx_tests::failover::ours::Ours;
use pbx_tests::images::Profile;
use pbx_tests::measure::{Figure, Goal, markdown_table};

use crate::results::write_json;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_mins(1);

/// A long time under load.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Looks on, prints the figures, and fails when the role moved.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut ours = Ours::start("soak", FailoverSpec::default(), Profile::Local)?;
    ours.wait_whole()?;
    let before = seen(ours.hosts())?;
    let load = Load::begin();
    let after = look_on(ours.hosts(), Duration::from_secs(arguments.minutes * 60));
    load.end();
    let (after, looks) = after?;
    let moves = after.counts.failovers + after.counts.switchovers
        - before.counts.failovers
        - before.counts.switchovers;
    let figures = [
        figure(
            "failover.false",
            "moves of the role while nothing failed",
            "moves",
            Goal::Max(0.0),
            moves,
        ),
        figure(
            "failover.false_restarts",
            "restarts of Asterisk while nothing failed",
            "restarts",
            Goal::Max(0.0),
            after.restarts - before.restarts,
        ),
        figure(
            "failover.suppressed",
            "moves that were not made, for a reason",
            "moves",
            Goal::None,
            after.counts.suppressed - before.counts.suppressed,
        ),
        figure(
            "failover.looks",
            "looks at all three hosts, a second apart",
            "looks",
            Goal::None,
            looks,
        ),
    ];
    println!("{}", markdown_table(&figures));
    write_json(arguments.json.as_deref(), &figures)?;
    ensure!(
        after.epoch == before.epoch && moves == 0,
        "the role moved while nothing failed"
    );
    Ok(())
}

/// What the hosts say of the past.
struct Seen {
    epoch: i64,
    counts: ClusterCounts,
    restarts: u64,
}

/// All hosts agree in steady state; the highest is the newest.
fn seen(hosts: &BareHosts) -> Result<Seen> {
    let reports = (0..hosts.count()).map(|index| hosts.report(index));
    let reports: Vec<Report> = reports.collect::<Result<_>>()?;
    let newest = reports.iter().max_by_key(|report| report.epoch);
    let newest = newest.context("there are no hosts")?;
    let restarts = reports.iter().map(|report| {
        let own = newest.ledger.node_counts(&report.node);
        own.asterisk_restarts
    });
    Ok(Seen {
        epoch: newest.epoch,
        counts: newest.ledger.cluster_counts(),
        restarts: restarts.sum(),
    })
}

/// A host that does not answer in time is looked at again: its HTTP is no part of what is promised here.
fn look_on(hosts: &BareHosts, length: Duration) -> Result<(Seen, u64)> {
    let begun_at = Instant::now();
    let (mut looks, mut told_at) = (0, begun_at);
    while begun_at.elapsed() < length {
        thread::sleep(LOOK_EVERY);
        let Ok(now) = seen(hosts) else { continue };
        looks += 1;
        if told_at.elapsed() > TELL_EVERY {
            told_at = Instant::now();
            let minutes = begun_at.elapsed().as_secs() / 60;
            eprintln!("{minutes} minutes: epoch {}, {:?}", now.epoch, now.counts);
        }
    }
    Ok((seen(hosts)?, looks))
}

/// Threads that do nothing, all the time.
struct Load {
    is_over: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn begin() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let is_over = Arc::new(AtomicBool::new(false));
        let workers = (0..cores).map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        Self {
            workers: workers.collect(),
            is_over,
        }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().expect("a loop does not panic");
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of half an hour")]
fn figure(name: &str, what: &str, unit: &str, goal: Goal, count: u64) -> Figure {
    Figure::new(name, what, unit, goal, &[count as f64], &[])
}
