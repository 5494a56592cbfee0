//! A guard under test: the real binary, a sidecar's end of its socket, and the processes it made.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pbx_guard::boot_now_ns;
use pbx_guard::protocol::{Command, Event, RunId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
pub(crate) const MS: u64 = 1_000_000;

/// Tests measure times: one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Guard {
    process: Child,
    directory: TempDir,
    /// Everything it was seen to start: none may be left behind.
    seen: Vec<Pid>,
}

impl Guard {
    /// A guard whose Asterisk is `sleep`.
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &["sleep", "60"])
    }

    pub(crate) fn start_with(options: &[&str], command: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let process = Process::new(env!("CARGO_BIN_EXE_pbx-guard"))
            .arg("pbx")
            .arg("--socket")
            .arg(directory.path().join("guard.sock"))
            .args(options)
            .arg("--")
            .args(command)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            directory,
            seen: Vec::new(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("guard.sock")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// A connection that has not said anything yet.
    pub(crate) fn connect(&self) -> Sidecar {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return Sidecar::new(stream),
                Err(error) => assert!(begin.elapsed() < LIMIT, "no guard: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A connection after its Hello.
    pub(crate) fn greet(&self) -> Sidecar {
        let mut sidecar = self.connect();
        sidecar.send(Command::Hello);
        assert!(matches!(sidecar.next(), Event::State { .. }));
        sidecar
    }

    /// Starts Asterisk and returns its run and pid.
    pub(crate) fn launch(
        &mut self,
        sidecar: &mut Sidecar,
        deadline_ns: Option<u64>,
    ) -> (RunId, Pid) {
        sidecar.send(Command::Start { deadline_ns });
        let event = sidecar.next();
        let Event::Started { run, pid } = event else {
            panic!("expected Started, got {event:?}");
        };
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        self.seen.extend([pid, parent_of(pid)]);
        (run, pid)
    }

    pub(crate) fn exit_status(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < LIMIT, "the guard does not exit");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// CPU time used so far, in nanoseconds, and resident memory in KiB.
    pub(crate) fn usage(pid: Pid) -> (u64, u64) {
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        let cpu_ns = stat.split(' ').next().unwrap().parse().unwrap();
        (cpu_ns, status_number(pid, "VmRSS:"))
    }
}

/// The number behind this name in `/proc/PID/status`.
pub(crate) fn status_number(pid: Pid, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = status.lines().find_map(|line| line.strip_prefix(name));
    let number = number.unwrap().split_ascii_whitespace().next();
    number.unwrap().parse().unwrap()
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for &pid in &self.seen {
            let is_gone = died_at_ns(pid, LIMIT).is_some();
            if !is_gone {
                let _ = kill_process(pid, Signal::KILL);
            }
            assert!(
                is_gone || std::thread::panicking(),
                "{pid:?} outlived its guard"
            );
        }
    }
}

/// The sidecar's end of a connection.
pub(crate) struct Sidecar {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Sidecar {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, command: Command) {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn next(&mut self) -> Event {
        self.next_within(LIMIT).expect("an event within the limit")
    }

    /// The next event; `None` if there is none in time or the guard closed the connection.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Event> {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        loop {
            if let Some((event, size)) = Event::decode(&self.received).unwrap() {
                self.received.drain(..size);
                return Some(event);
            }
            let mut bytes = [0; 512];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(size) => self.received.extend_from_slice(&bytes[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.stream.set_read_timeout(Some(LIMIT)).unwrap();
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }
}

/// When the process died (now, if it was dead already); `None` if it did not within `limit`.
pub(crate) fn died_at_ns(pid: Pid, limit: Duration) -> Option<u64> {
    let Ok(watch) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Some(boot_now_ns());
    };
    let limit = Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    let mut ready = [PollFd::new(&watch, PollFlags::IN)];
    (poll(&mut ready, Some(&limit)).unwrap() == 1).then(boot_now_ns)
}

pub(crate) fn parent_of(pid: Pid) -> Pid {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    Pid::from_raw(after_name.split(' ').nth(1).unwrap().parse().unwrap()).unwrap()
}

pub(crate) fn kill(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}

pub(crate) fn wait_for_file(path: &Path) -> String {
    let begin = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => assert!(begin.elapsed() < LIMIT, "no {}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
