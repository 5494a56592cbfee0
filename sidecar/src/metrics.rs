//! Counters and gauges of a sidecar, in OpenMetrics text. What changes with every beat is an atomic; nothing here is locked.

mod ami_hub;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use pbx_core::Seat;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub use ami_hub::AmiHubMetrics;

use crate::health::{Reading, Verdict};
use crate::peer::plan::link_name;

/// All metrics of a sidecar.
#[derive(Clone)]
pub struct Metrics {
    /// Datagrams sent.
    pub sent: Counter,
    /// Authentic datagrams received.
    pub received: Counter,
    /// Authentic datagrams that had come over another link before.
    pub copies: Counter,
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
    /// Actions that were asked for by HTTP, by what came of it.
    pub actions: Family<Reason, Counter>,
    /// Clients of the doors that were dropped, by reason.
    pub doors_dropped: Family<Reason, Counter>,
    /// Streams of peers, or of those who would be, that came to nothing.
    pub channel_refused: Family<Reason, Counter>,
    /// Messages that found their queue full.
    pub queue_full: Counter,
    /// Moves that were not made, by reason.
    pub suppressed: Family<Reason, Counter>,
    /// What became of telling hooks.
    pub hooks: Family<Reason, Counter>,
    /// Health, and what it comes from.
    pub health: HealthMetrics,
    /// Of the AMI hub.
    pub ami_hub: AmiHubMetrics,
    /// Calls that a planned move waits for.
    pub calls_left: Gauge,
    /// Digest of this node's ledger, sent with every beat.
    pub ledger_digest: Arc<AtomicU64>,
    /// When the core's loop made its last step, boot time in nanoseconds: `/healthz` looks at nothing else.
    pub last_step_at_ns: Arc<AtomicU64>,
    /// By seat and link; none of the own seat.
    links: Arc<[Vec<Option<LinkGauges>>]>,
    registry: Arc<Registry>,
}

/// How a link is.
#[derive(Clone)]
pub struct LinkGauges {
    /// Its name in the status.
    pub name: String,
    /// 1 while it carries heartbeats.
    pub up: Gauge,
    /// Smoothed, in seconds.
    pub round_trip: Seconds,
    /// Mean distance from it, in seconds.
    pub jitter: Seconds,
}

impl LinkGauges {
    /// A round trip was measured.
    pub fn is_measured(&self) -> bool {
        self.round_trip.get() > 0.0
    }
}

/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// The label of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LinkLabel {
    /// The peer.
    pub peer: String,
    /// The link's name; `default` of one without.
    pub link: String,
}

/// The label of a sensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SensorLabel {
    /// Its name.
    pub sensor: String,
}

/// A label with a stable reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The reason.
    pub reason: &'static str,
}

impl Metrics {
    /// All at zero; `peers` are the nodes by seat (none for the own), `links` the names of the links.
    pub fn new(peers: &[Option<&str>], links: &[Option<&str>]) -> Self {
        let mut registry = Registry::with_prefix("pbxha");
        let ami_hub = AmiHubMetrics::default();
        registry.register_collector(Box::new(ami_hub.clone()));
        let all = &mut registry;
        Self {
            ami_hub,
            sent: registered(all, "heartbeat_sent", "Heartbeat datagrams sent"),
            received: registered(all, "heartbeat_received", "Authentic datagrams received"),
            copies: registered(all, "heartbeat_copies", "Those that came by another link"),
            dropped: registered(all, "heartbeat_dropped", "Datagrams dropped, by reason"),
            active: registered(all, "active", "1 while this node serves"),
            epoch: registered(all, "epoch", "Highest epoch seen"),
            moves: registered(
                all,
                "role_changes",
                "Changes of the active that this node knows, by cause",
            ),
            asterisk_starts: registered(all, "asterisk_starts", "Starts of Asterisk"),
            api_calls: registered(all, "api_calls", "Calls to the Kubernetes API, by outcome"),
            fence: registered(
                all,
                "fence",
                "Refreshes of the fence around the floating addresses, and what went wrong with it",
            ),
            address_conflicts: registered(
                all,
                "address_conflicts",
                "Times that another machine claimed a floating address of this active node",
            ),
            actions: registered(
                all,
                "actions",
                "Actions asked for by HTTP, by what came of it",
            ),
            doors_dropped: registered(
                all,
                "doors_dropped",
                "Clients of the doors that were dropped, by reason",
            ),
            channel_refused: registered(
                all,
                "channel_refused",
                "TCP connections to the heartbeat port that came to nothing, by reason",
            ),
            queue_full: registered(
                all,
                "queue_full",
                "Messages between the threads that found the queue full",
            ),
            suppressed: registered(
                all,
                "moves_suppressed",
                "Moves that were not made, by reason",
            ),
            hooks: registered(all, "hooks", "What became of telling hooks"),
            health: HealthMetrics::new(all),
            calls_left: registered(all, "calls_left", "Calls that a planned move waits for"),
            ledger_digest: Arc::default(),
            last_step_at_ns: Arc::default(),
            links: register_links(all, peers, links),
            registry: Arc::new(registry),
        }
    }

