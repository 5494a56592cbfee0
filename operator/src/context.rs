//! What every reconcile shares.

use std::sync::Arc;

use kube::Client;

use crate::cluster::apply::KeyMemory;
use crate::metrics::Metrics;
use crate::observe::Observers;
use crate::settings::Settings;

/// What every reconcile shares.
pub struct Context {
    /// The API.
    pub client: Client,
    /// The arguments.
    pub settings: Arc<Settings>,
    /// Counts.
    pub metrics: Metrics,
    /// The live side.
    pub observers: Arc<Observers>,
    /// Which heartbeat keys were created.
    pub keys: KeyMemory,
}
