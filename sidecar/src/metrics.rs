//! Counters and gauges of a sidecar, in OpenMetrics text. What changes with every beat is an atomic; nothing here is locked.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics of a sidecar.
#[derive(Clone)]
pub struct Metrics {
    /// Datagrams sent.
    pub sent: Counter,
    /// Authentic datagrams received.
    pub received: Counter,
    /// Datagrams dropped, by reason.
    pub dropped: Family<Reason, Counter>,
    /// 1 while this node serves.
    pub active: Gauge,
    /// The highest epoch seen.
    pub epoch: Gauge,
    /// Changes of roles by cause, as the ledger has them.
    pub moves: Family<Reason, Gauge>,
    /// Starts of Asterisk.
    pub asterisk_starts: Counter,
    /// Calls to the API, by outcome.
    pub api_calls: Family<Reason, Counter>,
    /// What happened to the fence of the floating addresses.
    pub fence: Family<Reason, Counter>,
    /// Times that another machine claimed a floating address of this active node.
    pub address_conflicts: Counter,
    /// Messages that found their queue full.
    pub queue_full: Counter,
    /// Digest of this node's ledger, sent with every beat.
    pub ledger_digest: Arc<AtomicU64>,
    /// When the core's loop made its last step, boot time in nanoseconds: `/healthz` looks at nothing else.
    pub last_step_at_ns: Arc<AtomicU64>,
    registry: Arc<Registry>,
}

/// A label with a stable reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The reason.
    pub reason: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pbxha");
        let (sent, received, queue_full, asterisk_starts) = (
            Counter::default(),
            Counter::default(),
            Counter::default(),
            Counter::default(),
        );
        let (dropped, api_calls) = (
            Family::<Reason, Counter>::default(),
            Family::<Reason, Counter>::default(),
        );
        let (fence, address_conflicts) = (Family::<Reason, Counter>::default(), Counter::default());
        let moves = Family::<Reason, Gauge>::default();
        let (active, epoch): (Gauge, Gauge) = (Gauge::default(), Gauge::default());
        registry.register("heartbeat_sent", "Heartbeat datagrams sent", sent.clone());
        registry.register(
            "heartbeat_received",
            "Authentic heartbeat datagrams received",
            received.clone(),
        );
        registry.register(
            "heartbeat_dropped",
            "Heartbeat datagrams dropped, by reason",
            dropped.clone(),
        );
        registry.register("active", "1 while this node serves", active.clone());
        registry.register("epoch", "Highest epoch seen", epoch.clone());
        registry.register(
            "role_changes",
            "Changes of the active that this node knows, by cause",
            moves.clone(),
        );
        registry.register(
            "asterisk_starts",
            "Starts of Asterisk",
            asterisk_starts.clone(),
        );
        registry.register(
            "api_calls",
            "Calls to the Kubernetes API, by outcome",
            api_calls.clone(),
        );
        registry.register(
            "fence",
            "Refreshes of the fence around the floating addresses, and what went wrong with it",
            fence.clone(),
        );
        registry.register(
            "address_conflicts",
            "Times that another machine claimed a floating address of this active node",
            address_conflicts.clone(),
        );
        registry.register(
            "queue_full",
            "Messages between the threads that found the queue full",
            queue_full.clone(),
        );
        Self {
            sent,
            received,
            dropped,
            active,
            epoch,
            moves,
            asterisk_starts,
            api_calls,
            fence,
            address_conflicts,
            queue_full,
            ledger_digest: Arc::new(AtomicU64::new(0)),
            last_step_at_ns: Arc::new(AtomicU64::new(0)),
            registry: Arc::new(registry),
        }
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }

    /// Counts one of `family` under `reason`.
    pub fn count(family: &Family<Reason, Counter>, reason: &'static str) {
        family.get_or_create(&Reason { reason }).inc();
    }
}
