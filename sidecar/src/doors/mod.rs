//! The doors, on a thread of their own: whatever a client does there, neither the core nor the services wait for it (I5).
//!
//! Reading order: this file (what runs), [`open`] (each door), [`view`] (what all doors show), [`peers`] (what the nodes tell each other), [`actions`]
//! (which node does what was asked for), [`http`].

mod actions;
mod ami;
pub mod check;
mod descriptors;
mod heartbeat;
pub mod http;
mod listen;
mod open;
mod peers;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use pbx_crds::report::Report;
use pbx_doors::channel::{Channel, Listeners, Routes, Service};
use pbx_doors::{Doorway, Job, Request};
use tokio::sync::{broadcast, mpsc, watch};

use crate::config::Checked;
use crate::daemon::CoreView;
use crate::metrics::Metrics;
use crate::recorder::keeper::FlightDoor;

/// Requests of clients that wait for an answer; more are refused.
const REQUESTS: usize = 16;
/// Reports of peers on their way into the view.
const TOLD: usize = 16;

/// What the rest of the sidecar gives the doors.
pub struct Inputs {
    /// The configuration.
    pub checked: Arc<Checked>,
    /// This node's report.
    pub report: watch::Receiver<Arc<Report>>,
    /// The core's view.
    pub core: watch::Receiver<CoreView>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Copies of the flight recorder.
    pub flight: FlightDoor,
    /// Actions for this node's services.
    pub services: mpsc::Sender<Request>,
    /// Jobs of this node, and those it had others do.
    pub jobs: broadcast::Sender<Arc<Job>>,
    /// The next job's number.
    pub numbers: Arc<AtomicU64>,
}

/// Starts the thread. A panic ends the process, and the guard starts it again within 50 ms.
pub fn start(inputs: Inputs) -> anyhow::Result<()> {
    descriptors::raise();
    let doors = move || {
        pbx_guard::schedule::take_short_turns();
        match crate::runtime() {
            Ok(runtime) => runtime.block_on(run(inputs)),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "no door can be opened: the node works, and nobody sees it"
            ),
        }
    };
    std::thread::Builder::new()
        .name("doors".into())
        .spawn(doors)
        .context("cannot start the doors' thread")?;
    Ok(())
}

async fn run(mut inputs: Inputs) {
    // A sidecar that was restarted says nothing before its core knows that it still serves.
    if inputs.report.changed().await.is_err() {
        return;
    }
    let (told, told_rx) = mpsc::channel(TOLD);
    let (view, addresses, followed) = view::follow(
        inputs.checked.clone(),
        inputs.report.clone(),
        inputs.core.clone(),
        told_rx,
    );
    tokio::spawn(followed);
    let own = inputs.checked.settings.seat.0;
    let channel = Channel::new(inputs.checked.key.channel(), own, addresses);
    let (requests, asked) = mpsc::channel(REQUESTS);
    let doorway = Doorway {
        view,
        requests,
        jobs: inputs.jobs.clone(),
        channel,
    };
    let mut routes = Routes::default();
    tokio::spawn(peers::hear(routes.take(Service::Report), told));
    let desk = actions::Desk::new(&inputs, doorway.clone());
    tokio::spawn(desk.clone().serve_peers(routes.take(Service::Action)));
    tokio::spawn(desk.serve(asked));
    let seats = 0..inputs.checked.file.nodes.len();
    for seat in seats.filter(|seat| *seat != usize::from(own)) {
        let report = inputs.report.clone();
        tokio::spawn(peers::tell(doorway.channel.clone(), seat, report));
    }
    open::open(&inputs, &doorway, &mut routes);
    listen_to_peers(&inputs, routes);
    // The tasks live as long as the runtime, and it as long as this.
    std::future::pending::<()>().await;
}

fn listen_to_peers(inputs: &Inputs, routes: Routes) {
    let (key, own) = (inputs.checked.key.channel(), inputs.checked.settings.seat.0);
    let refused = inputs.metrics.channel_refused.clone();
    let listeners = Listeners::new(key, own, routes, move |reason| {
        Metrics::count(&refused, reason);
    });
    for link in &inputs.checked.links {
        match listen::bind(link.listen, link.name.is_some()) {
            Ok(listener) => {
                let listeners = listeners.clone();
                tokio::spawn(async move { listeners.serve(listener).await });
            }
            Err(error) => tracing::error!(
                address = %link.listen,
                error = &error as &dyn std::error::Error,
                "streams of peers cannot be accepted: end what uses this TCP port; until then peers know less of this node"
            ),
        }
    }
}
