//! The operator of pbx-ha: reconciles `PbxCluster` and tells its state.
//!
//! - [`cluster`]: the objects of a cluster, step by step.
//! - [`observe`]: the live side: report streams, status, labels, rolling.
//! - [`scope`]: which namespaces, and the watches in them.
//! - [`api`]: the client, and how soon a watch comes back.
//! - [`leader`], [`http`], [`events`], [`metrics`], [`settings`]: what every operator has.
//!
//! It takes no part in a failover: without it, only the status is stale.

mod api;
mod cluster;
mod context;
mod events;
mod http;
mod leader;
mod metrics;
mod observe;
mod scope;
mod settings;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::events::Announcer;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::scope::Shared;
use crate::settings::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let settings = Arc::new(Settings::parse());
    log_as_json();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is installed already")?;
    let metrics = Metrics::new();
    let leader = Leader::new(
        api::client().await?,
        &settings.lease_namespace,
        &settings.lease_name,
        &settings.identity,
    );
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let served = http::serve(settings.listen, metrics.clone());
    tokio::select! {
        result = served => result.context("the operator's HTTP failed"),
        result = work(&leader, settings.clone(), metrics) => result,
        _ = terminate.recv() => release(&leader).await,
    }
}

/// Waits for the lead and works as long as it lasts. An end is an error: the pod starts again and waits anew.
async fn work(leader: &Leader, settings: Arc<Settings>, metrics: Metrics) -> anyhow::Result<()> {
    leader.win().await;
    tracing::info!(identity = %settings.identity, "leading");
    let client = api::client().await?;
    let shared = Shared {
        announcer: Announcer::start(client.clone(), settings.identity.clone()),
        client,
        metrics,
        settings: Arc::clone(&settings),
    };
    let scopes = settings.scopes().into_iter();
    let running = scopes.map(|namespace| scope::run(shared.clone(), namespace));
    tokio::select! {
        _ = futures::future::join_all(running) => anyhow::bail!("all watches ended"),
        error = leader.keep() => Err(error).context("the lead is lost"),
    }
}

async fn release(leader: &Leader) -> anyhow::Result<()> {
    tracing::info!("told to end");
    leader.release().await.context("cannot release the lead")
}

fn log_as_json() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // kube calls each failed call an ERROR, for which no human must act: who called says what failed.
    let quiet = "kube_client::client::builder=off".parse();
    let filter = filter.add_directive(quiet.expect("it is a directive"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .init();
}
