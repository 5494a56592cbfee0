//! Planned ends of the active's pod: deleted, rolled by the operator, its node drained.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::moves::{Move, Steps, observe};
use crate::clock::Moment;
use crate::cluster::wait_until;
use crate::office::{NAME, NAMESPACE, Office};

const REPLACED_TIMEOUT: Duration = Duration::from_secs(90);

/// Deletes the active's pod.
pub fn delete_active(office: &Office) -> Result<Move> {
    let old = office.active_pod()?;
    let cause = |office: &Office| {
        let at = Moment::now();
        let delete = [
            "delete",
            "pod",
            &old.name,
            "--namespace",
            NAMESPACE,
            "--wait=false",
        ];
        office.cluster.kubectl(&delete)?;
        Ok(at)
    };
    let repair = |office: &Office| wait_for_other_lives(office, &BTreeSet::from([old.uid.clone()]));
    observe(
        office,
        &Steps {
            cause: &cause,
            repair: &repair,
        },
    )
}

/// Changes the template of the pods, so that the operator rolls them all, standby first. `mark` makes the change a new one.
pub fn roll(office: &Office, mark: &str) -> Result<Move> {
    let old = lives(office);
    // As a label's value has to be.
    let value = mark.replace(|char: char| !char.is_ascii_alphanumeric(), "");
    let patch = format!(
        r#"{{"spec": {{"asterisk": {{"tolerations": [{{"key": "pbxha.dev/mark", "value": "{value}"}}]}}}}}}"#
    );
    let cause = |office: &Office| {
        let at = Moment::now();
        let change = [
            "patch",
            "pbxcluster",
            NAME,
            "--namespace",
            NAMESPACE,
            "--type=merge",
            "--patch",
            &patch,
        ];
        office.cluster.kubectl(&change)?;
        Ok(at)
    };
    let repair = |office: &Office| wait_for_other_lives(office, &old);
    observe(
        office,
        &Steps {
            cause: &cause,
            repair: &repair,
        },
    )
}

/// Drains the active's node by kubectl, and allows it again afterwards.
pub fn drain(office: &Office) -> Result<Move> {
    let old = office.active_pod()?;
    let node = old.node.to_string();
    let cause = |office: &Office| {
        let at = Moment::now();
        let drain = [
            "drain",
            &node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=90s",
        ];
        office.cluster.kubectl(&drain).context("drain the node")?;
        Ok(at)
    };
    let repair = |office: &Office| {
        office.cluster.kubectl(&["uncordon", &node])?;
        wait_for_other_lives(office, &BTreeSet::from([old.uid.clone()]))
    };
    let found = observe(
        office,
        &Steps {
            cause: &cause,
            repair: &repair,
        },
    );
    // After a failure too: the next scenario needs the node.
    office.cluster.kubectl(&["uncordon", &node])?;
    found
}

/// UIDs of all pods of the telephone system that run.
pub fn lives(office: &Office) -> BTreeSet<String> {
    let pods = office.cluster.running_pods().into_iter();
    pods.filter(|pod| {
        pod.namespace == NAMESPACE && pbx_crds::names::seat_of_pod(NAME, &pod.name).is_some()
    })
    .map(|pod| pod.uid)
    .collect()
}

/// Waits until none of `old` runs and as many pods run as the telephone system has nodes.
pub fn wait_for_other_lives(office: &Office, old: &BTreeSet<String>) -> Result<()> {
    wait_for_other_lives_within(office, old, REPLACED_TIMEOUT)
}

/// The same, for pods that take their time.
pub fn wait_for_other_lives_within(
    office: &Office,
    old: &BTreeSet<String>,
    limit: Duration,
) -> Result<()> {
    let nodes = office.watcher.view().status.nodes.len();
    wait_until("the pods to be replaced", limit, || {
        let present = lives(office);
        Ok(present.len() == nodes && present.is_disjoint(old))
    })
}
