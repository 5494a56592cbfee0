//! PID 1 of both containers of a PBX pod, and the leash between it and Asterisk.
//!
//! Reading order: [`protocol`] is what the sidecar says to the guard; [`deadline`] and [`backoff`]
//! are the rules about time, without system calls; [`driver`] is the sidecar's end of the protocol, as pure; [`pbx`] is the loop that carries out the
//! sidecar's orders; [`life`] is one life of Asterisk as the guard sees it, [`doom`] its
//! end as early as the kernel shows it; [`leash`] is the process
//! that the kernel kills at the deadline; [`sidecar`] keeps the sidecar running; [`install`] and
//! [`seed`] are what init containers do; [`schedule`] is how whoever holds a deadline gets its turn.
//!
//! Left out on purpose: threads (a parent-death signal follows the *thread* that forked), an async
//! runtime, and any decision about roles: the guard knows deadlines, not votes.

pub mod arguments;
pub mod backoff;
pub mod child;
mod connection;
pub mod deadline;
mod doom;
pub mod driver;
pub mod install;
pub mod leash;
mod leash_link;
mod life;
pub mod log;
pub mod memory;
pub mod pbx;
pub mod protocol;
pub mod schedule;
pub mod seed;
pub mod sidecar;
mod signals;
mod timer;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Now on `CLOCK_BOOTTIME`, in nanoseconds: the clock of every deadline, which goes on while the
/// machine is suspended and which nobody can set.
pub fn boot_now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the time since boot is not negative");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000_000_000 + nanoseconds
}

/// How long to poll until `at_ns`. The wait itself does not count a suspended machine's sleep;
/// whoever waits looks at the clock again after it.
pub(crate) fn timespec_until(at_ns: u64) -> Timespec {
    let left_ns = at_ns.saturating_sub(boot_now_ns());
    Timespec {
        tv_sec: (left_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (left_ns % 1_000_000_000).cast_signed(),
    }
}
