//! What this node tells of itself, put together from what its parts know.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use pbx_core::{Role, Seat};
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{Problem, Report, ReportedRole};
use pbx_crds::status::{AsteriskState, AsteriskStatus, LinkState, LinkStatus};

use crate::asterisk::supervisor::Phase;
use crate::config::Checked;
use crate::daemon::CoreView;

/// What the services know beside the core's view.
pub struct Known<'a> {
    /// The core's view.
    pub view: CoreView,
    /// Where Asterisk is.
    pub phase: Phase,
    /// Whether this node could take over now.
    pub is_ready: bool,
    /// The pod was told to end.
    pub is_terminating: bool,
    /// Asterisk's version.
    pub version: Option<&'a str>,
    /// Hash of its configuration.
    pub config_hash: Option<&'a str>,
    /// What is wrong.
    pub problem: Option<&'a Problem>,
    /// History and counts.
    pub ledger: &'a Ledger,
}

/// The report of now; `since` stays while the role stays.
pub fn build_report(checked: &Checked, known: &Known<'_>, before: Option<&Report>) -> Report {
    let role = if known.view.role == Role::Active {
        ReportedRole::Active
    } else {
        ReportedRole::Standby
    };
    let since = before
        .filter(|before| before.role == role)
        .map_or_else(|| Time(Timestamp::now()), |before| before.since.clone());
    Report {
        node: checked.node.clone(),
        uid: checked.uid.clone(),
        role,
        detail: detail(known).into(),
        since,
        epoch: known.view.epoch.cast_signed(),
        active: known.view.active.map(|seat| checked.name_of(seat)),
        ready: known.is_ready && is_voting(known.view.role),
        asterisk: AsteriskStatus {
            state: asterisk_state(known.phase),
            version: known.version.map(Into::into),
        },
        config_hash: known.config_hash.map(Into::into),
        links: links(checked, &known.view),
        holds_witness: known.view.holds_witness,
        terminating: known.is_terminating,
        problem: known.problem.cloned(),
        ledger: known.ledger.clone(),
    }
}

fn is_voting(role: Role) -> bool {
    matches!(role, Role::Standby | Role::Bidding | Role::Active)
}

fn detail(known: &Known<'_>) -> &'static str {
    match (known.view.role, known.phase) {
        (_, _) if known.is_terminating => "Leaving",
        (Role::Active, Phase::Booted) => "Serving",
        (Role::Active, _) => "Restarting",
        (Role::Quarantined, _) => "Quarantined",
        (Role::Leaving | Role::Left, _) => "Leaving",
        (Role::Standby | Role::Bidding | Role::Stopping, Phase::Booted) => "Ready",
        (Role::Standby | Role::Bidding | Role::Stopping, Phase::Starting) => "Starting",
        (
            Role::Standby | Role::Bidding | Role::Stopping,
            Phase::Held | Phase::Ordered | Phase::Ending,
        ) => "AsteriskDown",
    }
}

fn asterisk_state(phase: Phase) -> AsteriskState {
    match phase {
        Phase::Held | Phase::Ordered | Phase::Ending => AsteriskState::Stopped,
        Phase::Starting => AsteriskState::Starting,
        Phase::Booted => AsteriskState::Running,
    }
}

fn links(checked: &Checked, view: &CoreView) -> Vec<LinkStatus> {
    let seats = 0..checked.file.nodes.len();
    seats
        .filter(|at| Seat(*at as u8) != checked.settings.seat && view.is_peer_known[*at])
        .map(|at| LinkStatus {
            name: checked.file.nodes[at].name.clone(),
            state: if view.is_peer_up[at] {
                LinkState::Up
            } else {
                LinkState::Down
            },
        })
        .collect()
}
