//! The cluster's processes: started so that they outlive us, remembered in files, killed by pid.
//! A remembered pid carries its start time, so that a process that got the same number later is
//! never taken for ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Moment;

const DEATH_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// As proc(5) counts times on every Linux machine.
pub(crate) const TICKS_PER_SECOND: u16 = 100;

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// In the machine's pid namespace.
    pub pid: u32,
    /// Program and arguments.
    pub arguments: Vec<String>,
}

impl Process {
    /// The program's name without its folder.
    pub fn program(&self) -> &str {
        self.arguments
            .first()
            .map_or("", |first| first.rsplit('/').next().unwrap_or(first))
    }

    /// Sends a signal; fails when the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(rustix_pid(self.pid)?, signal)
            .with_context(|| format!("send {signal:?} to {} {:?}", self.pid, self.program()))
    }

    /// Its memory by the kernel's name for it, such as `VmRSS` (resident now) or `VmHWM` (at its highest); KiB.
    pub fn memory_kib(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.with_context(|| format!("read the memory of {}", self.pid))?;
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("{} has no {name}", self.pid))
    }

    /// Makes what is resident now the highest (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5")
            .with_context(|| format!("forget the highest memory of {}", self.pid))
    }
}

/// Starts a daemon called `name` in a session of its own, output to `folder/name.log`, its pid in
/// `folder/name.pid`.
pub(super) fn start(folder: &Path, name: &str, command: &[String]) -> Result<()> {
    let log = folder.join(format!("{name}.log"));
    // The shell leaves at once, so init becomes the parent and reaps; setsid keeps the pid, since
    // a background child of a plain shell leads no process group.
    let output = Command::new("sh")
        .args(["-c", r#"setsid "$@" </dev/null >>"$0" 2>&1 & echo $!"#])
        .arg(&log)
        .args(command)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {name}"))?;
    let pid: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .with_context(|| format!("start {name}: the shell gave no pid"))?;
    let started_at =
        start_time(pid).ok_or_else(|| anyhow!("{name} died at once: see {}", log.display()))?;
    let path = pid_file(folder, name);
    fs::write(&path, format!("{pid} {started_at}\n"))
        .with_context(|| format!("write {}", path.display()))
}

/// The same, of a daemon that is started again when it ends, as kubelet does with parts of a control plane: a scheduler ends itself
/// when it finds its memory of the pods wrong, which outages of the API server may cause. It dies with its keeper.
pub(super) fn keep(folder: &Path, name: &str, command: &[String]) -> Result<()> {
    let keeper = r#"while :; do setpriv --pdeathsig KILL "$@"; sleep 1; done"#;
    let kept = ["sh", "-c", keeper, name].map(str::to_owned);
    start(folder, name, &[&kept[..], command].concat())
}

/// The pid of the daemon, while it runs.
pub(super) fn running(folder: &Path, name: &str) -> Option<u32> {
    let text = fs::read_to_string(pid_file(folder, name)).ok()?;
    let (pid, started_at) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid)?.to_string() == started_at).then_some(pid)
}

/// Names of all daemons ever started with this folder.
pub(super) fn remembered(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_suffix(".pid")
                .map(str::to_owned)
        })
        .collect()
}

/// Kills the daemon, if it runs, and waits for its death.
pub(super) fn kill(folder: &Path, name: &str) -> Result<()> {
    kill_all(&running(folder, name).into_iter().collect())
}

