//! What a change of the observation is worth telling as an Event. Pure.

use std::collections::BTreeSet;

use kube::runtime::events::EventType;
use pbx_crds::PbxClusterStatus;
use pbx_crds::report::Problem;
use pbx_crds::status::FailoverRecord;

use super::conditions::node_problem;
use super::facts::Observed;

/// An Event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Normal or Warning.
    pub type_: EventType,
    /// Stable, `CamelCase`.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Events that agree in reason and this are joined to one by the API machinery, which keeps the first sentence only.
    pub action: String,
}

/// Changes of the active that `new` tells and `old` did not, oldest first.
pub fn new_changes(old: &PbxClusterStatus, new: &PbxClusterStatus) -> Vec<FailoverRecord> {
    let newest = old.failover_history.iter().map(|record| record.epoch).max();
    let known = newest.max(Some(old.counts.through_epoch));
    let mut changes: Vec<_> = new
        .failover_history
        .iter()
        .filter(|record| Some(record.epoch) > known)
        .cloned()
        .collect();
    changes.sort_by_key(|record| record.epoch);
    changes
}

/// A change of the active in words.
pub fn of_change(record: &FailoverRecord) -> Announcement {
    let is_first = record.from.is_none();
    let in_place = match &record.from {
        Some(from) => format!(" in place of {from}"),
        None => String::new(),
    };
    Announcement {
        type_: if record.planned || is_first {
            EventType::Normal
        } else {
            EventType::Warning
        },
        reason: record.cause.as_str().into(),
        message: format!(
            "{} became active{in_place} ({}), epoch {}",
            record.to, record.cause, record.epoch
        ),
        action: format!("Epoch{}", record.epoch),
    }
}

/// Problems that were announced, by their subject (a pod's UID, or nothing for the cluster) and reason.
#[derive(Clone, Debug, Default)]
pub struct Announced(BTreeSet<(String, String)>);

impl Announced {
    /// Problems not yet announced. One is forgotten once its subject is well, so that flapping texts say nothing twice.
    pub fn news(&mut self, observed: &Observed) -> Vec<Announcement> {
        let present = problems(observed);
        self.0.retain(|(uid, reason)| {
            let is_there = present
                .iter()
                .any(|(subject, problem)| subject == uid && problem.reason == *reason);
            let is_unwell = observed
                .pods
                .values()
                .any(|pod| pod.uid == *uid && !pod.is_ready);
            is_there || is_unwell
        });
        present
            .into_iter()
            .filter(|(uid, problem)| {
                let key = (uid.clone(), problem.reason.clone());
                self.0.insert(key)
            })
            .map(|(_, problem)| Announcement {
                type_: EventType::Warning,
                reason: problem.reason,
                message: problem.message,
                action: "Observe".into(),
            })
            .collect()
    }
}

fn problems(observed: &Observed) -> Vec<(String, Problem)> {
    let of_cluster = observed.objects.problem.iter();
    let of_cluster = of_cluster.map(|problem| (String::new(), problem.clone()));
    let of_pods = observed
        .pods
        .values()
        .filter_map(|pod| Some((pod.uid.clone(), node_problem(observed, &pod.name)?)));
    of_cluster.chain(of_pods).collect()
}

#[cfg(test)]
mod tests;
