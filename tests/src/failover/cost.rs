//! What a system costs a node while nothing happens: processor time and memory of its processes, the service left out.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Contender;
use crate::cluster::Process;

const SECONDS_AN_HOUR: f64 = 3600.0;
const KIB_A_MIB: f64 = 1024.0;
/// Programs that are the service, or only watch it for the measurement.
const SERVICE: [&str; 3] = ["asterisk", "xtask", "sh"];

/// Of the costliest node.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor seconds an hour.
    pub cpu_s_per_h: f64,
    /// Resident memory of all its processes.
    pub rss_mib: f64,
}

/// Measures for so long.
pub fn cost(contender: &mut dyn Contender, time: Duration) -> Result<Cost> {
    contender.wait_whole()?;
    let nodes = contender.lan().hosts().len() - 2;
    let own = (0..nodes).map(|node| {
        Ok(contender
            .processes(node)?
            .into_iter()
            .filter(is_own)
            .collect())
    });
    let own = own.collect::<Result<Vec<Vec<Process>>>>()?;
    let before: Vec<u64> = own.iter().map(|processes| cpu_ns(processes)).collect();
    std::thread::sleep(time);
    let used = own
        .iter()
        .zip(before)
        .map(|(processes, before)| cpu_ns(processes).saturating_sub(before));
    let most = Duration::from_nanos(used.max().unwrap_or(0));
    let rss = own
        .iter()
        .map(|processes| rss_mib(processes))
        .fold(0.0, f64::max);
    Ok(Cost {
        cpu_s_per_h: most.as_secs_f64() / time.as_secs_f64() * SECONDS_AN_HOUR,
        rss_mib: rss,
    })
}

/// What this machine asks for a wake-up alone: a thread that does nothing but wake every `pause` and send itself a datagram.
pub fn least_cost(time: Duration, pause: Duration) -> Result<Cost> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("open a socket")?;
    socket.connect(socket.local_addr()?)?;
    let mut buffer = [0; 128];
    let (begun, before) = (Instant::now(), own_cpu_ns()?);
    let mut wakes = 0;
    while begun.elapsed() < time {
        std::thread::sleep(pause);
        socket.send(&buffer)?;
        socket.recv(&mut buffer)?;
        wakes += 1;
    }
    let of_one = Duration::from_nanos(own_cpu_ns()? - before).as_secs_f64() / f64::from(wakes);
    Ok(Cost {
        cpu_s_per_h: of_one / pause.as_secs_f64() * SECONDS_AN_HOUR,
        rss_mib: 0.0,
    })
}

fn own_cpu_ns() -> Result<u64> {
    thread_cpu_ns(Path::new("/proc/thread-self")).context("read this thread's schedstat")
}

fn is_own(process: &Process) -> bool {
    // The guard's arguments name Asterisk too; what it is says its own name.
    !SERVICE.contains(&process.program())
}

/// Of all threads.
fn cpu_ns(processes: &[Process]) -> u64 {
    let threads = processes.iter().flat_map(|process| {
        let folder = fs::read_dir(format!("/proc/{}/task", process.pid));
        folder
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
    });
    threads.filter_map(|thread| thread_cpu_ns(&thread)).sum()
}

/// The scheduler's own count, by the thread's folder in `/proc`: finer than the ticks of `stat`.
fn thread_cpu_ns(thread: &Path) -> Option<u64> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn rss_mib(processes: &[Process]) -> f64 {
    let of_process = |process: &Process| process.memory_kib("VmRSS").ok();
    processes.iter().filter_map(of_process).sum::<f64>() / KIB_A_MIB
}
