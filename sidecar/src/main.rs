//! `pbx-sidecar`: beats to its peers, decides by a quorum lease who is active, drives Asterisk, moves the traffic.
//!
//! Reading order: [`config`] (the file), [`daemon`] (the loop around the core, on its own thread), [`services`] (all that may
//! wait, on the main thread), [`doors`] (what clients see, on a third), then the parts they use. Exit codes: 0 the node has left, 1 it could not go on, 2 the file is wrong.

mod alarm;
mod api_watch;
mod asterisk;
mod boot_timer;
mod config;
mod daemon;
mod doors;
mod drills;
mod fencing;
mod guard;
mod health;
mod history;
mod hooks;
mod host;
mod input_watch;
mod kubernetes;
mod metrics;
mod peer;
mod quiet_input;
mod record;
mod recorder;
mod report;
mod request;
mod request_file;
mod services;
mod switchover;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, LocalOptions, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};

use crate::config::{Checked, Environment};
use crate::daemon::{Daemon, ToCore};
use crate::history::History;
use crate::host::announce::Announcers;
use crate::host::fence::{self, FenceEvent};
use crate::host::gate::FenceGate;
use crate::host::network::HostNetwork;
use crate::kubernetes::lease::WitnessLease;
use crate::kubernetes::slice::Traffic;
use crate::metrics::Metrics;
use crate::record::RecordStore;
use crate::recorder::keeper::{FlightDoor, Keeper};
use crate::recorder::replay;
use crate::services::{Host, Jobs, Objects, Services};

/// Copies of the flight recorder on their way to a file: one that finds two before it is dropped and counted.
const SHOTS: usize = 2;
/// Messages between the threads; a full queue is counted, and the core never waits for it.
const QUEUE: usize = 1024;
/// Actions that doors ask for, on their way to the services.
const REQUESTS: usize = 16;

#[derive(Parser)]
#[command(version, about = "One node of a highly available Asterisk")]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the node.
    Run {
        /// The sidecar's YAML file.
        #[arg(long, env = "PBXHA_CONFIG", default_value = "/etc/pbx-ha/sidecar.yaml")]
        config: PathBuf,
    },
    /// Check the file, say every problem, and change nothing.
    Check {
        /// The sidecar's YAML file.
        #[arg(long, env = "PBXHA_CONFIG", default_value = "/etc/pbx-ha/sidecar.yaml")]
        config: PathBuf,
    },
    /// Run the core again on what a flight recorder kept, and tell step by step why.
    Replay(replay::Request),
}

fn main() -> ExitCode {
    pbx_ami::log::as_json();
    let (path, is_check) = match Arguments::parse().command {
        Verb::Run { config } => (config, false),
        Verb::Check { config } => (config, true),
        Verb::Replay(request) => return replay::run(&request),
    };
    match config::load(&path, &Environment::read()) {
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
        Ok(_) if is_check => {
            println!("{}: ok", path.display());
            ExitCode::SUCCESS
        }
        Ok(checked) => end(run(Arc::new(checked))),
    }
}

fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the sidecar cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn run(checked: Arc<Checked>) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
    let records = RecordStore::open(&checked.file.record_dir)?;
    let metrics = metrics(&checked);
    let (to_core, inbox) = mpsc::channel(QUEUE);
    let (outbox, from_core) = mpsc::channel(QUEUE);
    let (shots_tx, shots) = mpsc::channel(SHOTS);
    let (view_tx, view) = watch::channel(daemon::view_before_start());
    let core_channels = daemon::Channels {
        inbox,
        outbox,
        view: view_tx,
        shots: shots_tx,
    };
    let announcers = Announcers::default();
    let (gate, fence_state) = fence(&checked, &metrics, &to_core, announcers.clone())?;
    spawn_core(
        checked.clone(),
        records.clone(),
        metrics.clone(),
        core_channels,
        gate,
    )?;
    let history = History::open(records, checked.node.clone());
    let (report, report_rx) = watch::channel(Arc::new(services::first_report(&checked, &history)));
    let door = FlightDoor::new(&checked, to_core.clone());
    let keeper = Keeper::new(&checked.file.record_dir, door.clone());
    let channels = services::Channels {
        to_core,
        from_core,
        view,
        report,
    };
    let (services_tx, requests) = mpsc::channel(REQUESTS);
    let (told, _) = broadcast::channel(pbx_doors::JOBS_KEPT);
    let numbers = Arc::new(AtomicU64::new(1));
    doors::start(doors::Inputs {
        checked: checked.clone(),
        report: report_rx,
        core: channels.view.clone(),
        metrics: metrics.clone(),
        flight: door,
        services: services_tx,
        jobs: told.clone(),
        numbers: numbers.clone(),
    })?;
    let jobs = Jobs::new(requests, told, numbers);
    pbx_guard::schedule::take_short_turns();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("cannot make a runtime")?;
    runtime.block_on(async move {
        tokio::task::spawn_local(keeper.run(shots));
        let objects = objects(&checked).await?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let host = host(&checked, fence_state, announcers)?;
        let (services, done) =
            Services::start(checked, objects, host, channels, jobs, metrics, history);
        services.run(done, terminate).await;
        anyhow::Ok(())
    })
}

