//! Processes: starting a child that dies with its parent, reaping, and killing what is left over.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process,
    set_parent_process_death_signal, setpriority_process, wait,
};

use crate::protocol::ExitKind;
use crate::signals::restore_defaults;

/// What looking for dead children found.
#[derive(Clone, Copy, Debug)]
pub enum Reaped {
    /// This one, and there may be more.
    Dead(Pid, WaitStatus),
    /// Children, none of them dead.
    AllAlive,
    /// No child at all.
    NoChild,
}

/// Executes `command` (the program first) with default signals and an empty standard input; the
/// kernel kills it when the calling thread ends, however it ends. Returns once it is executed.
///
/// A program with set-user-ID or file capabilities, or one that changes its user itself, loses that
/// tie (prctl(2), `PR_SET_PDEATHSIG`): start it as the user that it shall run as.
#[allow(
    unsafe_code,
    reason = "only code between fork and exec can set what exec keeps"
)]
pub fn spawn_tied(command: &[OsString]) -> io::Result<Pid> {
    let (program, arguments) = command.split_first().ok_or(Errno::NOENT)?;
    let parent = getpid();
    let mut spawn = Command::new(program);
    spawn.args(arguments).stdin(Stdio::null());
    // SAFETY: between fork and exec the closure makes system calls only: it neither allocates nor
    // locks, and this program has one thread.
    unsafe {
        spawn.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the tie was made: then nothing would kill us.
            if getppid() != Some(parent) {
                return Err(Errno::SRCH.into());
            }
            restore_defaults()
        });
    }
    // The handle is not needed: whoever calls reaps by pid.
    spawn.spawn().map(|child| Pid::from_child(&child))
}

/// All threads of a process get a tenth of an ordinary one's share from now on, where a processor is wanted by others too.
pub fn yield_to_others(pid: Pid) {
    const NICE: i32 = 10;
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let ids = threads.into_iter().flatten().filter_map(|thread| {
        let name = thread.ok()?.file_name();
        Pid::from_raw(name.to_str()?.parse().ok()?)
    });
    for id in ids {
        // Gone in the meantime is as good.
        let _ = setpriority_process(Some(id), NICE);
    }
}

/// Reaps one dead child, if there is one; never waits.
pub fn reap() -> Reaped {
    loop {
        // Not `waitpid(None, ..)`: that is the own process group only, and an orphan may have left it.
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Reaped::Dead(pid, status),
            Ok(None) => return Reaped::AllAlive,
            Err(Errno::INTR) => {}
            // ECHILD; no other error is possible for these arguments.
            Err(_) => return Reaped::NoChild,
        }
    }
}

/// How a reaped process ended.
pub fn exit_kind(status: WaitStatus) -> ExitKind {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitKind::Code(code),
        (None, Some(signal)) => ExitKind::Signal(signal),
        (None, None) => ExitKind::Code(status.as_raw()),
    }
}

/// Sends `SIGKILL` to every child of this thread and returns how many it reached. Those that it has
/// no right to kill do not count.
pub fn kill_children() -> io::Result<usize> {
    let children = fs::read_to_string("/proc/thread-self/children")?;
    let pids = children
        .split_ascii_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    Ok(pids
        .filter(|&pid| kill_process(pid, Signal::KILL).is_ok())
        .count())
}
