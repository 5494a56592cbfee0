//! The rows of `cargo xtask bench asterisk`: what each means and what is wanted.

use pbx_tests::measure::Goal;

/// One line of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
}

/// All rows, in the order of the table.
pub(super) const ROWS: [Row; 15] = [
    row(
        "asterisk.hung_s",
        "Asterisk hung, all of it (SIGSTOP) → another node active; bare hosts",
        "s",
        Goal::Max(2.0),
    ),
    row(
        "asterisk.hung_s.blocked",
        "… hung in its task processors, while a Ping is still answered",
        "s",
        Goal::Max(2.0),
    ),
    row(
        "asterisk.drain",
        "Drain under 50 calls held by SIPp to the floating address of bare hosts, 10 new ones a second: calls cut",
        "calls",
        Goal::Max(0.0),
    ),
    row(
        "asterisk.drain.refused",
        "… new calls refused or not answered",
        "calls",
        Goal::Max(0.0),
    ),
    row(
        "asterisk.drain.moved_s",
        "… asked → another node active",
        "s",
        Goal::None,
    ),
    row(
        "asterisk.drain.pod",
        "the same on Kubernetes, calls through the Service: calls cut",
        "calls",
        Goal::Max(0.0),
    ),
    row(
        "asterisk.drain.pod.refused",
        "… new calls that kube-proxy still sent to the old node",
        "calls",
        Goal::None,
    ),
    row(
        "asterisk.drain.pod.moved_s",
        "… asked → another node active in the status",
        "s",
        Goal::None,
    ),
    row(
        "asterisk.reload",
        "changed files on bare hosts under 50 calls: calls cut",
        "calls",
        Goal::Max(0.0),
    ),
    row(
        "asterisk.reload.took_s",
        "… changed → the active has them, a standby first",
        "s",
        Goal::None,
    ),
    row(
        "asterisk.reload.pod",
        "changed ConfigMap under 50 calls and 10 new ones a second: calls cut",
        "calls",
        Goal::Max(0.0),
    ),
    row(
        "asterisk.reload.pod.took_s",
        "… changed → the active answers by it",
        "s",
        Goal::None,
    ),
    row(
        "asterisk.upgrade",
        "image upgraded on Kubernetes with Drain, under the same calls: longest time without an answer",
        "ms",
        Goal::Median(150.0),
    ),
    row(
        "asterisk.upgrade.cut",
        "… calls cut",
        "calls",
        Goal::Max(0.0),
    ),
    row(
        "asterisk.upgrade.refused",
        "… new calls refused or not answered",
        "calls",
        Goal::None,
    ),
];

const fn row(name: &'static str, what: &'static str, unit: &'static str, goal: Goal) -> Row {
    Row {
        name,
        what,
        unit,
        goal,
    }
}
