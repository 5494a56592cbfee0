//! The AMI hub's own counters in `/metrics`. They are the hub's atomics, read when somebody asks; a node without a hub shows none.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use pbx_ami::hub::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The place for the counters of a hub that starts later, if it does.
#[derive(Clone, Debug, Default)]
pub struct AmiHubMetrics(Arc<OnceLock<Arc<Counters>>>);

impl AmiHubMetrics {
    /// The hub has started. There is one in a process.
    pub fn set(&self, counters: Arc<Counters>) {
        if self.0.set(counters).is_err() {
            tracing::error!("a second AMI hub was started: its counters are not shown");
        }
    }
}

impl Collector for AmiHubMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(hub) = self.0.get() else {
            return Ok(());
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let clients = ConstGauge::new(i64::try_from(read(&hub.clients)).unwrap_or(i64::MAX));
        clients.encode(encoder.encode_descriptor(
            "ami_clients",
            "Clients of the AMI hub at present",
            None,
            clients.metric_type(),
        )?)?;
        for (name, help, counter) in named(hub) {
            let counter = ConstCounter::new(read(counter));
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

fn named(hub: &Counters) -> [(&'static str, &'static str, &AtomicU64); 10] {
    [
        ("ami_accepted", "Clients of the AMI hub ever", &hub.accepted),
        (
            "ami_refused",
            "Clients of the AMI hub refused: too many, or a wrong login",
            &hub.refused,
        ),
        (
            "ami_dropped_slow",
            "Clients of the AMI hub dropped since they did not read",
            &hub.dropped_slow,
        ),
        ("ami_actions", "Actions forwarded to Asterisk", &hub.actions),
        (
            "ami_pings_joined",
            "Pings answered by the answer to another that waited with them",
            &hub.joined,
        ),
        (
            "ami_actions_refused",
            "Actions refused: malformed, unknown or without right",
            &hub.actions_refused,
        ),
        (
            "ami_actions_unknown",
            "Actions whose outcome is unknown",
            &hub.unknown,
        ),
        ("ami_events", "Events heard from Asterisk", &hub.events),
        (
            "ami_stray",
            "Messages of Asterisk that belong to no action",
            &hub.stray,
        ),
        (
            "ami_connections",
            "Connections of the AMI hub to Asterisk that came up",
            &hub.connections,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_hub_that_has_started_is_shown_and_none_is_not() {
        let metrics = AmiHubMetrics::default();
        let mut registry = Registry::with_prefix("pbxha");
        registry.register_collector(Box::new(metrics.clone()));
        let shown = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(!shown().contains("ami_"));
        let counters = Arc::new(Counters::default());
        counters.actions.store(7, Ordering::Relaxed);
        metrics.set(counters);
        let text = shown();
        assert!(text.contains("pbxha_ami_actions_total 7"), "{text}");
        assert!(text.contains("pbxha_ami_clients 0"), "{text}");
    }
}
