//! How the programs beside Asterisk log: JSON on standard error, `RUST_LOG` choosing what.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Begins to log. `RUST_LOG` is a level, or levels by module (`info,pbx_sidecar::daemon=debug`); without it, or where it cannot be
/// read, everything from INFO on. Filters on spans and fields are not known.
pub fn as_json() {
    let wanted = std::env::var("RUST_LOG").ok();
    let wanted = wanted.and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    // kube calls each failed call an ERROR, for which no human must act: who called says what failed.
    let filter = filter.with_target("kube_client::client::builder", LevelFilter::OFF);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .finish()
        .with(filter)
        .init();
}
