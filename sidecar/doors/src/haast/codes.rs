//! HAAst's numeric codes and their words. The published ones keep their meaning; the others are ours. `docs/haast.md` has the table.

use pbx_crds::Cause;
use pbx_crds::report::Report;
use pbx_crds::status::AsteriskState;

/// A number and its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u16, pub &'static str);

/// Nothing is known.
pub const UNKNOWN: Code = Code(0, "Unknown");
/// Published: alive, and does not serve.
pub const STANDBY: Code = Code(3, "Standby");
/// Published: serves.
pub const ACTIVE: Code = Code(4, "Active");
/// Silent for warntime or longer.
pub const DEAD: Code = Code(5, "Dead");
/// Published: a path between two nodes that carries heartbeats.
pub const LINK_UP: Code = Code(7, "Up");
/// A path that is silent.
pub const LINK_DOWN: Code = Code(4, "Down");

/// The state of a node. Who is active is known before the report says so.
pub fn haast_state(report: &Report, is_active: bool) -> Code {
    match report {
        _ if is_active => ACTIVE,
        report if report.terminating => Code(2, "Stopping"),
        report if !report.ready => Code(1, "Starting"),
        _ => STANDBY,
    }
}

/// How well a node is.
pub fn health(report: &Report) -> Code {
    match (report.ready, &report.problem) {
        (true, None) => Code(1, "Normal"),
        (true, Some(_)) => Code(2, "Degraded"),
        (false, _) => Code(3, "Not ready"),
    }
}

/// Whether Asterisk runs.
pub fn asterisk(state: AsteriskState) -> Code {
    match state {
        AsteriskState::Starting => Code(1, "Starting"),
        AsteriskState::Running => Code(2, "Started"),
        AsteriskState::Stopped => Code(4, "Stopped"),
    }
}

/// The connection to Asterisk's manager interface: fully booted is what Asterisk itself tells over it.
pub fn connection(state: AsteriskState) -> Code {
    match state {
        AsteriskState::Starting => Code(3, "Connecting"),
        AsteriskState::Stopped => Code(4, "Connect failed"),
        AsteriskState::Running => Code(7, "Logged in"),
    }
}

/// Why a node won or lost the role.
pub fn cause(cause: Cause, has_lost: bool) -> Code {
    match cause {
        Cause::Startup => Code(2, "Dual standby peer contention detected"),
        Cause::Preferred if has_lost => Code(23, "Local peer automatic demotion request"),
        Cause::AsteriskExited => Code(101, "Asterisk ended"),
        Cause::AsteriskHung => Code(102, "Asterisk stopped answering"),
        Cause::HealthFailed => Code(103, "Peer health failed"),
        Cause::NodeSilent => Code(104, "Peer silent"),
        Cause::PodDeleted => Code(105, "Peer shut down"),
        Cause::Switchover => Code(106, "Switchover requested"),
        Cause::Drill => Code(107, "Scheduled switchover"),
        Cause::Preferred => Code(108, "Preferred peer returned"),
        Cause::QuorumLost => Code(109, "Quorum lost"),
        Cause::GuardExpired => Code(110, "Authority expired"),
        Cause::SidecarRestarted => Code(111, "Cluster software restarted"),
        Cause::Contention => Code(112, "Dual active peer contention detected"),
        Cause::TrafficFailed => Code(113, "Traffic could not be moved"),
    }
}

/// No change of roles is remembered.
pub const NO_CAUSE: Code = Code(0, "None");

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSES: [Cause; 14] = [
        Cause::Startup,
        Cause::AsteriskExited,
        Cause::AsteriskHung,
        Cause::HealthFailed,
        Cause::NodeSilent,
        Cause::PodDeleted,
        Cause::Switchover,
        Cause::Drill,
        Cause::Preferred,
        Cause::QuorumLost,
        Cause::GuardExpired,
        Cause::SidecarRestarted,
        Cause::Contention,
        Cause::TrafficFailed,
    ];

    #[test]
    fn the_document_lists_every_cause() {
        let document = include_str!("../../../../docs/haast.md");
        for known in CAUSES {
            for has_lost in [true, false] {
                let Code(number, words) = cause(known, has_lost);
                let row = format!("| {number} | {words} |");
                assert!(document.contains(&row), "docs/haast.md lacks {row}");
            }
        }
    }
}
