//! The status of a cluster from what is observed. Pure: the same observation and moment give the same status, and a
//! steady observation gives an equal one, which is not written (I4).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pbx_crds::PbxClusterStatus;
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{Report, ReportedRole};
use pbx_crds::status::{LinkState, NodeState, NodeStatus};
use pbx_crds::switchover::SwitchoverStatus;

use super::announce;
use super::conditions;
use super::facts::{Observed, PodFacts};
use super::rollout::{self, Rollout};

/// The status at `now`, and how far a new template has come.
pub fn status_of(observed: &Observed, now: Timestamp) -> (PbxClusterStatus, Rollout) {
    let old = &observed.status;
    let mut ledger = Ledger::from_status(old);
    for report in observed.reports.values() {
        ledger.merge(&report.report.ledger);
    }
    let active = active_of(observed);
    let active_name = active.as_ref().map(|(name, _)| name.clone());
    let serving = active_name
        .as_deref()
        .and_then(|name| observed.connected(name));
    let epoch = active.as_ref().map(|(_, epoch)| *epoch).max(old.epoch);
    let history = ledger.history();
    let mut status = PbxClusterStatus {
        observed_generation: observed.objects.generation.or(old.observed_generation),
        active_since: active_since(observed, active_name.as_deref(), serving, now),
        epoch,
        ready: Some(ready(observed, active_name.as_deref(), epoch)),
        last_cause: history.first().map(|record| record.cause),
        version: serving.and_then(|report| report.asterisk.version.clone()),
        health: serving.map(|report| report.health.level),
        switchover: switchover(observed),
        conditions: Vec::new(),
        nodes: nodes(observed, active_name.as_deref(), &ledger, now),
        failover_history: history,
        counts: ledger.cluster_counts(),
        witness: old.witness.clone(),
        active: active_name,
    };
    let rollout = rollout::decide(observed, status.active.as_deref(), now);
    status.conditions = conditions::conditions_of(observed, &status, &rollout, now);
    (status, rollout)
}

/// Whether `new` tells only of a moment between two actives: the old one has gone, and a standby is about to follow. The
/// write of such a status would stand in the way of the next one, which is what people wait for.
pub fn is_between_actives(observed: &Observed, new: &PbxClusterStatus) -> bool {
    observed.status.active.is_some()
        && new.active.is_none()
        && observed.all_connected().any(|(_, report)| is_heir(report))
}

/// Whether what `new` tells first is a move that was wanted.
pub fn tells_of_planned_move(observed: &Observed, new: &PbxClusterStatus) -> bool {
    announce::new_changes(&observed.status, new)
        .iter()
        .any(|record| record.planned && record.from.is_some())
}

/// When the status will change though nothing happens: a start that takes too long, a new pod that has proven itself.
pub fn next_change(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let starts = observed
        .pods
        .values()
        .filter(|pod| observed.connected(&pod.name).is_none())
        .flat_map(|pod| {
            let limits = [initdead(observed), rollout::STUCK_AFTER];
            limits.map(|limit| pod.created_at + limit)
        });
    let creation = observed.created_at + initdead(observed);
    let pods = observed.pods.values();
    let proofs = pods.map(|pod| pod.created_at + rollout::PROVEN_AFTER);
    starts
        .chain(proofs)
        .chain([creation])
        .filter(|at| *at > now)
        .min()
}

fn initdead(observed: &Observed) -> SignedDuration {
    SignedDuration::try_from(observed.initdead).unwrap_or(SignedDuration::MAX)
}

/// Who serves, and under which epoch. A node's own word counts; a peer's only for a node that does not speak to us; and
/// neither against somebody's knowledge of a newer epoch.
fn active_of(observed: &Observed) -> Option<(String, i64)> {
    let claims =
        observed
            .all_connected()
            .filter_map(|(name, report)| match (report.role, &report.active) {
                (ReportedRole::Active, _) => Some((name.to_owned(), report.epoch)),
                (ReportedRole::Standby, Some(other)) if may_vouch(observed, report, other) => {
                    Some((other.clone(), report.epoch))
                }
                (ReportedRole::Standby, _) => None,
            });
    let best = claims.max_by_key(|(_, epoch)| *epoch);
    match best {
        Some(claim) => Some(claim).filter(|claim| !is_contradicted(observed, claim)),
        None => remembered(observed),
    }
}

fn may_vouch(observed: &Observed, report: &Report, other: &str) -> bool {
    observed.pods.contains_key(other)
        && observed.connected(other).is_none()
        && link_to(report, other) == Some(LinkState::Up)
}

fn is_contradicted(observed: &Observed, (name, epoch): &(String, i64)) -> bool {
    observed.all_connected().any(|(_, report)| {
        report.epoch > *epoch && report.active.as_ref().is_some_and(|other| other != name)
    })
}

/// Nobody speaks of an active: the last one stays as long as kubelet calls it ready and only our stream to it is missing.
fn remembered(observed: &Observed) -> Option<(String, i64)> {
    let name = observed.status.active.clone()?;
    let (pod, _) = observed.node(&name);
    let is_kept = pod.is_some_and(|pod| pod.is_ready)
        && observed.connected(&name).is_none()
        && !is_silent_to_peers(observed, &name);
    is_kept.then(|| (name, observed.status.epoch.unwrap_or(0)))
}

fn link_to(report: &Report, name: &str) -> Option<LinkState> {
    let link = report.links.iter().find(|link| link.name == name)?;
    Some(link.state)
}

