//! What a crowd does to the host that it came to: to its heartbeats, to a failover in which it takes part, to its memory.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pbx_crds::names::HTTP_PORT;

use super::{Crowd, Size};
use crate::bare_hosts::{BareHosts, TOKEN};
use crate::clock::Moment;
use crate::doors::PATIENCE;
use crate::http;

/// The host that the crowd comes to; in failovers between the first two it is always one of them.
pub const CROWDED: usize = 0;
/// The host that measures the heartbeats of the crowded one.
const NEIGHBOUR: usize = 1;
const PROMOTION_LIMIT: Duration = Duration::from_secs(5);
/// Jobs told to all subscribers while the heartbeats are looked at, so often.
const JOB_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A stalled client has filled by then what it can.
const FILLED_AFTER: Duration = Duration::from_secs(3);
/// What is freed is given back by then.
const SETTLED_AFTER: Duration = Duration::from_secs(12);

/// Memory of the crowded sidecar, KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Before anybody came.
    pub before: f64,
    /// For each subscriber that reads.
    pub of_websocket: f64,
    /// For each client of Heartbeat's that reads.
    pub of_heartbeat: f64,
    /// For each subscriber that does not read, at the most.
    pub of_stalled_websocket: f64,
    /// The same of Heartbeat's.
    pub of_stalled_heartbeat: f64,
    /// After all have gone.
    pub after: f64,
}

/// From the kill of the active's Asterisk until another core decides to serve; milliseconds.
pub fn failover_ms(hosts: &BareHosts) -> Result<f64> {
    let active = hosts.wait_whole(PATIENCE)?;
    let epoch_before = hosts.report(active)?.epoch;
    let killed_at = Moment::now();
    hosts.kill_asterisk(active)?;
    let others: Vec<usize> = (0..hosts.count()).filter(|one| *one != active).collect();
    let promoted_at = hosts.wait_promotion(&others, epoch_before, PROMOTION_LIMIT)?;
    Ok(promoted_at.ms_since(killed_at))
}

/// The mean jitter of the round trip between the crowded host and its neighbour over so long, as the neighbour measures it;
/// milliseconds. Meanwhile jobs are told to whoever subscribed.
pub fn jitter_ms(hosts: &BareHosts, time: Duration) -> Result<f64> {
    hosts.wait_whole(PATIENCE)?;
    let (began, mut last_job) = (Instant::now(), Instant::now());
    let (mut sum, mut count) = (0.0, 0.0);
    while began.elapsed() < time {
        std::thread::sleep(LOOK_EVERY);
        if last_job.elapsed() >= JOB_EVERY {
            last_job = Instant::now();
            tell_jobs(hosts)?;
        }
        sum += jitter_now_ms(hosts)?;
        count += 1.0;
    }
    Ok(sum / count)
}

/// Two jobs that are done at once and change nothing in the end.
fn tell_jobs(hosts: &BareHosts) -> Result<()> {
    let host = hosts.host(CROWDED);
    let address = SocketAddrV4::new(host.address, HTTP_PORT);
    for action in ["pause", "resume"] {
        let path = format!("/v1/actions/{action}");
        let (status, said) = http::post(&host.path(), address, &path, Some(TOKEN), "")?;
        ensure!(status == 202, "{action} got {status}: {said}");
    }
    Ok(())
}

fn jitter_now_ms(hosts: &BareHosts) -> Result<f64> {
    let times = hosts.jitters(NEIGHBOUR)?;
    let of_crowded = times
        .into_iter()
        .find(|(name, _)| name.starts_with(&format!("pbx-{CROWDED}")));
    Ok(of_crowded.context("no link to the crowded host")?.1)
}

/// Brings the kinds of a crowd one after the other, and takes all away again.
pub fn memory(hosts: &BareHosts, size: Size) -> Result<Memory> {
    hosts.wait_whole(PATIENCE)?;
    // What the start used and freed is given back by then, too.
    std::thread::sleep(SETTLED_AFTER);
    let before = resident(hosts)?;
    let (mut crowds, mut costs) = (Vec::new(), Vec::new());
    for kind in size.kinds() {
        let (crowd, each) = grown(hosts, kind)?;
        crowds.push(crowd);
        costs.push(each);
    }
    let [
        of_websocket,
        of_heartbeat,
        of_stalled_websocket,
        of_stalled_heartbeat,
    ] = costs[..]
    else {
        unreachable!("there are four kinds that stay");
    };
    drop(crowds);
    std::thread::sleep(SETTLED_AFTER);
    Ok(Memory {
        before,
        of_websocket,
        of_heartbeat,
        of_stalled_websocket,
        of_stalled_heartbeat,
        after: resident(hosts)?,
    })
}

/// A crowd, and what each of its clients cost at the most, KiB.
fn grown(hosts: &BareHosts, size: Size) -> Result<(Crowd, f64)> {
    let sidecar = hosts.sidecar(CROWDED)?;
    let before = sidecar.memory_kib("VmRSS")?;
    sidecar.forget_peak()?;
    let crowd = Crowd::start(hosts, CROWDED, size)?;
    std::thread::sleep(FILLED_AFTER);
    let peak = sidecar.memory_kib("VmHWM")?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "a crowd is counted in thousands"
    )]
    let each = (peak - before) / size.all() as f64;
    Ok((crowd, each))
}

fn resident(hosts: &BareHosts) -> Result<f64> {
    hosts.sidecar(CROWDED)?.memory_kib("VmRSS")
}
