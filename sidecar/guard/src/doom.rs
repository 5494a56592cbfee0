//! Sees Asterisk's death before the kernel has taken it apart.
//!
//! Between a fatal signal and the moment that a process can be reaped lie 15 to 40 ms for Asterisk (its memory is given
//! back, 70 threads end, closing its inotify watch waits for the kernel; measured on Linux 6.18). It executes nothing in
//! that time: a fatal signal is put on every thread in one step, and a thread with a pending SIGKILL never returns from
//! the kernel. What it can still do is finish a send that it had begun, so nothing is answered that was asked later.
//!
//! So a few of its threads are watched (`PIDFD_THREAD`, Linux 6.9): the first of them ends within a millisecond, and
//! `/proc/PID/stat` then has the code that the whole process ends with. Where that is not to be had (an older kernel, an
//! Asterisk that exits with code 0) nothing is seen here, and the reaped process tells it, as ever.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Any one of them would do; more are quicker, since threads end in no order.
pub(crate) const WATCHED_THREADS: usize = 3;
/// `PIDFD_THREAD` of linux/pidfd.h, which is `O_EXCL`; rustix has no name for it.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
/// The place of `exit_code` (field 52 of proc(5)) among the fields after the program's name.
const EXIT_CODE_INDEX: usize = 49;
/// Of a stopped process the same field has the signal that stopped it.
const STOP_SIGNALS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The watch over one process, which must not be reaped while this is asked.
#[derive(Debug)]
pub(crate) struct DoomWatch {
    process: Pid,
    threads: Vec<OwnedFd>,
}

impl DoomWatch {
    /// Of a process that has just been executed: it has one thread, so nothing is watched yet.
    pub(crate) fn new(process: Pid) -> Self {
        Self {
            process,
            threads: Vec::new(),
        }
    }

    /// Watches some threads, unless it does already.
    pub(crate) fn attach(&mut self) {
        if !self.threads.is_empty() {
            return;
        }
        let process = self.process.as_raw_nonzero().get();
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
            return;
        };
        let threads = tasks
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            // The first thread's descriptor tells no more than the process's own.
            .filter(|&thread| thread != self.process)
            .filter_map(|thread| pidfd_open(thread, PIDFD_THREAD).ok());
        self.threads.extend(threads.take(WATCHED_THREADS));
    }

    /// What to poll for input: at most [`WATCHED_THREADS`].
    pub(crate) fn threads(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.threads.iter().map(AsFd::as_fd)
    }

    /// A watched thread has ended: whether the whole process has. If not, threads are to be attached anew.
    pub(crate) fn on_thread_ended(&mut self) -> bool {
        self.threads.clear();
        let process = self.process.as_raw_nonzero().get();
        fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| is_fatal(&stat))
    }
}

/// Whether `/proc/PID/stat` tells that the process ends, with a code other than 0. The kernel shows a code only once
/// every thread carries the signal (`SIGNAL_GROUP_EXIT`), or while the process is stopped.
fn is_fatal(stat: &str) -> bool {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let exit_code = after_name
        .split_ascii_whitespace()
        .nth(EXIT_CODE_INDEX)
        .and_then(|field| field.parse::<i32>().ok());
    exit_code.is_some_and(|code| code != 0 && !STOP_SIGNALS.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(state: char, exit_code: i32) -> String {
        let middle = vec!["0"; 48].join(" ");
        format!("42 (a (strange) name) {state} {middle} {exit_code}\n")
    }

    #[test]
    fn a_code_tells_the_end_and_a_stop_does_not() {
        let cases = [
            ('S', 0, false),
            ('S', libc::SIGKILL, true),
            ('Z', libc::SIGSEGV | 0x80, true),
            ('Z', 256, true),
            ('T', libc::SIGSTOP, false),
            ('T', libc::SIGTTOU, false),
        ];
        for (state, code, expected) in cases {
            assert_eq!(is_fatal(&stat(state, code)), expected, "{state} {code}");
        }
    }

    #[test]
    fn what_is_not_a_stat_tells_nothing() {
        for text in ["", "42 (x) S", ") ", &"9 ".repeat(60)] {
            assert!(!is_fatal(text), "{text:?}");
        }
    }
}