fn is_silent_to_peers(observed: &Observed, name: &str) -> bool {
    let words: Vec<LinkState> = observed
        .all_connected()
        .filter_map(|(_, report)| link_to(report, name))
        .collect();
    words.contains(&LinkState::Down) && !words.contains(&LinkState::Up)
}

fn active_since(
    observed: &Observed,
    active: Option<&str>,
    serving: Option<&Report>,
    now: Timestamp,
) -> Option<Time> {
    let old = &observed.status;
    if active.is_some() && active == old.active.as_deref() && old.active_since.is_some() {
        return old.active_since.clone();
    }
    active.map(|_| serving.map_or(Time(now), |report| report.since.clone()))
}

/// Standbys that could take over, of those configured.
/// How many standbys could take over now. The last words of a node that has just been replaced, of the epoch before, do not count: it
/// called itself ready when it served.
pub(super) fn ready_standbys(
    observed: &Observed,
    active: Option<&str>,
    epoch: Option<i64>,
) -> usize {
    let is_outdated = |report: &Report| active.is_some() && Some(report.epoch) < epoch;
    let others = observed
        .all_connected()
        .filter(|(name, _)| Some(*name) != active);
    others
        .filter(|(_, report)| is_heir(report) && !is_outdated(report))
        .count()
}

fn is_heir(report: &Report) -> bool {
    report.role == ReportedRole::Standby && report.ready
}

fn ready(observed: &Observed, active: Option<&str>, epoch: Option<i64>) -> String {
    let count = ready_standbys(observed, active, epoch);
    format!("{count}/{}", observed.nodes.saturating_sub(1))
}

/// The newest that any sidecar tells; the last known while none does. Moments are whole seconds: of two of the same second the one
/// that is told wins over the one that is known, and what is over wins over what goes on.
fn switchover(observed: &Observed) -> Option<SwitchoverStatus> {
    let told = observed.all_connected();
    let told = told.filter_map(|(_, report)| report.switchover.clone());
    let known = observed.status.switchover.clone().into_iter();
    known
        .chain(told)
        .max_by_key(|one| (one.since.0, one.state.is_final()))
}

fn nodes(
    observed: &Observed,
    active: Option<&str>,
    ledger: &Ledger,
    now: Timestamp,
) -> Vec<NodeStatus> {
    observed
        .node_names()
        .map(|name| node(observed, active, ledger, now, name))
        .collect()
}

fn node(
    observed: &Observed,
    active: Option<&str>,
    ledger: &Ledger,
    now: Timestamp,
    name: String,
) -> NodeStatus {
    let old = observed.status.nodes.iter().find(|node| node.name == name);
    let (state, detail) = state_of(observed, active, old, now, &name);
    let (pod, _) = observed.node(&name);
    let report = observed.connected(&name);
    let is_alive = state != NodeState::Dead;
    let kept = old.filter(|_| is_alive && report.is_none());
    NodeStatus {
        state,
        detail,
        since: old
            .filter(|old| old.state == state)
            .and_then(|old| old.since.clone())
            .or(Some(Time(now))),
        epoch: report
            .map(|report| report.epoch)
            .or(old.and_then(|old| old.epoch)),
        address: pod.and_then(|pod| pod.address.clone()),
        node_name: pod.and_then(|pod| pod.node_name.clone()),
        asterisk: report
            .map(|report| report.asterisk.clone())
            .or(kept.and_then(|old| old.asterisk.clone())),
        health: report
            .map(|report| report.health.clone())
            .or(kept.and_then(|old| old.health.clone())),
        links: report
            .map(|report| report.links.clone())
            .or(kept.map(|old| old.links.clone()))
            .unwrap_or_default(),
        last_cause: ledger.last_of(&name).map(|record| record.cause),
        counts: ledger.node_counts(&name),
        name,
    }
}

fn state_of(
    observed: &Observed,
    active: Option<&str>,
    old: Option<&NodeStatus>,
    now: Timestamp,
    name: &str,
) -> (NodeState, String) {
    let living = if active == Some(name) {
        NodeState::Active
    } else {
        NodeState::Standby
    };
    if let Some(report) = observed.connected(name) {
        return (living, report.detail.clone());
    }
    let (pod, report) = observed.node(name);
    let Some(pod) = pod else {
        return without_pod(observed, old, now);
    };
    if is_silent_to_peers(observed, name) {
        return dead("Silent");
    }
    let was_seen = report.is_some() || was_seen_before(old, pod);
    match (was_seen, pod.is_ready) {
        (true, true) => (living, old.map_or("Starting", |old| &old.detail).to_owned()),
        (true, false) => dead("Silent"),
        (false, _) if now < pod.created_at + initdead(observed) => starting(),
        (false, _) => dead("NotSeen"),
    }
}

fn without_pod(
    observed: &Observed,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> (NodeState, String) {
    let is_new = old.is_none_or(|old| old.detail == "Starting" && old.address.is_none());
    if is_new && now < observed.created_at + initdead(observed) {
        return starting();
    }
    dead("NoPod")
}

/// Whether the status, written before this operator began, tells of the sidecar of this very pod.
fn was_seen_before(old: Option<&NodeStatus>, pod: &PodFacts) -> bool {
    old.is_some_and(|old| {
        let never = ["Starting", "NoPod", "NotSeen"];
        !never.contains(&old.detail.as_str()) && old.address == pod.address
    })
}

fn starting() -> (NodeState, String) {
    (NodeState::Standby, "Starting".into())
}

fn dead(detail: &str) -> (NodeState, String) {
    (NodeState::Dead, detail.into())
}

#[cfg(test)]
mod tests;
