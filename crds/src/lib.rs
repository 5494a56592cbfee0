//! What the user writes, what the user reads, and what the parts of pbx-ha tell each other about it.
//!
//! - [`cluster`]: the `PbxCluster` resource and its spec.
//! - [`doors`]: `spec.doors`, the interfaces for clients; [`sidecar_doors`]: the same in a sidecar's file.
//! - [`status`]: its status, printed by `kubectl get pbx`.
//! - [`cause`]: the stable reasons of a change of roles.
//! - [`duration`] and [`timing`]: durations as Kubernetes writes them, and the rules between them.
//! - [`health`]: sensors, thresholds and levels.
//! - [`switchover`]: planned moves, drills, hooks.
//! - [`ledger`]: history and counts, merged by epoch so that nothing is counted twice.
//! - [`network`]: floating addresses.
//! - [`quorum`]: what stands in the witness Lease.
//! - [`report`]: what a sidecar tells the operator and its peers.
//! - [`sidecar_config`]: the YAML file of a sidecar, written by the operator or by the owner of a bare host.
//!
//! No IO here, and nothing that decides.

#![allow(
    clippy::doc_markdown,
    reason = "descriptions are read by people (`kubectl explain`), who see no markdown"
)]

pub mod cause;
pub mod cluster;
pub mod doors;
pub mod duration;
pub mod health;
pub mod ledger;
pub mod names;
pub mod network;
pub mod quorum;
pub mod report;
pub mod sidecar_config;
pub mod sidecar_doors;
pub mod status;
pub mod switchover;
pub mod timing;

pub use cause::Cause;
pub use cluster::{PbxCluster, PbxClusterSpec};
pub use duration::ShortDuration;
pub use status::PbxClusterStatus;
