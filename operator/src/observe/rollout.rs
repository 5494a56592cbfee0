//! Which pod is replaced next when the template has changed. Pure.
//!
//! Standby first, one at a time, and only while a standby could take over; the active last (its sidecar hands over in
//! order). One exception: a pod that never became ready may always go, since that is how a broken configuration is mended.

use jiff::{SignedDuration, Timestamp};

use super::conditions::node_problem;
use super::facts::{Observed, PodFacts};

/// A pod that is not ready after this long stops the roll.
pub const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// A new pod has to live so long before the next one goes: one that dies after its first seconds would else be the only
/// standby, and the next move would fall into the work that its start makes for kubelet and the API server.
pub const PROVEN_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// How far the pods have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// All pods have the present template.
    Complete,
    /// Pods are being made.
    Creating {
        /// What is awaited.
        message: String,
    },
    /// Pods are being replaced; something is awaited.
    Rolling {
        /// What is awaited.
        message: String,
    },
    /// This pod is to be deleted now.
    Replace {
        /// Its name.
        pod: String,
        /// Its UID: no other pod of that name.
        uid: String,
        /// Why.
        message: String,
    },
    /// A pod with the present template does not become ready.
    Stuck {
        /// Which, and its problem.
        message: String,
    },
}

/// The next step.
pub fn decide(observed: &Observed, active: Option<&str>, now: Timestamp) -> Rollout {
    let Some(revision) = observed.template.revision.as_deref() else {
        return creating("the StatefulSet is being made or updated".into());
    };
    let (new, old): (Vec<&PodFacts>, Vec<&PodFacts>) = observed
        .pods
        .values()
        .filter(|pod| observed.node_names().any(|name| name == pod.name))
        .partition(|pod| pod.revision.as_deref() == Some(revision));
    let absent = first_absent(observed);
    if old.is_empty() {
        return without_old(observed, &new, absent, now);
    }
    if let Some(name) = absent {
        return rolling(format!("waiting for pod {name} to be made again"));
    }
    if let Some(pod) = old
        .iter()
        .find(|pod| pod.was_never_ready && active != Some(&pod.name))
    {
        return replace(pod, "it never became ready with its old configuration");
    }
    if let Some(pod) = new.iter().find(|pod| !is_good(observed, pod)) {
        return awaiting(observed, pod, now);
    }
    if let Some(pod) = new.iter().find(|pod| now < pod.created_at + PROVEN_AFTER) {
        let seconds = PROVEN_AFTER.as_secs();
        return rolling(format!(
            "waiting for pod {} to have lived {seconds} s",
            pod.name
        ));
    }
    if active.is_none() {
        return rolling("waiting for a node to become active".into());
    }
    if let Some(pod) = old.iter().find(|pod| !is_good(observed, pod)) {
        return rolling(format!("waiting for {} to be ready", pod.name));
    }
    let standby = old.iter().rev().find(|pod| active != Some(&pod.name));
    let next = standby.or(old.first()).expect("there is an old pod");
    replace(next, "its configuration is an old one")
}

fn without_old(
    observed: &Observed,
    new: &[&PodFacts],
    absent: Option<String>,
    now: Timestamp,
) -> Rollout {
    if let Some(pod) = new
        .iter()
        .find(|pod| pod.was_never_ready && !is_good(observed, pod))
    {
        return match awaiting(observed, pod, now) {
            Rollout::Rolling { message } => creating(message),
            other => other,
        };
    }
    match absent {
        Some(name) => creating(format!("waiting for pod {name} to be made")),
        None => Rollout::Complete,
    }
}

fn awaiting(observed: &Observed, pod: &PodFacts, now: Timestamp) -> Rollout {
    if pod.was_never_ready && now >= pod.created_at + STUCK_AFTER {
        let problem = node_problem(observed, &pod.name).map_or_else(
            || "see `kubectl describe pod` and its logs".to_owned(),
            |problem| problem.message,
        );
        let message = format!("pod {} does not become ready: {problem}", pod.name);
        return Rollout::Stuck { message };
    }
    rolling(format!("waiting for pod {} to be ready", pod.name))
}

fn first_absent(observed: &Observed) -> Option<String> {
    observed
        .node_names()
        .find(|name| observed.pods.get(name).is_none_or(|pod| pod.is_terminating))
}

fn is_good(observed: &Observed, pod: &PodFacts) -> bool {
    use pbx_crds::report::ReportedRole;
    observed
        .connected(&pod.name)
        .is_some_and(|report| report.ready || report.role == ReportedRole::Active)
}

fn replace(pod: &PodFacts, why: &str) -> Rollout {
    Rollout::Replace {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        message: format!("replacing pod {}: {why}", pod.name),
    }
}

fn rolling(message: String) -> Rollout {
    Rollout::Rolling { message }
}

fn creating(message: String) -> Rollout {
    Rollout::Creating { message }
}

#[cfg(test)]
mod tests;
