//! The operator's way to the API server: a client whose calls all end, and watches that come back soon.

use std::time::Duration;

use kube::client::ClientBuilder;
use kube::runtime::utils::Backoff;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

/// For the head of every answer. A watch's head comes at once, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Above the minute in which a watch always says something. With the default of five minutes, a connection that a killed API
/// server left half open held a reconcile up for three (seen).
const READ_TIMEOUT: Duration = Duration::from_secs(75);
const FIRST_RETRY: Duration = Duration::from_millis(400);
const LONGEST_RETRY: Duration = Duration::from_secs(3);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Neither a pod's ServiceAccount nor a kubeconfig.
    #[error("no way to the API server: run in a pod, or set KUBECONFIG")]
    Infer(#[source] kube::config::InferConfigError),
    /// Its certificates or token.
    #[error("cannot make a client of the API server")]
    Client(#[source] kube::Error),
}

/// A client from the pod's `ServiceAccount` or the kubeconfig.
pub async fn client() -> Result<Client, ApiError> {
    let mut config = Config::infer().await.map_err(ApiError::Infer)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let builder = ClientBuilder::try_from(config).map_err(ApiError::Client)?;
    Ok(builder.with_layer(&TimeoutLayer::new(HEAD_TIMEOUT)).build())
}

/// How long a watch that failed waits before the next try: doubled up to three seconds. kube's own goes up to thirty, in which
/// a failover would be missing from the status though the API server is back; a handful of watches is no burden on it.
#[derive(Clone, Debug)]
pub struct WatchRetry {
    next: Duration,
}

impl Default for WatchRetry {
    fn default() -> Self {
        Self { next: FIRST_RETRY }
    }
}

impl Iterator for WatchRetry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST_RETRY);
        Some(delay)
    }
}

impl Backoff for WatchRetry {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_tried_again_within_three_seconds_and_soon_after_it_worked() {
        let mut retry = WatchRetry::default();
        let delays: Vec<u128> = retry.by_ref().take(5).map(|one| one.as_millis()).collect();
        assert_eq!(delays, [400, 800, 1600, 3000, 3000]);
        retry.reset();
        assert_eq!(retry.next(), Some(FIRST_RETRY));
    }
}
