//! The conditions: Available (a node serves), Redundant (a standby could take over), Progressing (something is being
//! made or rolled). Pure. Messages name the object and what to do.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pbx_crds::PbxClusterStatus;
use pbx_crds::report::{LINK_TOO_SLOW, Problem};
use pbx_crds::status::{NodeState, NodeStatus};

use super::facts::Observed;
use super::rollout::Rollout;
use super::seats;
use super::status::ready_standbys;

/// The three conditions at `now`. A transition's time moves only with the status of its condition.
pub fn conditions_of(
    observed: &Observed,
    status: &PbxClusterStatus,
    rollout: &Rollout,
    now: Timestamp,
) -> Vec<Condition> {
    let said = [
        available(observed, status),
        redundant(observed, status),
        progressing(observed, rollout),
    ];
    said.into_iter()
        .map(|verdict| condition(observed, status, verdict, now))
        .collect()
}

struct Verdict {
    type_: &'static str,
    is_true: bool,
    reason: String,
    message: String,
}

fn verdict(type_: &'static str, is_true: bool, reason: &str, message: String) -> Verdict {
    Verdict {
        type_,
        is_true,
        reason: reason.into(),
        message,
    }
}

fn condition(
    observed: &Observed,
    status: &PbxClusterStatus,
    verdict: Verdict,
    now: Timestamp,
) -> Condition {
    let word = if verdict.is_true { "True" } else { "False" };
    let old = observed
        .status
        .conditions
        .iter()
        .find(|old| old.type_ == verdict.type_ && old.status == word);
    Condition {
        last_transition_time: old.map_or(Time(now), |old| old.last_transition_time.clone()),
        message: verdict.message,
        observed_generation: status.observed_generation,
        reason: verdict.reason,
        status: word.into(),
        type_: verdict.type_.into(),
    }
}

fn available(observed: &Observed, status: &PbxClusterStatus) -> Verdict {
    if let Some(active) = &status.active {
        return verdict("Available", true, "NodeServes", format!("{active} serves"));
    }
    if let Some(problem) = any_problem(observed) {
        return verdict("Available", false, &problem.reason, problem.message);
    }
    if status.failover_history.is_empty() {
        let message = "no node has become active yet: the pods are starting".into();
        return verdict("Available", false, "Starting", message);
    }
    let details: Vec<String> = status.nodes.iter().map(in_words).collect();
    let message = format!("no node is active: {}", details.join(", "));
    verdict("Available", false, "NoActive", message)
}

fn redundant(observed: &Observed, status: &PbxClusterStatus) -> Verdict {
    let standbys: Vec<&NodeStatus> = status
        .nodes
        .iter()
        .filter(|node| status.active.as_ref() != Some(&node.name))
        .collect();
    let ready = ready_standbys(observed, status.active.as_deref(), status.epoch);
    if status.active.is_some() && ready > 0 {
        let message = format!("{ready} of {} standbys could take over", standbys.len());
        if let Some(slow) = slow_link(observed) {
            let message = format!("{message}; {}", slow.message);
            return verdict("Redundant", true, &slow.reason, message);
        }
        return verdict("Redundant", true, "StandbyReady", message);
    }
    let alive = standbys.iter().any(|node| node.state != NodeState::Dead);
    let reason = if alive {
        "StandbyNotReady"
    } else {
        "StandbyMissing"
    };
    let words: Vec<String> = standbys
        .iter()
        .map(|node| grave_problem(observed, &node.name).map_or(in_words(node), |p| p.message))
        .collect();
    verdict("Redundant", false, reason, words.join("; "))
}

fn progressing(observed: &Observed, rollout: &Rollout) -> Verdict {
    if let Some(problem) = &observed.objects.problem {
        let message = problem.message.clone();
        return verdict("Progressing", false, &problem.reason, message);
    }
    if let Some(message) = seats::count::awaited(observed) {
        return verdict("Progressing", true, "Resizing", message);
    }
    match rollout {
        Rollout::Complete => {
            if let Some(problem) = config_problem(observed) {
                return verdict("Progressing", false, &problem.reason, problem.message);
            }
            let message = "all pods have the present configuration".into();
            verdict("Progressing", false, "Complete", message)
        }
        Rollout::Creating { message } => verdict("Progressing", true, "Creating", message.clone()),
        Rollout::Rolling { message } | Rollout::Replace { message, .. } => {
            verdict("Progressing", true, "Rolling", message.clone())
        }
        Rollout::Stuck { message } => {
            verdict("Progressing", false, "RolloutStuck", message.clone())
        }
    }
}

fn any_problem(observed: &Observed) -> Option<Problem> {
    observed.objects.problem.clone().or_else(|| {
        observed
            .node_names()
            .find_map(|name| grave_problem(observed, &name))
    })
}

fn grave_problem(observed: &Observed, name: &str) -> Option<Problem> {
    node_problem(observed, name).filter(|problem| problem.reason != LINK_TOO_SLOW)
}

/// The pods are as they should be, and the user's new files are not applied. Why says more than that the active waits.
fn config_problem(observed: &Observed) -> Option<Problem> {
    observed
        .node_names()
        .filter_map(|name| node_problem(observed, &name))
        .filter(|problem| problem.reason.starts_with("Config"))
        .min_by_key(|problem| problem.reason == "ConfigWaiting")
}

/// Redundant it is, but a path is too slow for the timing rules: false alarms may come.
fn slow_link(observed: &Observed) -> Option<Problem> {
    observed
        .node_names()
        .filter_map(|name| node_problem(observed, &name))
        .find(|problem| problem.reason == LINK_TOO_SLOW)
}

/// What keeps `name` from being a good node: its pod's trouble, or its sidecar's word.
pub fn node_problem(observed: &Observed, name: &str) -> Option<Problem> {
    let (pod, _) = observed.node(name);
    let of_pod = pod.and_then(|pod| pod.problem.clone());
    of_pod.or_else(|| observed.connected(name)?.problem.clone())
}

fn in_words(node: &NodeStatus) -> String {
    format!("{} is {} ({})", node.name, node.state.as_str(), node.detail)
}
