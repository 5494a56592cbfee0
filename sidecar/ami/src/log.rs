//! How the programs beside Asterisk log: JSON on standard error, `RUST_LOG` choosing what.

use tracing_subscriber::EnvFilter;

/// Begins to log. `RUST_LOG` is a level, or levels by module (`info,pbx_sidecar::daemon=debug`); without it, or where it cannot be
/// read, everything from INFO on.
pub fn as_json() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // kube calls each failed call an ERROR, for which no human must act: who called says what failed.
    let quiet = "kube_client::client::builder=off".parse();
    let filter = filter.add_directive(quiet.expect("it is a directive"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
