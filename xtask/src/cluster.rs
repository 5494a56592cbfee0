//! `cargo xtask cluster`: the local cluster from the command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use pbx_tests::cluster::{Cluster, NodeId, NodeState};
use pbx_tests::images::{Profile, build_project_images};

/// What to do with the local cluster.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start it (first time: 10 to 15 minutes, then 10 seconds) and print how to reach it
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3)]
        nodes: u8,
    },
    /// End everything and leave nothing behind
    Down,
    /// Show what runs
    Status,
    /// Power a node off, without a goodbye
    Crash {
        /// Such as node-1
        node: NodeId,
    },
    /// Power a node on again
    Start {
        /// Such as node-1
        node: NodeId,
    },
    /// Pull a node's network cable
    Cut {
        /// Such as node-1
        node: NodeId,
    },
    /// Plug a node's network cable in again
    Heal {
        /// Such as node-1
        node: NodeId,
    },
    /// Let nothing pass from a node and its pods to the API server
    CutApi {
        /// Such as node-1
        node: NodeId,
    },
    /// Let it pass again
    HealApi {
        /// Such as node-1
        node: NodeId,
    },
    /// Kill the API server
    StopApi,
    /// Start the API server again
    StartApi,
    /// Import an image archive (OCI, as docker save writes it) into every node
    Load {
        /// The archive
        archive: PathBuf,
    },
    /// Build this project's images and load them into every node
    Images {
        /// How to compile
        #[arg(long, value_enum, default_value_t = BuildProfile::Local)]
        profile: BuildProfile,
    },
}

/// How the programs in the images are compiled.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BuildProfile {
    /// Quickly
    Local,
    /// As released
    Release,
}

/// Carries out one command.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { nodes } => up(nodes),
        Command::Down => Cluster::down(),
        Command::Status => status(),
        Command::Crash { node } => Cluster::attach()?.crash(node),
        Command::Start { node } => Cluster::attach()?.start(node),
        Command::Cut { node } => Cluster::attach()?.cut(node),
        Command::Heal { node } => Cluster::attach()?.heal(node),
        Command::CutApi { node } => Cluster::attach()?.cut_api(node),
        Command::HealApi { node } => Cluster::attach()?.heal_api(node),
        Command::StopApi => Cluster::attach()?.stop_apiserver(),
        Command::StartApi => Cluster::attach()?.start_apiserver(),
        Command::Load { archive } => {
            let image = Cluster::attach()?.load_image(&archive)?;
            println!("{} {}", image.reference, image.digest);
            Ok(())
        }
        Command::Images { profile } => images(profile),
    }
}

fn up(nodes: u8) -> Result<()> {
    let cluster = Cluster::up(nodes)?;
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(())
}

fn images(profile: BuildProfile) -> Result<()> {
    let cluster = Cluster::attach()?;
    let images = build_project_images(match profile {
        BuildProfile::Local => Profile::Local,
        BuildProfile::Release => Profile::Release,
    })?;
    cluster.load_images(images.all())?;
    for image in images.all() {
        println!("{} {}", image.reference, image.digest);
    }
    Ok(())
}

fn status() -> Result<()> {
    let cluster = Cluster::attach()?;
    let is_api_up = cluster.is_apiserver_running();
    println!("kubeconfig  {}", cluster.kubeconfig().display());
    println!("logs        {}", cluster.layout().log().display());
    println!("API server  {}", if is_api_up { "on" } else { "stopped" });
    for node in cluster.nodes() {
        let state = match cluster.node_state(*node) {
            NodeState::On => "on",
            NodeState::Cut => "cut off",
            NodeState::Off => "powered off",
        };
        println!("{node}      {state}, {}", cluster.address_of(*node));
    }
    for pod in cluster.running_pods() {
        println!("{}      runs {}/{}", pod.node, pod.namespace, pod.name);
    }
    Ok(())
}
