//! What a system costs a node while nothing happens: processor time and memory of its processes, the service left out.

use std::fs;
use std::time::Duration;

use anyhow::Result;

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

fn is_own(process: &Process) -> bool {
    // The guard's arguments name Asterisk too; what it is says its own name.
    !SERVICE.contains(&process.program())
}

/// The scheduler's own count, of all threads: finer than the ticks of `stat`.
fn cpu_ns(processes: &[Process]) -> u64 {
    let of_thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = processes.iter().flat_map(|process| {
        let folder = fs::read_dir(format!("/proc/{}/task", process.pid));
        folder
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
    });
    threads.filter_map(of_thread).sum()
}

fn rss_mib(processes: &[Process]) -> f64 {
    let of_process = |process: &Process| process.memory_kib("VmRSS").ok();
    processes.iter().filter_map(of_process).sum::<f64>() / KIB_A_MIB
}
