//! Taking one's turn before ordinary programs, where the system allows it (`CAP_SYS_NICE`, or a limit of real-time priority): a
//! failover on a machine whose processors are all busy waits for none of them. Left out: Asterisk, which is ordinary.

use rustix::process::getpriority_process;

/// Makes this thread a real-time one, of the lowest such priority. What it starts is ordinary again.
///
/// Returns whether it was allowed; if not, nothing has changed. The kernel keeps a part of each processor for others, 5 % at least.
#[allow(unsafe_code, reason = "neither rustix nor nix has sched_setscheduler")]
pub fn run_ahead() -> bool {
    let lowest = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameters are live and only read; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const lowest) == 0 }
}

/// Gives this thread turns of a tenth of a millisecond instead of some three: it gets no more of a processor, but what it has to do for
/// a moment is done sooner when others use all of it (EEVDF, Linux 6.12 and later; before, nothing changes). Needs no right.
///
/// Returns whether the kernel took it.
#[allow(unsafe_code, reason = "neither rustix nor nix has sched_setattr")]
pub fn take_short_turns() -> bool {
    let size = size_of::<libc::sched_attr>();
    let attributes = libc::sched_attr {
        size: u32::try_from(size).expect("it is 48 bytes"),
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        // What this thread starts has turns of the usual length.
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK.unsigned_abs().into(),
        sched_nice: getpriority_process(None).unwrap_or(0),
        sched_priority: 0,
        sched_runtime: SHORT_TURN_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the attributes are live, of the size that they tell, and only read; 0 is this thread, the last 0 no flags.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

/// The shortest that there is.
const SHORT_TURN_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The place of `policy` (field 41 of proc(5)) among the fields after the program's name.
    const POLICY_INDEX: usize = 38;

    fn policy(stat: &str) -> i32 {
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let field = after_name.split_ascii_whitespace().nth(POLICY_INDEX);
        field.unwrap().parse().unwrap()
    }

    #[test]
    fn who_runs_ahead_is_real_time_and_what_it_starts_is_not() {
        let own = || policy(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
        // On a thread of its own, which ends with the test.
        let worker = std::thread::spawn(move || {
            assert_eq!(own(), libc::SCHED_OTHER);
            let is_allowed = run_ahead();
            let expected = if is_allowed {
                libc::SCHED_RR
            } else {
                libc::SCHED_OTHER
            };
            assert_eq!(own(), expected);
            let child = Command::new("cat").arg("/proc/self/stat").output().unwrap();
            let child = String::from_utf8(child.stdout).unwrap();
            assert_eq!(policy(&child), libc::SCHED_OTHER);
        });
        worker.join().unwrap();
    }

    #[test]
    fn short_turns_are_taken_and_change_no_priority() {
        let told = |thread: &str| std::fs::read_to_string(thread).unwrap();
        std::thread::spawn(move || {
            let nice = getpriority_process(None).unwrap();
            assert!(take_short_turns());
            let stat = told("/proc/thread-self/stat");
            assert_eq!(policy(&stat), libc::SCHED_OTHER);
            assert_eq!(getpriority_process(None).unwrap(), nice);
            // Kernels that can say so have it in nanoseconds.
            let turn = told("/proc/thread-self/sched");
            let slice = turn.lines().find(|line| line.starts_with("se.slice"));
            if let Some(slice) = slice {
                assert!(slice.ends_with(" 100000"), "{slice}");
            }
        })
        .join()
        .unwrap();
    }
}
