//! Processes that stand still: by the freezer of the unified cgroup hierarchy or of the old ones, which nothing
//! inside can notice or catch, or by SIGSTOP. Both end when the value is dropped, so a test that
//! fails leaves nothing frozen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::cgroups::{old_freezer_mount, unified_mount};
use super::process::{Process, cgroups, is_stopped, wait_until};

const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the names of groups unique within this process.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// Which freezer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezer {
    /// Of cgroup v2.
    Unified,
    /// Of cgroup v1.
    Old,
}

/// Processes held by the cgroup freezer.
#[derive(Debug)]
#[must_use = "dropping it thaws the processes"]
pub struct Frozen {
    freezer: Freezer,
    /// A group below each group that a process was in, so that whoever looks for the processes of
    /// a container still finds them.
    groups: BTreeSet<PathBuf>,
}

/// Processes held by SIGSTOP.
#[derive(Debug)]
#[must_use = "dropping it continues the processes"]
pub struct Stopped {
    processes: Vec<Process>,
}

/// Freezes `processes`, those of one container all at once; returns when the kernel reports them
/// frozen.
pub fn freeze(processes: &[Process]) -> Result<Frozen> {
    freeze_by(Freezer::Unified, processes)
}

/// The same by the freezer of one's choice.
pub fn freeze_by(freezer: Freezer, processes: &[Process]) -> Result<Frozen> {
    ensure!(!processes.is_empty(), "there is no process to freeze");
    let root = match freezer {
        Freezer::Unified => unified_mount()?,
        Freezer::Old => old_freezer_mount()?,
    };
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("pbxha-freezer-{}-{number}", std::process::id());
    let mut frozen = Frozen {
        freezer,
        groups: BTreeSet::new(),
    };
    for process in processes {
        let origin = root.join(freezer.path(&cgroups(process.pid)).trim_start_matches('/'));
        let group = origin.join(&name);
        if frozen.groups.insert(group.clone()) {
            fs::create_dir(&group).with_context(|| format!("create {}", group.display()))?;
        }
        move_to(&group, process.pid)?;
    }
    frozen.set(true)?;
    Ok(frozen)
}

/// Stops `processes` by SIGSTOP, one after the other; returns when all stand still.
pub fn stop(processes: &[Process]) -> Result<Stopped> {
    ensure!(!processes.is_empty(), "there is no process to stop");
    let mut stopped = Stopped {
        processes: Vec::new(),
    };
    for process in processes {
        process.signal(Signal::STOP)?;
        stopped.processes.push(process.clone());
    }
    wait_until("the processes to stop", FREEZE_TIMEOUT, || {
        Ok(processes.iter().all(|process| is_stopped(process.pid)))
    })?;
    Ok(stopped)
}

impl Frozen {
    /// Lets the processes go on, all at once.
    pub fn thaw(self) -> Result<()> {
        self.set(false)
    }

    fn set(&self, is_frozen: bool) -> Result<()> {
        let (file, value) = match (self.freezer, is_frozen) {
            (Freezer::Unified, true) => ("cgroup.freeze", "1"),
            (Freezer::Unified, false) => ("cgroup.freeze", "0"),
            (Freezer::Old, true) => ("freezer.state", "FROZEN"),
            (Freezer::Old, false) => ("freezer.state", "THAWED"),
        };
        // First all groups, then the waiting, so that they freeze together.
        for group in &self.groups {
            fs::write(group.join(file), value)
                .with_context(|| format!("write {file} of {}", group.display()))?;
        }
        // A group whose processes have all died is never frozen.
        let wanted = [
            format!("frozen {value}"),
            "populated 0".to_owned(),
            value.to_owned(),
        ];
        let told = match self.freezer {
            Freezer::Unified => "cgroup.events",
            Freezer::Old => file,
        };
        self.groups.iter().try_for_each(|group| {
            wait_until("the freezer", FREEZE_TIMEOUT, || {
                let events = fs::read_to_string(group.join(told));
                let events = events.with_context(|| format!("read {told}"))?;
                Ok(events
                    .lines()
                    .any(|line| wanted.iter().any(|wanted| wanted == line)))
            })
        })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.set(false).ok();
        self.groups.iter().for_each(|group| dissolve(group));
    }
}