fn metrics(checked: &Checked) -> Metrics {
    let own = usize::from(checked.settings.seat.0);
    let nodes = checked.file.nodes.iter().enumerate();
    let peers: Vec<_> = nodes
        .map(|(seat, node)| (seat != own).then_some(node.name.as_str()))
        .collect();
    let links: Vec<_> = checked
        .links
        .iter()
        .map(|link| link.name.as_deref())
        .collect();
    Metrics::new(&peers, &links)
}

/// The core's thread: a panic ends the process, and the guard starts it again within 50 ms.
fn spawn_core(
    checked: Arc<Checked>,
    records: RecordStore,
    metrics: Metrics,
    channels: daemon::Channels,
    gate: FenceGate,
) -> anyhow::Result<()> {
    let core = move || {
        let is_ahead = pbx_guard::schedule::run_ahead();
        tracing::info!(is_ahead, "the core's thread begins");
        let result = runtime().and_then(|runtime| {
            runtime.block_on(async {
                let daemon = Daemon::start(&checked, records, metrics, channels, gate).await?;
                daemon.run().await;
                Ok(())
            })
        });
        if let Err(error) = result {
            tracing::error!(error = format!("{error:#}"), "the core cannot go on");
            std::process::exit(1);
        }
    };
    std::thread::Builder::new()
        .name("core".into())
        .spawn(core)
        .context("cannot start the core's thread")?;
    Ok(())
}

/// The fence, before anything else: what stands from an earlier life is shut by the kernel, and stays so.
fn fence(
    checked: &Checked,
    metrics: &Metrics,
    to_core: &mpsc::Sender<ToCore>,
    announcers: Announcers,
) -> anyhow::Result<(FenceGate, watch::Receiver<Option<FenceEvent>>)> {
    let (state, state_rx) = watch::channel(None);
    let Some(plan) = &checked.plan else {
        return Ok((FenceGate::default(), state_rx));
    };
    let (to_core, queue_full) = (to_core.clone(), metrics.queue_full.clone());
    let tell = move |event| match event {
        FenceEvent::Standing(deadline) => {
            if to_core.try_send(ToCore::Fenced(deadline)).is_err() {
                queue_full.inc();
            }
        }
        sound_or_broken => {
            state.send_replace(Some(sound_or_broken));
        }
    };
    let handle = fence::start(plan, metrics.clone(), tell)?;
    Ok((FenceGate::new(Some(handle), announcers), state_rx))
}

fn host(
    checked: &Checked,
    fence: watch::Receiver<Option<FenceEvent>>,
    announcers: Announcers,
) -> anyhow::Result<Option<Host>> {
    let Some(plan) = checked.plan.clone() else {
        return Ok(None);
    };
    let (network, events) = HostNetwork::start(plan, fence, announcers)
        .context("cannot open a netlink socket of the network")?;
    Ok(Some(Host::new(network, events)))
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")
}

async fn objects(checked: &Checked) -> anyhow::Result<Option<Objects>> {
    let Some(kubernetes) = &checked.file.kubernetes else {
        return Ok(None);
    };
    let client = kubernetes::connect(kubernetes.kubeconfig.as_ref()).await?;
    let spare = kubernetes::connect(kubernetes.kubeconfig.as_ref()).await?;
    let deadline = checked.settings.timing.api_deadline;
    let lease = WitnessLease::new(
        [client.clone(), spare],
        &kubernetes.namespace,
        &checked.file.cluster,
        &kubernetes.lease,
        deadline,
    );
    let traffic = kubernetes
        .endpoint_slice
        .as_ref()
        .zip(checked.endpoint.clone())
        .map(|(slice, own)| Traffic::new(client.clone(), &kubernetes.namespace, &slice.name, own));
    Ok(Some(Objects {
        client,
        lease,
        traffic,
    }))
}
