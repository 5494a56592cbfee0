//! The number of nodes changes while a client asks.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::office::{NAME, NAMESPACE, Office, is_whole};
use crate::watcher::View;

/// Until the new number of nodes is whole, or a pod that goes is gone.
const RESIZED_TIMEOUT: Duration = Duration::from_mins(2);

/// What was seen of one change.
#[derive(Clone, Debug)]
pub struct Resize {
    /// Who was active before, and after.
    pub active: (String, String),
    /// Moves that were counted.
    pub moves: u64,
    /// Answers by the other node than the active, of two nodes that served in turn.
    pub dual: usize,
    /// The longest time without an answer, in milliseconds.
    pub gap_ms: f64,
}

/// Asks for `nodes`, and waits until so many are whole.
pub fn resize(office: &Office, nodes: usize) -> Result<Resize> {
    let before = office.wait_whole()?;
    let (from, old) = (office.active()?, office.serving_address()?);
    let probe = office.probe(office.service()?)?;
    let done = ask_for(office, nodes);
    let log = probe.finish()?;
    done?;
    let (to, new) = (office.active()?, office.serving_address()?);
    let dual = if new == old {
        log.answerers().iter().filter(|who| **who != old).count()
    } else {
        log.dual(old, new)
    };
    Ok(Resize {
        active: (from, to),
        moves: moves(&office.watcher.view()) - moves(&before),
        dual,
        gap_ms: log.worst_gap().ms,
    })
}

fn moves(view: &View) -> u64 {
    view.status.counts.failovers + view.status.counts.switchovers
}

fn ask_for(office: &Office, nodes: usize) -> Result<()> {
    let patch = format!(r#"{{"spec": {{"nodes": {nodes}}}}}"#);
    let own = ["--namespace", NAMESPACE, "--type=merge", "--patch", &patch];
    let change = [&["patch", "pbxcluster", NAME], &own[..]].concat();
    office.cluster.kubectl(&change)?;
    let what = format!("{nodes} nodes, all of them alive");
    let is_done = |view: &View| {
        view.status.nodes.len() == nodes
            && view.generation.is_some()
            && view.status.observed_generation == view.generation
            && is_whole(&view.status)
    };
    let view = office.watcher.wait_until(&what, RESIZED_TIMEOUT, is_done)?;
    let seats = view
        .status
        .witness
        .map_or(Vec::new(), |witness| witness.seats);
    let taken = seats.iter().filter(|occupant| !occupant.is_empty()).count();
    ensure!(
        taken == nodes,
        "{nodes} nodes, and the Lease names {seats:?}"
    );
    Ok(())
}
