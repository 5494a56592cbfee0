//! A real Asterisk whose task processors do nothing: the threads that wait for tasks are held by ptrace, each by itself, while all
//! others (AMI's sessions, the reader of SIP's socket) run on. It is what a deadlock looks like from outside: AMI answers, SIP
//! does not.
//!
//! A thread that waits for a task waits for a condition, so in the kernel for a futex; those that wait for bytes poll. The thread
//! that would start more of them waits like them, and is held, too.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::netns::run_in;

const HOLD_LIMIT: Duration = Duration::from_secs(5);
/// All that is done once is done before; a thread that has just worked waits again.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const ANSWER_LIMIT: Duration = Duration::from_millis(100);
/// Shorter together than the time in which the sidecar notices.
const QUESTIONS: u32 = 3;

/// Threads held until this is dropped, or their process has ended.
#[derive(Debug)]
pub struct BlockedThreads {
    is_over: Arc<AtomicBool>,
    holder: Option<JoinHandle<()>>,
    since: Instant,
}

impl BlockedThreads {
    /// Holds the threads of `process` that wait for tasks, and makes sure that nobody answers SIP at `target` in a network namespace.
    pub fn of(process: i32, namespace: &Path, target: SocketAddrV4) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (held, first) = sync_channel(1);
        let over = is_over.clone();
        // Who holds a thread is the thread that asked for it, until it ends.
        let holder = std::thread::spawn(move || hold(process, &over, &held));
        let mut blocked = Self {
            is_over,
            holder: Some(holder),
            since: Instant::now(),
        };
        let count = first.recv_timeout(HOLD_LIMIT).context("hold the threads")?;
        ensure!(count > 0, "no thread could be held");
        blocked.since = Instant::now();
        let answered = ask(namespace, target)?;
        ensure!(
            answered == 0,
            "{count} threads are held, and SIP is answered"
        );
        Ok(blocked)
    }

    /// When they were held.
    pub fn since(&self) -> Instant {
        self.since
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

/// Holds those that wait now, tells how many, and holds who comes to wait later.
fn hold(process: i32, is_over: &AtomicBool, first: &SyncSender<usize>) {
    let mut held = BTreeSet::new();
    while !is_over.load(Ordering::Relaxed) {
        let Ok(waiting) = waiting_for_tasks(process) else {
            return;
        };
        for thread in waiting {
            let id = Pid::from_raw(thread);
            if !held.contains(&thread) && ptrace::seize(id, ptrace::Options::empty()).is_ok() {
                ptrace::interrupt(id).ok();
                held.insert(thread);
            }
        }
        // The first count is told; nobody takes a later one.
        first.try_send(held.len()).ok();
        // A held thread that was killed is gone only when its holder has heard of it.
        for thread in &held {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            waitpid(Pid::from_raw(*thread), Some(flags)).ok();
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn waiting_for_tasks(process: i32) -> Result<Vec<i32>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).context("list Asterisk's threads")?;
    let waits = |path: &Path| {
        let channel = fs::read_to_string(path.join("wchan"));
        channel.is_ok_and(|channel| channel.starts_with("futex"))
    };
    Ok(tasks
        .flatten()
        .filter(|task| waits(&task.path()))
        .filter_map(|task| task.file_name().to_string_lossy().parse().ok())
        .collect())
}

/// How many questions were answered.
fn ask(namespace: &Path, target: SocketAddrV4) -> Result<u32> {
    let socket =
        run_in(namespace, || UdpSocket::bind((*target.ip(), 0)))?.context("open a socket")?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let own = socket.local_addr()?;
    let mut buffer = [0; 4096];
    let mut answered = 0;
    for number in 0..QUESTIONS {
        let text = format!(
            "OPTIONS sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKblock{number}\r\n\
             Max-Forwards: 1\r\nFrom: <sip:asker@{own}>;tag=t{number}\r\nTo: <sip:{target}>\r\n\
             Call-ID: block-{number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(text.as_bytes(), target)?;
        answered += u32::from(socket.recv(&mut buffer).is_ok());
    }
    Ok(answered)
}
