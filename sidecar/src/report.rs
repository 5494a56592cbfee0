//! What this node tells of itself, put together from what its parts know.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use pbx_core::Role;
use pbx_crds::health::HealthStatus;
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{LINK_TOO_SLOW, Problem, Report, ReportedRole, WITHOUT_QUORUM};
use pbx_crds::status::{AsteriskState, AsteriskStatus, LinkState, LinkStatus};
use pbx_crds::switchover::SwitchoverStatus;

use crate::asterisk::supervisor::Phase;
use crate::config::Checked;
use crate::daemon::CoreView;
use crate::peer::meter::slowest;
use crate::peer::plan::link_name;

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
    /// Its health.
    pub health: &'a HealthStatus,
    /// The present or last planned move.
    pub switchover: Option<&'a SwitchoverStatus>,
    /// A standby's Asterisk does not run.
    pub is_cold: bool,
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
        started_at: before
            .and_then(|before| before.started_at.clone())
            .or_else(|| Some(Time(Timestamp::now()))),
        epoch: known.view.epoch.cast_signed(),
        active: known.view.active.map(|seat| checked.name_of(seat)),
        ready: known.is_ready && is_voting(known.view.role) && !is_replaced(known),
        asterisk: AsteriskStatus {
            state: asterisk_state(known.phase),
            version: known.version.map(Into::into),
        },
        config_hash: known.config_hash.map(Into::into),
        health: known.health.clone(),
        switchover: known.switchover.cloned(),
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

/// Its Asterisk has ended and another node serves. That the traffic still pointed here let it be promoted while nobody did.
fn is_replaced(known: &Known<'_>) -> bool {
    let is_stopped = known.phase == Phase::Held && !known.is_cold;
    is_stopped && known.view.role != Role::Active && known.view.active.is_some()
}

fn detail(known: &Known<'_>) -> &'static str {
    match (known.view.role, known.phase) {
        (_, _) if known.is_terminating => "Leaving",
        (_, Phase::Draining) => "Draining",
        (Role::Active, Phase::Booted) => "Serving",
        (Role::Active, _) => "Restarting",
        (Role::Quarantined, _) => "Quarantined",
        (Role::Leaving | Role::Left, _) => "Leaving",
        (Role::Standby, Phase::Held) if known.is_cold && known.is_ready => "Cold",
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
        Phase::Booted | Phase::Draining => AsteriskState::Running,
    }
}

/// It serves by its own decision: the other nodes, or the API server, are out of its reach.
pub fn without_quorum(view: &CoreView) -> Option<Problem> {
    view.is_without_quorum.then(|| Problem {
        reason: WITHOUT_QUORUM.into(),
        message: "serving without a quorum, since failover.onQuorumLoss is Continue: another node may serve too; \
                  mend the network between the nodes, or the way to the API server"
            .into(),
    })
}

/// Each link to each peer that was ever heard.
fn links(checked: &Checked, view: &CoreView) -> Vec<LinkStatus> {
    peers_heard(checked, view)
        .flat_map(|(seat, peer)| {
            let states = view.links[seat].iter();
            let links = checked.links.iter().zip(states);
            links.map(move |(link, state)| LinkStatus {
                name: link_name(peer, link.name.as_deref()),
                state: if state.is_up {
                    LinkState::Up
                } else {
                    LinkState::Down
                },
            })
        })
        .collect()
}

/// What the timing rules cannot bear. Without figures, which change all the time: they are in `/status` and metrics.
pub fn slow_link(checked: &Checked, view: &CoreView) -> Option<Problem> {
    let (peer, link) = peers_heard(checked, view).find_map(|(seat, peer)| {
        let states = view.links[seat].iter();
        let slow = checked
            .links
            .iter()
            .zip(states)
            .find(|(_, state)| state.is_slow);
        slow.map(|(link, _)| (peer, link))
    })?;
    let timing = &checked.settings.timing;
    Some(Problem {
        reason: LINK_TOO_SLOW.into(),
        message: format!(
            "link {} of {}: round-trip time plus four times its jitter is above the {:?} that warntime {:?}, deadtime {:?} and \
             keepalive {:?} bear: mend the path, or raise warntime and deadtime (figures: pbxha_link_round_trip_seconds)",
            link_name(peer, link.name.as_deref()),
            checked.node,
            slowest(timing),
            timing.warntime,
            timing.deadtime,
            timing.keepalive,
        ),
    })
}

fn peers_heard<'a>(
    checked: &'a Checked,
    view: &'a CoreView,
) -> impl Iterator<Item = (usize, &'a str)> {
    let own = usize::from(checked.settings.seat.0);
    let nodes = checked.names.iter().enumerate();
    nodes
        .filter(move |(seat, _)| *seat != own && view.is_peer_known[*seat])
        .map(|(seat, name)| (seat, name.as_str()))
}
