//! Reconciling one `PbxCluster`: dereference → validate → build → apply → update status.
//!
//! Client needed: dereference, apply. Pure: validate, build. The status itself is written by [`crate::observe`], which
//! must not wait for any of this: the last step only hands over what this run found out.

pub mod apply;
pub mod build;
pub mod dereference;
pub mod update_status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use pbx_crds::PbxCluster;

use crate::context::Context;
use crate::observe::ClusterKey;

/// Why a run failed: one variant per step.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something it refers to could not be read.
    #[error("cannot read what the cluster refers to")]
    Dereference(#[source] dereference::DereferenceError),
    /// The spec is unsound.
    #[error("the spec is unsound")]
    Validate(#[source] validate::ValidateError),
    /// An object could not be written.
    #[error("cannot apply the cluster's objects")]
    Apply(#[source] apply::ApplyError),
}

impl ReconcileError {
    /// A stable reason for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(error) => error.reason(),
            Self::Validate(error) => error.reason(),
            Self::Apply(error) => error.reason(),
        }
    }

    /// Trying again helps unless the spec itself is wrong: then its next change starts a new run.
    fn is_transient(&self) -> bool {
        !matches!(self, Self::Validate(_))
    }
}

/// Brings the objects of `cluster` to what its spec asks for. In a steady state it only reads.
pub async fn reconcile(
    cluster: Arc<PbxCluster>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    if cluster.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    context.metrics.reconciles.inc();
    let result = Box::pin(run_steps(&cluster, &context)).await;
    update_status::update_status(&context, &cluster, &result);
    result.map(|applied| match applied.retry_after {
        Some(delay) => Action::requeue(delay),
        None => Action::await_change(),
    })
}

async fn run_steps(
    cluster: &PbxCluster,
    context: &Context,
) -> Result<apply::Applied, ReconcileError> {
    let dereferenced = dereference::dereference(&context.client, cluster)
        .await
        .map_err(ReconcileError::Dereference)?;
    let validated =
        validate::validate(&dereferenced, &context.settings).map_err(ReconcileError::Validate)?;
    let resources = build::build(&validated);
    Box::pin(apply::apply(context, &validated, resources))
        .await
        .map_err(ReconcileError::Apply)
}

/// What follows a failed run: 1 s, doubled up to 60 s, by cluster.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the controller calls it with these types"
)]
pub fn on_error(cluster: Arc<PbxCluster>, error: &ReconcileError, context: Arc<Context>) -> Action {
    context.metrics.reconcile_failed(error.reason());
    tracing::warn!(
        cluster = %cluster.name_any(),
        namespace = cluster.namespace().as_deref(),
        reason = error.reason(),
        error = error as &dyn std::error::Error,
        "reconcile failed"
    );
    if !error.is_transient() {
        return Action::await_change();
    }
    let failures = context.observers.failures(&ClusterKey::of(&cluster));
    Action::requeue(backoff(failures))
}

fn backoff(failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_mins(1);
    Duration::from_secs(1)
        .saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_after_one_second_and_at_most_sixty() {
        let seconds: Vec<u64> = (1..=8).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