    /// The gauges of a link to a peer.
    pub fn link(&self, seat: Seat, link: usize) -> Option<&LinkGauges> {
        self.links.get(usize::from(seat.0))?.get(link)?.as_ref()
    }

    /// The gauges of all links.
    pub fn all_links(&self) -> impl Iterator<Item = &LinkGauges> {
        self.links.iter().flatten().flatten()
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }

    /// Shows what a sensor read.
    pub fn note_sensor(&self, name: &str, reading: &Reading) {
        let label = SensorLabel {
            sensor: name.to_owned(),
        };
        let is_well = matches!(reading.verdict, Verdict::Good | Verdict::Skipped);
        let failing = self.health.sensor_failing.get_or_create(&label);
        failing.set(i64::from(!is_well));
        if let Some(value) = reading.value {
            self.health.sensor_values.get_or_create(&label).set(value);
        }
    }

    /// Counts one of `family` under `reason`.
    pub fn count(family: &Family<Reason, Counter>, reason: &'static str) {
        family.get_or_create(&Reason { reason }).inc();
    }
}

/// Health, and what it comes from.
#[derive(Clone)]
pub struct HealthMetrics {
    /// The sum of the sensors' points.
    pub score: Gauge,
    /// 0 Good, 1 Warning, 2 Critical, 3 Failure.
    pub level: Gauge,
    /// 1 of a sensor that is not well.
    pub sensor_failing: Family<SensorLabel, Gauge>,
    /// What a sensor read, in figures.
    pub sensor_values: Family<SensorLabel, Seconds>,
}

impl HealthMetrics {
    fn new(all: &mut Registry) -> Self {
        Self {
            score: registered(
                all,
                "health_score",
                "Sum of the sensors' points; higher is worse",
            ),
            level: registered(
                all,
                "health_level",
                "Level of this node's health: 0 Good, 1 Warning, 2 Critical, 3 Failure",
            ),
            sensor_failing: registered(all, "sensor_failing", "1 of a sensor that is not well"),
            sensor_values: registered(all, "sensor_value", "What a sensor read, in its own unit"),
        }
    }
}

/// One at zero, which the registry knows.
fn registered<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &'static str,
) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn register_links(
    registry: &mut Registry,
    peers: &[Option<&str>],
    links: &[Option<&str>],
) -> Arc<[Vec<Option<LinkGauges>>]> {
    let up = Family::<LinkLabel, Gauge>::default();
    let round_trip = Family::<LinkLabel, Seconds>::default();
    let jitter = Family::<LinkLabel, Seconds>::default();
    let gauges = |peer: &str, link: Option<&str>| {
        let label = LinkLabel {
            peer: peer.to_owned(),
            link: link.unwrap_or("default").to_owned(),
        };
        LinkGauges {
            name: link_name(peer, link),
            up: up.get_or_create(&label).clone(),
            round_trip: round_trip.get_or_create(&label).clone(),
            jitter: jitter.get_or_create(&label).clone(),
        }
    };
    let of_peer = |peer: Option<&str>| {
        let of_link = |link| peer.map(|peer| gauges(peer, link));
        links.iter().copied().map(of_link).collect()
    };
    let all = peers.iter().copied().map(of_peer).collect();
    registry.register("link_up", "1 while a link carries heartbeats", up.clone());
    registry.register(
        "link_round_trip_seconds",
        "Smoothed round-trip time of a link",
        round_trip.clone(),
    );
    registry.register(
        "link_jitter_seconds",
        "Mean distance of the round-trip times of a link from their mean",
        jitter.clone(),
    );
    all
}
