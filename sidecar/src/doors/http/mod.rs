//! The sidecar's HTTP, plain and over TLS. Reading order: this file (paths), [`server`] (connections), [`status`] (what is read),
//! [`events`] (for browsers), [`actions`] (what may be asked for, with the token), [`websocket`] (SysAdm's events),
//! [`tide`] (memory of those who left).
//!
//! Nothing here can slow the core (I5): it sees `watch`es and atomics, and a slow reader misses intermediate states.

mod actions;
mod events;
mod server;
mod status;
mod tide;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use pbx_crds::names::REPORT_STREAM_PATH;
use pbx_crds::report::Report;
use pbx_doors::Doorway;
use pbx_doors::droonga::Droonga;
use pbx_doors::sysadm::Sysadm;
use pbx_doors::token::Token;
use tokio::sync::{Semaphore, watch};

use self::events::JobList;
pub use self::server::serve;
use crate::metrics::Metrics;
use crate::recorder::keeper::FlightDoor;

/// Report streams at a time: the operator's replicas and a few people.
const MAX_STREAMS: usize = 32;
/// Event streams and websockets at a time.
const MAX_LISTENERS: usize = 2048;
/// Of an action: a name, and a few words on how.
const MAX_DETAILS_BYTES: usize = 16 << 10;

/// What the doors behind HTTP are given.
pub struct House {
    /// This node's report.
    pub report: watch::Receiver<Arc<Report>>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Copies of the flight recorder.
    pub flight: FlightDoor,
    /// What every door is given.
    pub doorway: Doorway,
    /// What actions need.
    pub token: Token,
    /// SysAdm's events, if they are served.
    pub sysadm: Option<Sysadm>,
    /// Droonga's system.status, if it is served.
    pub droonga: Option<Droonga>,
    /// Transactions of the AMI hub, if it is open.
    pub ami: Option<Router>,
}

#[derive(Clone)]
struct Shared {
    report: watch::Receiver<Arc<Report>>,
    metrics: Metrics,
    flight: FlightDoor,
    doorway: Doorway,
    token: Token,
    jobs: JobList,
    streams: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
}

/// Everything that HTTP serves.
pub fn router(house: House) -> Router {
    let (jobs, listing) = JobList::follow(house.doorway.jobs.subscribe());
    tokio::spawn(listing);
    let shared = Shared {
        report: house.report,
        metrics: house.metrics,
        flight: house.flight,
        doorway: house.doorway,
        token: house.token,
        jobs,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
    };
    tokio::spawn(tide::watch(shared.listeners.clone(), MAX_LISTENERS));
    let router = Router::new()
        .route("/status", get(status::status))
        .route("/v1/status", get(status::status))
        .route(REPORT_STREAM_PATH, get(status::stream))
        .route("/v1/events", get(events::events))
        .route("/v1/jobs", get(events::jobs))
        .route(
            "/v1/actions/{action}",
            post(actions::act).layer(DefaultBodyLimit::max(MAX_DETAILS_BYTES)),
        )
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics_text))
        .route("/debug/flight", get(status::flight))
        .with_state(shared.clone());
    let router = match house.sysadm {
        Some(sysadm) => router.merge(websocket::router(sysadm, shared.listeners, shared.metrics)),
        None => router,
    };
    let router = match house.ami {
        Some(ami) => router.merge(ami),
        None => router,
    };
    match house.droonga {
        Some(droonga) => router.route(
            "/droonga/system/status",
            get(move || std::future::ready(axum::Json(droonga.status_body()))),
        ),
        None => router,
    }
}