/// Moves what is in a group to the group above and removes it. Children born meanwhile are in it
/// too, so this repeats until the kernel lets it go.
fn dissolve(group: &Path) {
    let origin = group.parent().expect("the group was made below another");
    let attempt = || {
        let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // Processes that died meanwhile cannot be moved, and need not be.
        pids.lines()
            .filter_map(|pid| pid.parse().ok())
            .for_each(|pid| {
                move_to(origin, pid).ok();
            });
        Ok(fs::remove_dir(group).is_ok() || !group.exists())
    };
    // What cannot be dissolved is thawed all the same.
    wait_until("the freezer to dissolve", FREEZE_TIMEOUT, attempt).ok();
}

impl Stopped {
    /// Lets the processes go on.
    pub fn proceed(self) {}
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for process in &self.processes {
            process.signal(Signal::CONT).ok();
        }
    }
}

fn move_to(group: &Path, pid: u32) -> Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("move process {pid} to {}", group.display()))
}

impl Freezer {
    /// The group of a process in its hierarchy; the unified one has the number 0 and no name.
    fn path(self, proc_cgroup: &str) -> &str {
        let marked = match self {
            Self::Unified => "0::",
            Self::Old => ":freezer:",
        };
        let lines = proc_cgroup.lines();
        let mut found = lines.filter_map(|line| match self {
            Self::Unified => line.strip_prefix(marked),
            Self::Old => line.split_once(marked).map(|(_, path)| path),
        });
        found.next().unwrap_or("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};

    /// A child that says something every 10 ms, and what it says.
    fn ticker() -> (Child, Process, Receiver<String>) {
        let mut child = Command::new("sh")
            .args(["-c", "while :; do echo tick; sleep 0.01; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        let process = Process {
            pid: child.id(),
            arguments: vec!["sh".into()],
        };
        (child, process, receiver)
    }

    fn ticks_within(receiver: &Receiver<String>, time: Duration) -> usize {
        std::thread::sleep(Duration::from_millis(100));
        while receiver.try_recv().is_ok() {}
        std::thread::sleep(time);
        receiver.try_iter().count()
    }

    fn check_both(hold: impl Fn(&Process) -> Result<Box<dyn std::any::Any>>) {
        let (mut child, process, ticks) = ticker();
        let pause = Duration::from_millis(200);
        assert!(ticks_within(&ticks, pause) > 0);
        let hold = hold(&process).unwrap();
        assert_eq!(ticks_within(&ticks, pause), 0);
        drop(hold);
        assert!(ticks_within(&ticks, pause) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn frozen_process_does_nothing_until_thawed() {
        if unified_mount().is_ok() && rustix::process::geteuid().is_root() {
            check_both(|process| Ok(Box::new(freeze(std::slice::from_ref(process))?)));
            if old_freezer_mount().is_ok() {
                let old =
                    |process: &Process| freeze_by(Freezer::Old, std::slice::from_ref(process));
                check_both(|process| Ok(Box::new(old(process)?)));
            }
            let own = format!("pbxha-freezer-{}-", std::process::id());
            let left = fs::read_dir(unified_mount().unwrap())
                .unwrap()
                .filter_map(Result::ok);
            assert!(
                !left
                    .map(|e| e.file_name())
                    .any(|n| n.to_string_lossy().starts_with(&own))
            );
        }
    }

    #[test]
    fn stopped_process_does_nothing_until_continued() {
        check_both(|process| Ok(Box::new(stop(std::slice::from_ref(process))?)));
    }

    #[test]
    fn unified_group_is_the_one_without_controllers() {
        let both = "4:memory:/a\n3:freezer:/d\n0::/b/c\n";
        assert_eq!(Freezer::Unified.path(both), "/b/c");
        assert_eq!(Freezer::Old.path(both), "/d");
        assert_eq!(Freezer::Unified.path("4:memory:/a\n"), "/");
    }
}
