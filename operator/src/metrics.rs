//! What Prometheus reads at /metrics, in `OpenMetrics`. The library adds `_total` to counters.

use std::sync::Arc;

use pbx_crds::PbxClusterStatus;
use pbx_crds::status::FailoverRecord;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::observe::ClusterKey;
use crate::observe::facts::Observed;

/// All metrics of the operator; clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Runs of the reconciler.
    pub reconciles: Counter,
    reconcile_errors: Family<ReasonLabels, Counter>,
    active: Family<NodeLabels, Gauge>,
    failovers: Family<CauseLabels, Counter>,
    switchovers: Family<CauseLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeLabels {
    namespace: String,
    cluster: String,
    node: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    namespace: String,
    cluster: String,
    cause: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let reconciles = Counter::default();
        let reconcile_errors = Family::default();
        let active = Family::default();
        let failovers = Family::default();
        let switchovers = Family::default();
        let mut registry = Registry::with_prefix("pbxha");
        registry.register(
            "operator_reconciles",
            "Runs of the reconciler",
            reconciles.clone(),
        );
        registry.register(
            "operator_reconcile_errors",
            "Runs that failed, by reason",
            reconcile_errors.clone(),
        );
        registry.register(
            "cluster_active",
            "1 for the node that serves, 0 for the others",
            active.clone(),
        );
        registry.register(
            "cluster_failovers",
            "Unplanned moves seen by this operator, by cause",
            failovers.clone(),
        );
        registry.register(
            "cluster_switchovers",
            "Planned moves seen by this operator, by cause",
            switchovers.clone(),
        );
        Self {
            registry: Arc::new(registry),
            reconciles,
            reconcile_errors,
            active,
            failovers,
            switchovers,
        }
    }

    /// Counts a failed run.
    pub fn reconcile_failed(&self, reason: &'static str) {
        self.reconcile_errors
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// Counts a change of the active; a first start is neither failover nor switchover.
    pub fn changed(&self, key: &ClusterKey, record: &FailoverRecord) {
        if record.from.is_none() {
            return;
        }
        let family = if record.planned {
            &self.switchovers
        } else {
            &self.failovers
        };
        let labels = CauseLabels {
            namespace: key.namespace.clone(),
            cluster: key.name.clone(),
            cause: record.cause.as_str(),
        };
        family.get_or_create(&labels).inc();
    }

    /// Shows which node of a cluster serves.
    pub fn show_active(&self, key: &ClusterKey, observed: &Observed, status: &PbxClusterStatus) {
        for node in observed.node_names() {
            let is_active = status.active.as_ref() == Some(&node);
            let labels = node_labels(key, node);
            self.active.get_or_create(&labels).set(i64::from(is_active));
        }
    }

    /// Shows nothing more about a cluster that is gone.
    pub fn forget_cluster(&self, key: &ClusterKey) {
        for seat in 0..5 {
            let node = pbx_crds::names::pod(&key.name, seat);
            self.active.remove(&node_labels(key, node));
        }
    }

    /// As Prometheus reads it.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn node_labels(key: &ClusterKey, node: String) -> NodeLabels {
    NodeLabels {
        namespace: key.namespace.clone(),
        cluster: key.name.clone(),
        node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_as_documented() {
        let metrics = Metrics::new();
        metrics.reconciles.inc();
        metrics.reconcile_failed("InvalidSpec");
        let key = ClusterKey {
            namespace: "default".into(),
            name: "office".into(),
        };
        metrics.changed(
            &key,
            &crate::testing::change(2, Some("office-0"), "office-1"),
        );
        metrics.changed(&key, &crate::testing::change(1, None, "office-0"));
        let text = metrics.text().unwrap();
        for line in [
            "pbxha_operator_reconciles_total 1",
            "pbxha_operator_reconcile_errors_total{reason=\"InvalidSpec\"} 1",
            "pbxha_cluster_failovers_total{namespace=\"default\",cluster=\"office\",cause=\"NodeSilent\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
