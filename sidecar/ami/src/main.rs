//! `pbx-ami`: the hub alone, in front of one Asterisk, for machines without a sidecar; the sidecar has the same hub built in.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use pbx_ami::config::{AmiConfig, Settings, read_secret};
use pbx_ami::hub::Account;
use pbx_ami::queue::Queue;
use pbx_ami::shell::{self, Connector, TcpConnector};
use pbx_ami::user::Secret;
use pbx_ami::{http, spool};
use serde::Deserialize;
use tokio::sync::watch;

/// Its file: the hub, and which Asterisk.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    asterisk: Asterisk,
    hub: AmiConfig,
    /// Where transactions are taken by HTTP.
    http: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asterisk {
    address: SocketAddr,
    user: String,
    secret_file: PathBuf,
}

fn main() -> anyhow::Result<()> {
    pbx_ami::log::as_json();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path] = arguments.as_slice() else {
        bail!("usage: pbx-ami FILE");
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let file: File = serde_yaml::from_str(&text).with_context(|| path.clone())?;
    let secret_file = &file.asterisk.secret_file;
    let secret = read_secret(secret_file)
        .with_context(|| format!("asterisk.secretFile: {}", secret_file.display()))?;
    let account = Account {
        user: file.asterisk.user,
        secret: Secret::new(secret),
    };
    let settings = file.hub.check("hub.");
    let settings =
        settings.map_err(|problems| anyhow::anyhow!("{path}:\n{}", problems.join("\n")))?;
    let connector: Arc<dyn Connector> = Arc::new(TcpConnector {
        address: file.asterisk.address,
        account,
    });
    // Bound before the hub listens: who reaches the one reaches the other.
    let bind =
        |address| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"));
    let http = file.http.map(bind).transpose()?;
    let (_route, way) = watch::channel(Some(connector));
    let handle = shell::start(&settings, way)?;
    run(&settings, handle, http)
}

/// Queue, action files and HTTP, as far as they are wanted; then for ever.
fn run(
    settings: &Settings,
    handle: shell::Handle,
    http: Option<TcpListener>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let Some(path) = &settings.queue_file else {
        drop(handle);
        return runtime.block_on(std::future::pending());
    };
    let queue = Queue::start(path, handle)?;
    if let Some((folder, write)) = &settings.spool {
        spool::start(folder.clone(), *write, queue.clone())?;
    }
    let router = http::router(queue, settings.users.clone());
    runtime.block_on(async {
        let Some(listener) = http else {
            return std::future::pending().await;
        };
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router)
            .await
            .context("cannot serve HTTP")
    })
}
