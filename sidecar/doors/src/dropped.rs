//! Who is told that a client was dropped, and why.

use std::sync::Arc;

/// Told the reason each time a door drops a client, or what a client sent. Cheap to clone.
#[derive(Clone)]
pub struct OnDropped(Arc<dyn Fn(&'static str) + Send + Sync>);

impl OnDropped {
    /// Tells `told`.
    pub fn new(told: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    /// A client was dropped; `reason` is stable, for metrics.
    pub fn tell(&self, reason: &'static str) {
        (self.0)(reason);
    }
}
