//! The figures of the end-to-end benchmark: what each means and what is wanted. The table of the README is made from these.

use pbx_tests::measure::Goal;

use super::measured::{Definition, figure};

/// All figures, in the order of the table.
pub(super) const FIGURES: [Definition; 18] = [
    figure(
        "e2e.apply_available_s",
        "`kubectl apply` → condition Available, images on the nodes",
        "s",
        Goal::Median(5.0),
    ),
    figure(
        "e2e.kill_promoted_ms",
        "`kill -9` of the active Asterisk → standby promoted",
        "ms",
        Goal::Median(10.0),
    ),
    figure(
        "e2e.kill_endpoints_ms",
        "… → EndpointSlice written, as a watching client sees it",
        "ms",
        Goal::Median(25.0),
    ),
    figure(
        "e2e.kill_answer_ms",
        "… → first SIP answer through the ClusterIP, new source port",
        "ms",
        Goal::Median(150.0),
    ),
    figure(
        "e2e.kill_answer_kept_ms",
        "… → the same for a client that keeps its port",
        "ms",
        Goal::Median(150.0),
    ),
    figure(
        "e2e.kill_status_ms",
        "… → new status at a watching client",
        "ms",
        Goal::Median(150.0),
    ),
    figure(
        "e2e.sidecar_kill",
        "`kill -9` of the active's sidecar → back in its role; role and Asterisk's pid unchanged",
        "ms",
        Goal::Max(300.0),
    ),
    figure(
        "e2e.pod_deleted_gap_ms",
        "active pod deleted, rolled by the operator, its node drained: longest time without an answer",
        "ms",
        Goal::Median(150.0),
    ),
    figure(
        "e2e.node_off_promoted_ms",
        "node powered off, deadtime 800 ms → promoted",
        "ms",
        Goal::Max(850.0),
    ),
    figure(
        "e2e.operator_down",
        "operator scaled to 0 during a failover → promoted; status and counts exact after its return",
        "ms",
        Goal::Max(150.0),
    ),
    figure(
        "e2e.api_cut_active",
        "API cut from the active's node: no move; then its Asterisk killed → first SIP answer, new source port",
        "ms",
        Goal::Median(150.0),
    ),
    figure(
        "e2e.api_cut_standby",
        "API cut from the standby's node, then the active Asterisk killed: longest time without an answer; role stays",
        "ms",
        Goal::Max(1000.0),
    ),
    figure(
        "e2e.api_down",
        "API server stopped for 60 s, active Asterisk killed: longest time without an answer; role stays",
        "ms",
        Goal::Max(1000.0),
    ),
    figure(
        "e2e.api_blip_alone",
        "API server stopped for 5 s while the standby's pod is away: calls lost",
        "calls",
        Goal::Max(0.0),
    ),
    figure(
        "e2e.dual",
        "answers by two nodes, in all of the above and with the active's pod frozen for 0.2 s and 3 s",
        "answers",
        Goal::Max(0.0),
    ),
    figure(
        "e2e.steady_writes",
        "API writes in 10 minutes of steady state",
        "writes",
        Goal::Max(0.0),
    ),
    figure(
        "e2e.sidecar_mib",
        "resident memory of a sidecar",
        "MiB",
        Goal::Max(10.0),
    ),
    figure(
        "e2e.sidecar_cpu",
        "processor time of a sidecar in an hour",
        "s",
        Goal::Max(5.0),
    ),
];
