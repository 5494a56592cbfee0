//! Taking one's turn before ordinary programs, where the system allows it (`CAP_SYS_NICE`, or a limit of real-time priority): a
//! failover on a machine whose processors are all busy waits for none of them. Left out: Asterisk, which is ordinary.

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
}