/// Kills every one of `pids` by SIGKILL, all before waiting for any, and waits until all are dead.
pub(super) fn kill_all(pids: &BTreeSet<u32>) -> Result<()> {
    let alive: Vec<(u32, u64)> = pids
        .iter()
        .filter_map(|pid| Some((*pid, start_time(*pid)?)))
        .collect();
    for (pid, _) in &alive {
        // Gone by itself in the meantime is as good.
        kill_process(rustix_pid(*pid)?, Signal::KILL).ok();
    }
    let deadline = Instant::now() + DEATH_TIMEOUT;
    for (pid, started_at) in alive {
        while start_time(pid) == Some(started_at) {
            if Instant::now() > deadline {
                bail!("process {pid} is alive {DEATH_TIMEOUT:?} after SIGKILL");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(())
}

/// Every process for which `is_wanted` holds.
pub(super) fn find(is_wanted: impl Fn(&Process) -> bool) -> Vec<Process> {
    pids()
        .filter_map(|pid| {
            Some(Process {
                pid,
                arguments: arguments(pid)?,
            })
        })
        .filter(is_wanted)
        .collect()
}

/// Waits until `condition` holds, looking every few milliseconds; the error names `what`.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition().with_context(|| format!("wait for {what}"))? {
        if Instant::now() > deadline {
            bail!("waited {timeout:?} in vain for {what}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Content of `/proc/PID/cgroup`, empty when the process is gone.
pub(super) fn cgroups(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn arguments(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(
        text.trim_end_matches('\0')
            .split('\0')
            .map(str::to_owned)
            .collect(),
    )
}

/// Whether a process is stopped by a signal, or gone.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, fields)| fields.chars().next());
    matches!(state, None | Some('T' | 'Z' | 'X'))
}

/// When this process began: with `cargo run` that is when cargo did, which compiles first and then becomes what it compiled.
pub fn own_start() -> Result<Moment> {
    let ticks = start_time(std::process::id()).context("read the start of this process")?;
    Ok(Moment(
        ticks * (1_000_000_000 / u64::from(TICKS_PER_SECOND)),
    ))
}

/// Ticks from boot to the start of a process; none when it is gone, or dead and not yet reaped.
fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields are counted behind the name, which may hold blanks and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // `starttime` is field 22 of proc(5), the state just read is field 3.
    fields.nth(18)?.parse().ok()
}

fn pid_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pid"))
}

pub(super) fn rustix_pid(pid: u32) -> Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| anyhow!("{pid} is no pid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_began_a_while_ago() {
        std::thread::sleep(Duration::from_millis(30));
        let age_ms = Moment::now().ms_since(own_start().unwrap());
        assert!((20.0..600_000.0).contains(&age_ms), "{age_ms} ms");
    }

    #[test]
    fn start_time_is_read_past_a_name_with_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 5 0";
        assert_eq!(parse_start_time(stat), Some(4242));
        assert_eq!(parse_start_time(&stat.replace(" S ", " Z ")), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn kept_daemon_runs_again_until_its_keeper_is_killed() {
        let folder = std::env::temp_dir().join(format!("pbxha-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let seconds = format!("600.{}", std::process::id());
        keep(&folder, "kept", &["sleep".into(), seconds.clone()]).unwrap();
        let sleepers = || find(|one| one.program() == "sleep" && one.arguments[1] == seconds);
        let limit = Duration::from_secs(20);
        wait_until("the daemon", limit, || Ok(sleepers().len() == 1)).unwrap();
        let first = sleepers().remove(0);
        first.signal(Signal::KILL).unwrap();
        wait_until("the next one", limit, || {
            Ok(sleepers().iter().any(|one| one.pid != first.pid))
        })
        .unwrap();
        kill(&folder, "kept").unwrap();
        wait_until("its end", limit, || Ok(sleepers().is_empty())).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn killed_daemon_is_no_longer_running() {
        let folder = std::env::temp_dir().join(format!("pbxha-process-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        start(&folder, "sleeper", &["sleep".into(), "600".into()]).unwrap();
        let pid = running(&folder, "sleeper").unwrap();
        let found = find(|process| process.pid == pid);
        assert_eq!(found.len(), 1);
        kill(&folder, "sleeper").unwrap();
        assert_eq!(running(&folder, "sleeper"), None);
        // A file that names a pid of someone else is not believed.
        fs::write(
            folder.join("sleeper.pid"),
            format!("{} 1\n", std::process::id()),
        )
        .unwrap();
        assert_eq!(running(&folder, "sleeper"), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
