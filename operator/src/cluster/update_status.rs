//! Step 5: hands what a run found out to the cluster's observer, which alone writes the status.

use std::error::Error as _;

use kube::ResourceExt;
use pbx_crds::PbxCluster;
use pbx_crds::report::Problem;

use super::ReconcileError;
use super::apply::Applied;
use crate::context::Context;
use crate::observe::{ClusterKey, ObjectsState};

/// Tells the observer how the objects of `cluster` are, and lets it write the status at once.
pub fn update_status(
    context: &Context,
    cluster: &PbxCluster,
    result: &Result<Applied, ReconcileError>,
) {
    let problem = match result {
        Ok(applied) => applied.problem.clone(),
        Err(error) => Some(Problem {
            reason: error.reason().into(),
            message: sentence(error),
        }),
    };
    let state = ObjectsState {
        generation: cluster.metadata.generation,
        problem,
        user_hash: result
            .as_ref()
            .ok()
            .and_then(|applied| applied.user_hash.clone()),
        has_failed: result.is_err(),
    };
    tracing::debug!(cluster = %cluster.name_any(), ?state, "reconciled");
    context
        .observers
        .set_objects(&ClusterKey::of(cluster), state);
}

/// The error with all its causes, bounded for a condition's message.
fn sentence(error: &ReconcileError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.chars().take(1000).collect()
}
