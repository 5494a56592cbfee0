//! `SIPp` at both ends of calls through a PBX: callers that place, hold and end calls, and a callee that answers them. What became of the
//! calls is what `SIPp` counts. No media is sent.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, setpriority_process};

use crate::cluster::wait_until;
use crate::netns::command_in;
use crate::packages::{self, SIP_LOAD};
use crate::progress::tail;

/// Where the callee listens.
pub const CALLEE_PORT: u16 = 5070;
const CALLER: &str = include_str!("sipp/caller.xml");
/// `SIPp` ends by itself a little after its last call: a request without an answer is repeated for half a minute.
const END_PATIENCE: Duration = Duration::from_mins(1);
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Calls to place.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// The callers' network namespace.
    pub namespace: PathBuf,
    /// Their address.
    pub client: Ipv4Addr,
    /// Where they call.
    pub target: SocketAddrV4,
    /// Whom.
    pub extension: String,
    /// So many calls in a second.
    pub rate: u32,
    /// So many in all.
    pub calls: u32,
    /// From the answer to the end.
    pub hold: Duration,
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Placed.
    pub placed: u32,
    /// Answered.
    pub answered: u32,
    /// Not ended yet.
    pub up: u32,
    /// Got 503.
    pub refused: u32,
    /// Got no answer within ten seconds.
    pub unanswered: u32,
    /// Ended otherwise than wanted: answered calls that were cut, and answers that nobody expects.
    pub failed: u32,
}

/// Callers at work, ended when dropped.
#[derive(Debug)]
pub struct Callers {
    process: Running,
    calls: u32,
}

/// Answers calls until it is dropped.
#[derive(Debug)]
pub struct Callee {
    _process: Running,
}

/// A process of `SIPp` and the folder of its files.
#[derive(Debug)]
struct Running {
    child: Child,
    folder: PathBuf,
}

impl Callee {
    /// Answers at [`CALLEE_PORT`] of `address` in a network namespace.
    pub fn start(namespace: &Path, address: Ipv4Addr) -> Result<Self> {
        let port = CALLEE_PORT.to_string();
        let arguments = ["-sn", "uas", "-i", &address.to_string(), "-p", &port];
        let process = Running::start(namespace, &arguments.map(str::to_owned))?;
        Ok(Self { _process: process })
    }
}

impl Callers {
    /// Begins to call.
    pub fn start(plan: &CallPlan) -> Result<Self> {
        let text = |value: u128| value.to_string();
        let arguments = [
            plan.target.to_string(),
            "-sf".into(),
            "caller.xml".into(),
            "-s".into(),
            plan.extension.clone(),
            "-i".into(),
            plan.client.to_string(),
            "-m".into(),
            plan.calls.to_string(),
            "-r".into(),
            plan.rate.to_string(),
            "-d".into(),
            text(plan.hold.as_millis()),
        ];
        let statistics = ["-trace_stat", "-stf", "counts.csv", "-fd", "1"];
        let errors = ["-trace_err", "-error_file", "errors.log"];
        let more = statistics.into_iter().chain(errors).map(str::to_owned);
        let arguments: Vec<String> = arguments.into_iter().chain(more).collect();
        Ok(Self {
            process: Running::start(&plan.namespace, &arguments)?,
            calls: plan.calls,
        })
    }

    /// What became of the calls until a second ago.
    pub fn counts(&self) -> Result<CallCounts> {
        let text = fs::read_to_string(self.process.folder.join("counts.csv"));
        parse_counts(&text.unwrap_or_default())
    }

    /// Whether all calls were answered and none has ended, a second ago.
    pub fn are_all_up(&self) -> Result<bool> {
        Ok(self.counts()?.up == self.calls)
    }

    /// Waits until all calls are answered.
    pub fn wait_answered(&self, limit: Duration) -> Result<()> {
        wait_until("the calls to be answered", limit, || {
            Ok(self.counts()?.answered == self.calls)
        })
        .with_context(|| format!("{:?}; {}", self.counts(), self.errors()))
    }

    /// Places no further calls; those that are there go on to their ends.
    pub fn stop_placing(&self) -> Result<()> {
        let process = Pid::from_raw(self.process.child.id().cast_signed());
        kill_process(process.context("SIPp has a pid")?, Signal::USR1).context("ask SIPp to end")
    }

    /// Waits until all calls have ended.
    pub fn finish(mut self) -> Result<CallCounts> {
        let deadline = Instant::now() + END_PATIENCE;
        while self
            .process
            .child
            .try_wait()
            .context("wait for SIPp")?
            .is_none()
        {
            ensure!(
                Instant::now() < deadline,
                "SIPp does not end: {}",
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let counts = self.counts()?;
        ensure!(counts.placed > 0, "SIPp placed no call: {}", self.errors());
        if counts.failed > 0 {
            eprintln!("{}", self.errors());
        }
        Ok(counts)
    }

    fn errors(&self) -> String {
        let folder = &self.process.folder;
        format!(
            "{}{}",
            tail(&folder.join("errors.log"), 30),
            tail(&folder.join("output.log"), 5)
        )
    }
}

/// The phones would be on machines of their own: here they have the least share of the processors.
const PHONES_NICE: i32 = 19;

impl Running {
    fn start(namespace: &Path, arguments: &[String]) -> Result<Self> {
        packages::ensure(&[SIP_LOAD])?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pbxha-sipp-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(folder.join("caller.xml"), CALLER).context("write the scenario")?;
        let output = File::create(folder.join("output.log")).context("create SIPp's log")?;
        let errors = output.try_clone().context("share SIPp's log")?;
        let child = command_in(namespace, "sipp")
            .args(arguments)
            .arg("-nostdin")
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .context("start SIPp")?;
        let running = Self { child, folder };
        let pid = Pid::from_child(&running.child);
        setpriority_process(Some(pid), PHONES_NICE).context("give SIPp its share")?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The newest line of `SIPp`'s statistics, by the names of its columns; nothing before there is one.
fn parse_counts(text: &str) -> Result<CallCounts> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
    // One that is just being written is shorter.
    let complete = lines.map(|line| line.split(';').collect::<Vec<_>>());
    let Some(values) = complete.rev().find(|line| line.len() == names.len()) else {
        return Ok(CallCounts::default());
    };
    let of = |name: &str| -> Result<u32> {
        let Some(at) = names.iter().position(|found| *found == name) else {
            bail!("SIPp tells no {name}");
        };
        values[at]
            .parse()
            .with_context(|| format!("read SIPp's {name}"))
    };
    Ok(CallCounts {
        placed: of("OutgoingCall(C)")?,
        up: of("CurrentCall")?,
        answered: of("GenericCounter1(C)")?,
        refused: of("GenericCounter2(C)")?,
        unanswered: of("GenericCounter3(C)")?,
        failed: of("FailedCall(C)")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_line_counts() {
        let head = "OutgoingCall(C);CurrentCall;FailedCall(C);GenericCounter1(C);GenericCounter2(C);GenericCounter3(C)";
        assert_eq!(parse_counts(head).unwrap(), CallCounts::default());
        let text = format!("{head}\n1;1;0;0;0;0\n50;9;1;48;2;3\n51;9;1;4");
        let counts = parse_counts(&text).unwrap();
        assert_eq!(
            counts,
            CallCounts {
                placed: 50,
                answered: 48,
                up: 9,
                refused: 2,
                unanswered: 3,
                failed: 1,
            }
        );
        assert!(parse_counts("OutgoingCall(C)\n1\n").is_err());
    }
}
