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

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::events::Announcer;
use crate::leader::{Leader, LeaderError};
use crate::metrics::Metrics;
use crate::scope::Shared;
use crate::settings::Settings;

/// Why the work ends without an error.
enum End {
    /// By a signal.
    Told,
    /// Another operator has the lead, or the API server could not be asked for too long.
    LeadLost(LeaderError),
}

fn main() -> anyhow::Result<()> {
    let settings = Arc::new(Settings::parse());
    log_as_json();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is installed already")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    match runtime.block_on(run(settings))? {
        End::Told => Ok(()),
        End::LeadLost(why) => {
            tracing::warn!(
                error = &why as &dyn std::error::Error,
                "the lead is lost: beginning anew"
            );
            Err(begin_anew())
        }
    }
}

/// Replaces this process by a new one, so that nothing of the lost lead goes on. Were the container to end, kubelet would hold its
/// next start back: after a few outages of the API server for minutes (seen), in which nobody writes the status.
fn begin_anew() -> anyhow::Error {
    let own = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => return anyhow::Error::new(error).context("cannot find the own program"),
    };
    let failed = Command::new(own).args(std::env::args_os().skip(1)).exec();
    anyhow::Error::new(failed).context("cannot begin anew")
}

async fn run(settings: Arc<Settings>) -> anyhow::Result<End> {
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
        result = served => result.map(|()| End::Told).context("the operator's HTTP failed"),
        result = work(&leader, settings.clone(), metrics) => result.map(End::LeadLost),
        _ = terminate.recv() => release(&leader).await.map(|()| End::Told),
    }
}

/// Waits for the lead, works as long as it lasts, and says why it was lost.
async fn work(
    leader: &Leader,
    settings: Arc<Settings>,
    metrics: Metrics,
) -> anyhow::Result<LeaderError> {
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
        lost = leader.keep() => Ok(lost),
    }
}

async fn release(leader: &Leader) -> anyhow::Result<()> {
    tracing::info!("told to end");
    leader.release().await.context("cannot release the lead")
}

fn log_as_json() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // kube calls each failed call an ERROR, for which no human must act, and warns of each watch that ends: who called says what failed.
    let filter = [
        "kube_client::client::builder=off",
        "kube_client::client=error",
    ]
    .into_iter()
    .map(|quiet| quiet.parse().expect("it is a directive"))
    .fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .init();
}
