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

/// Rounds of asking and holding.
const MOST_ROUNDS: usize = 10;
const ANSWER_LIMIT: Duration = Duration::from_millis(200);
/// So many in a row: a thread that is new to the pool answers once before it is held.
const MISSES: u32 = 5;
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
    holders: Vec<JoinHandle<()>>,
    since: Instant,
}

impl BlockedThreads {
    /// Holds the threads of `process` that answer SIP at `target` in a network namespace, until nobody answers any more: threads that
    /// slept in the pool come forward once the others are held.
    pub fn of(process: i32, namespace: &Path, target: SocketAddrV4) -> Result<Self> {
        let mut blocked = Self {
            is_over: Arc::new(AtomicBool::new(false)),
            holders: Vec::new(),
            since: Instant::now(),
        };
        for _ in 0..MOST_ROUNDS {
            let before = turns(process)?;
            if !ask(namespace, target)? {
                ensure!(
                    !blocked.holders.is_empty(),
                    "no thread of Asterisk answered"
                );
                return Ok(blocked);
            }
            blocked.hold_those_that_ran(process, &before)?;
        }
        anyhow::bail!("Asterisk answers SIP whatever is held")
    }

    fn hold_those_that_ran(&mut self, process: i32, before: &BTreeMap<i32, u64>) -> Result<()> {
        let after = turns(process)?;
        let has_worked = |thread: i32, count: u64| {
            let ran = count - before.get(&thread).copied().unwrap_or(0);
            ran >= TURNS && !is_reader(process, thread)
        };
        let spared: BTreeSet<i32> = after
            .into_iter()
            .filter(|(thread, count)| !has_worked(*thread, *count))
            .map(|(thread, _)| thread)
            .collect();
        let (over, begun) = (self.is_over.clone(), Arc::new(AtomicBool::new(false)));
        let is_begun = begun.clone();
        // Held by the thread that asked for it, until it ends.
        let holder = std::thread::spawn(move || hold(process, &spared, &over, &is_begun));
        self.holders.push(holder);
        let patience = Instant::now();
        while !begun.load(Ordering::Relaxed) {
            ensure!(
                patience.elapsed() < Duration::from_secs(5),
                "no thread could be held"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        self.since = Instant::now();
        Ok(())
    }

    /// When the last of them was held.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for BlockedThreads {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for holder in self.holders.drain(..) {
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

/// Whether answers went on coming.
fn ask(namespace: &Path, target: SocketAddrV4) -> Result<bool> {
    let socket =
        run_in(namespace, || UdpSocket::bind((*target.ip(), 0)))?.context("open a socket")?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let own = socket.local_addr()?;
    let mut buffer = [0; 4096];
    let mut missed = 0;
    for number in 0..QUESTIONS {
        let text = format!(
            "OPTIONS sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKblock{number}\r\n\
             Max-Forwards: 1\r\nFrom: <sip:asker@{own}>;tag=t{number}\r\nTo: <sip:{target}>\r\n\
             Call-ID: block-{number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(text.as_bytes(), target)?;
        missed = match socket.recv(&mut buffer) {
            Ok(_) => 0,
            Err(_) => missed + 1,
        };
        if missed == MISSES {
            return Ok(false);
        }
    }
    Ok(true)
}
