//! A real Asterisk whose task processors do nothing: the threads that execute them are held by ptrace, each by itself, while all
//! others (AMI, the reader of SIP's socket) run on. It is what a deadlock looks like from outside.
//!
//! Which threads those are is found by asking: the ones that run while OPTIONS are answered. Threads that Asterisk starts
//! meanwhile, since it finds its pool busy, are held as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::netns::run_in;

/// Enough that every thread of the pool has had its turn.
const QUESTIONS: usize = 300;
/// A thread that ran so often while they were answered works for them.
const TURNS: u64 = 3;
/// The thread that reads SIP's socket.
const READER: &str = "SIP";

/// Threads held until this is dropped, or their process has ended.
#[derive(Debug)]
pub struct BlockedThreads {
    is_over: Arc<AtomicBool>,
    holder: Option<JoinHandle<()>>,
}

impl BlockedThreads {
    /// Holds the threads of `process` that answer SIP at `target` in a network namespace.
    pub fn of(process: i32, namespace: &Path, target: SocketAddrV4) -> Result<Self> {
        let before = turns(process)?;
        ask(namespace, target)?;
        let after = turns(process)?;
        let workers: BTreeSet<i32> = after
            .iter()
            .filter(|(thread, count)| {
                let ran = **count - before.get(*thread).copied().unwrap_or(0);
                ran >= TURNS && !is_reader(process, **thread)
            })
            .map(|(thread, _)| *thread)
            .collect();
        ensure!(!workers.is_empty(), "no thread of Asterisk answered");
        let spared: BTreeSet<i32> = after
            .into_keys()
            .filter(|one| !workers.contains(one))
            .collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, begun) = (is_over.clone(), Arc::new(AtomicBool::new(false)));
        let is_begun = begun.clone();
        // Held by the thread that asked for it, until it ends.
        let holder = std::thread::spawn(move || hold(process, &spared, &over, &is_begun));
        let patience = Instant::now();
        while !begun.load(Ordering::Relaxed) {
            ensure!(
                patience.elapsed() < Duration::from_secs(5),
                "no thread could be held"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self {
            is_over,
            holder: Some(holder),
        })
    }
}

impl Drop for BlockedThreads {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(holder) = self.holder.take() {
            holder.join().ok();
        }
    }
}

fn hold(process: i32, spared: &BTreeSet<i32>, is_over: &AtomicBool, is_begun: &AtomicBool) {
    let mut held = BTreeSet::new();
    while !is_over.load(Ordering::Relaxed) {
        let Ok(now) = turns(process) else { return };
        for thread in now.into_keys().filter(|one| !spared.contains(one)) {
            let id = Pid::from_raw(thread);
            if held.insert(thread) && ptrace::seize(id, ptrace::Options::empty()).is_ok() {
                ptrace::interrupt(id).ok();
            }
        }
        is_begun.store(true, Ordering::Relaxed);
        // A held thread that was killed is gone only when its holder has heard of it.
        for thread in &held {
            waitpid(
                Pid::from_raw(*thread),
                Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG),
            )
            .ok();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How often each thread has given up the processor by itself: once for each task that it waited for.
fn turns(process: i32) -> Result<BTreeMap<i32, u64>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).context("list Asterisk's threads")?;
    let mut found = BTreeMap::new();
    for task in tasks.flatten() {
        let Ok(thread) = task.file_name().to_string_lossy().parse() else {
            continue;
        };
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .and_then(|count| count.trim().parse().ok());
        found.insert(thread, count.unwrap_or(0));
    }
    Ok(found)
}

fn is_reader(process: i32, thread: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
    name.is_ok_and(|name| name.trim() == READER)
}

fn ask(namespace: &Path, target: SocketAddrV4) -> Result<()> {
    let socket =
        run_in(namespace, || UdpSocket::bind((*target.ip(), 0)))?.context("open a socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let own = socket.local_addr()?;
    let mut buffer = [0; 4096];
    for number in 0..QUESTIONS {
        let text = format!(
            "OPTIONS sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKblock{number}\r\n\
             Max-Forwards: 1\r\nFrom: <sip:asker@{own}>;tag=t{number}\r\nTo: <sip:{target}>\r\n\
             Call-ID: block-{number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(text.as_bytes(), target)?;
        socket
            .recv(&mut buffer)
            .context("no answer before anything was held")?;
    }
    Ok(())
}
