//! What the nodes tell each other of themselves: each tells its report to each peer, and again when it changes. Without the
//! ledger, which travels with the heartbeats and is the same everywhere.

use std::sync::Arc;
use std::time::Duration;

use pbx_crds::ledger::Ledger;
use pbx_crds::report::Report;
use pbx_doors::channel::message::{read_message, write_message};
use pbx_doors::channel::{Channel, ChannelError, Incoming, PeerStream, Service};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::view::Told;

/// A report without its ledger is a few kilobytes.
const MAX_REPORT_BYTES: usize = 256 << 10;
/// A peer that takes no report for so long is reached anew.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to reach a peer: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// Tells the node in `seat` this node's report for as long as the sidecar lives.
pub async fn tell(channel: Channel, seat: usize, report: watch::Receiver<Arc<Report>>) {
    let mut wait = RETRY_FIRST;
    loop {
        match channel.open(seat, Service::Report).await {
            Ok(stream) => {
                wait = RETRY_FIRST;
                if let Err(error) = tell_over(stream, report.clone()).await {
                    tracing::debug!(seat, reason = error.reason(), "a stream to a peer ended");
                }
            }
            Err(error) => tracing::debug!(seat, reason = error.reason(), "a peer is not reached"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MOST);
    }
}

/// Takes the streams of peers that tell; a peer has one, and a new one ends the one before.
pub async fn hear(mut incoming: mpsc::Receiver<Incoming>, told: mpsc::Sender<Told>) {
    let mut tasks: Vec<Option<tokio::task::AbortHandle>> = vec![None; pbx_core::MAX_NODES];
    while let Some(Incoming { seat, stream }) = incoming.recv().await {
        let Some(task) = tasks.get_mut(seat) else {
            continue;
        };
        let listening = tokio::spawn(hear_one(seat, stream, told.clone()));
        if let Some(before) = task.replace(listening.abort_handle()) {
            before.abort();
        }
    }
}

async fn tell_over(
    mut stream: PeerStream,
    mut report: watch::Receiver<Arc<Report>>,
) -> Result<(), ChannelError> {
    report.mark_changed();
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            changed = report.changed() => if changed.is_err() { return Ok(()) },
            // The peer says nothing here: only the end of the connection can come.
            _ = stream.read(&mut nothing) => return Ok(()),
        }
        let told = Report {
            ledger: Ledger::default(),
            ..Report::clone(&report.borrow_and_update())
        };
        let json = serde_json::to_vec(&told).expect("a report is JSON");
        let written = timeout(WRITE_PATIENCE, write_message(&mut stream, &json)).await;
        written.unwrap_or(Err(ChannelError::Deadline(WRITE_PATIENCE)))?;
    }
}

async fn hear_one(seat: usize, mut stream: PeerStream, told: mpsc::Sender<Told>) {
    while let Ok(Some(json)) = read_message(&mut stream, MAX_REPORT_BYTES).await {
        match serde_json::from_slice::<Report>(&json) {
            Ok(report) => {
                if told.send((seat, Arc::new(report))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(seat, %error, "a peer's report is not understood: run the same version on all nodes");
            }
        }
    }
}
