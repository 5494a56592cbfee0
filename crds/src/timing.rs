//! The rules between the timings of a cluster, said once for the CRD's CEL and for the sidecar's file.

use std::time::Duration;

use crate::cluster::FailoverSpec;

/// One broken rule; its text says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingProblem {
    /// The field to change.
    pub field: &'static str,
    /// What is wrong, and the fix.
    pub message: String,
}

/// Every rule that `failover` breaks; empty when it is sound.
pub fn problems(failover: &FailoverSpec) -> Vec<TimingProblem> {
    let keepalive = failover.keepalive.get();
    let warntime = failover.warntime.get();
    let deadtime = failover.deadtime.get();
    let initdead = failover.initdead.get();
    let rules = [
        (
            keepalive < MIN_KEEPALIVE,
            "keepalive",
            format!("keepalive {keepalive:?} is below {MIN_KEEPALIVE:?}: raise it"),
        ),
        (
            warntime < keepalive * 2,
            "warntime",
            format!(
                "warntime {warntime:?} is below twice keepalive {keepalive:?}: raise warntime to {:?}",
                keepalive * 2
            ),
        ),
        (
            deadtime < warntime * 2,
            "deadtime",
            format!(
                "deadtime {deadtime:?} is below twice warntime {warntime:?}: raise deadtime to {:?}",
                warntime * 2
            ),
        ),
        (
            deadtime < MIN_DEADTIME,
            "deadtime",
            format!("deadtime {deadtime:?} is below {MIN_DEADTIME:?}: raise it"),
        ),
        (
            deadtime > MAX_DEADTIME,
            "deadtime",
            format!("deadtime {deadtime:?} is above {MAX_DEADTIME:?}: lower it"),
        ),
        (
            initdead < deadtime,
            "initdead",
            format!(
                "initdead {initdead:?} is below deadtime {deadtime:?}: raise initdead to {deadtime:?}"
            ),
        ),
    ];
    rules
        .into_iter()
        .filter(|(is_broken, _, _)| *is_broken)
        .map(|(_, field, message)| TimingProblem { field, message })
        .collect()
}

/// The rule for a cluster whose service is ended by the death of Asterisk alone, without a fence in the kernel: that death takes the
/// time of several processes, which the margins of a shorter deadtime do not have.
pub fn unfenced_problem(failover: &FailoverSpec) -> Option<TimingProblem> {
    let deadtime = failover.deadtime.get();
    (deadtime < MIN_UNFENCED_DEADTIME).then(|| TimingProblem {
        field: "deadtime",
        message: format!(
            "deadtime {deadtime:?} is below {MIN_UNFENCED_DEADTIME:?}, which only floating addresses allow: raise it"
        ),
    })
}

/// Below it, the kernel's own ticks (up to 10 ms) would be the larger part of every margin.
pub const MIN_KEEPALIVE: Duration = Duration::from_millis(5);
/// The same, as a grant of it leaves no time to serve behind the margins of the fence.
pub const MIN_DEADTIME: Duration = Duration::from_millis(30);
/// Below it, only the fence of floating addresses ends a service in time.
pub const MIN_UNFENCED_DEADTIME: Duration = Duration::from_millis(80);
/// Above it, nobody needs sub-second anything.
pub const MAX_DEADTIME: Duration = Duration::from_mins(1);
