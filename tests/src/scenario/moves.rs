//! A move of the role from one node to another, seen from everywhere at once.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::clock::Moment;
use crate::office::{NAME, NAMESPACE, Office};
use crate::probe::{Flow, Probe, ProbeLog};
use crate::sidecar_log::{CoreNotice, notices_since};
use crate::watcher::{Change, Seen, View};

/// Of each flow: a second of them, as long as a stale path may lead to the old node.
const ANSWERS_AFTER: usize = 250;
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(20);
/// kube-proxy syncs once a second at most: by then it has done with what made the system whole, and its next sync is free.
const KUBE_PROXY_IDLE: Duration = Duration::from_millis(1500);
const MOVE_TIMEOUT: Duration = Duration::from_mins(1);

/// What a move took, in milliseconds from the cause.
#[derive(Clone, Debug, Serialize)]
pub struct Move {
    /// Who served before.
    pub from: String,
    /// Who serves now.
    pub to: String,
    /// The epoch that began.
    pub epoch: i64,
    /// To the new node's authority, with the kernel's deadline armed.
    pub promoted_ms: f64,
    /// To the EndpointSlice, as a watching client saw it.
    pub endpoints_ms: f64,
    /// To the first answer of the new node to a client with a new port.
    pub answer_ms: f64,
    /// The same for a client that keeps its port.
    pub answer_kept_ms: f64,
    /// To the new status at a watching client.
    pub status_ms: f64,
    /// The longest time without an answer to a client, the worse of both kinds.
    pub gap_ms: f64,
    /// Whether that was the client that keeps its port.
    pub gap_is_of_kept_port: bool,
    /// When it began, in milliseconds from the cause.
    pub gap_since_ms: f64,
    /// Requests without an answer, of both kinds.
    pub lost: usize,
    /// Answers that show two nodes serving at once.
    pub dual: usize,
}

/// How a move is made.
pub struct Steps<'a> {
    /// Makes it happen, and returns when the cause began.
    pub cause: &'a dyn Fn(&Office) -> Result<Moment>,
    /// Repairs what the cause broke, once the role has moved; for most there is nothing to do.
    pub repair: &'a dyn Fn(&Office) -> Result<()>,
}

/// Makes a move from a whole system to a whole system, with a SIP client asking all the time. Fails when two nodes served at once,
/// when the role moved more than once, or when the counts are not exact.
pub fn observe(office: &Office, steps: &Steps) -> Result<Move> {
    let before = office.wait_whole()?;
    let from_address = office.serving_address()?;
    let probe = office.probe(office.service()?)?;
    std::thread::sleep(KUBE_PROXY_IDLE);
    let done = carry_out(office, steps, &before, &probe);
    // Whatever happened, the client ends.
    let log = probe.finish()?;
    let (started_at, after) = done?;
    let seen = office.watcher.seen_since(started_at);
    let notices = notices_since(&office.cluster, NAMESPACE, NAME, started_at)?;
    let found = assemble(
        &before,
        &after,
        started_at,
        from_address,
        &log,
        &seen,
        &notices,
    )?;
    check(&before, &after, &found)?;
    Ok(found)
}

fn carry_out(
    office: &Office,
    steps: &Steps,
    before: &View,
    probe: &Probe,
) -> Result<(Moment, View)> {
    let started_at = (steps.cause)(office)?;
    let old = before.status.active.as_deref();
    let has_moved = |view: &View| {
        let active = view.status.active.as_deref();
        active.is_some() && active != old && view.status.epoch > before.status.epoch
    };
    office
        .watcher
        .wait_until("a new active in the status", MOVE_TIMEOUT, has_moved)?;
    (steps.repair)(office)?;
    // With the client still asking: the old node's return as a standby must not be heard.
    let after = office.wait_whole()?;
    let address = office.serving_address()?;
    probe.wait_answered_by(address, ANSWERS_AFTER, ANSWERS_TIMEOUT)?;
    Ok((started_at, after))
}

fn assemble(
    before: &View,
    after: &View,
    started_at: Moment,
    from_address: Ipv4Addr,
    log: &ProbeLog,
    seen: &[Seen],
    notices: &[CoreNotice],
) -> Result<Move> {
    let from = before
        .status
        .active
        .clone()
        .context("nobody served before")?;
    let to = after.status.active.clone().context("nobody serves now")?;
    let to_address = after
        .traffic
        .address
        .clone()
        .context("the EndpointSlice names nobody")?;
    let address: Ipv4Addr = to_address.parse().context("read the EndpointSlice")?;
    let promoted_at = notices
        .iter()
        .find(|notice| notice.kind == "Promoted" && notice.pod == to)
        .map(|notice| notice.at);
    let endpoints_at = first(
        seen,
        |change| matches!(change, Change::Traffic(traffic) if traffic.address.as_deref() == Some(&to_address)),
    );
    let status_at = first(
        seen,
        |change| matches!(change, Change::Status(status) if status.active.as_deref() == Some(&to)),
    );
    let ms = |what: &str, at: Option<Moment>| {
        at.map(|at| at.ms_since(started_at))
            .with_context(|| format!("{to} took over from {from}, but nobody saw {what}"))
    };
    let gap = log.worst_gap();
    let answer = |flow| log.first_answer_by(address, flow, started_at);
    Ok(Move {
        promoted_ms: ms("its promotion in the sidecar's log", promoted_at)?,
        endpoints_ms: ms("its EndpointSlice", endpoints_at)?,
        answer_ms: ms("its answer to a client with a new port", answer(Flow::New))?,
        answer_kept_ms: ms(
            "its answer to a client that keeps its port",
            answer(Flow::Kept),
        )?,
        status_ms: ms("its status", status_at)?,
        gap_ms: gap.ms,
        gap_is_of_kept_port: gap.flow == Flow::Kept,
        gap_since_ms: gap.since.ms_since(started_at),
        lost: log.lost(),
        dual: log.dual(from_address, address),
        epoch: after.status.epoch.unwrap_or(0),
        from,
        to,
    })
}

fn first(seen: &[Seen], is_wanted: impl Fn(&Change) -> bool) -> Option<Moment> {
    seen.iter()
        .find(|seen| is_wanted(&seen.change))
        .map(|seen| seen.at)
}

fn check(before: &View, after: &View, found: &Move) -> Result<()> {
    ensure!(
        found.dual == 0,
        "two nodes served at once: {} answers of {} after {}",
        found.dual,
        found.from,
        found.to
    );
    let moves = |view: &View| view.status.counts.failovers + view.status.counts.switchovers;
    let counted = moves(after) - moves(before);
    ensure!(
        counted == 1,
        "the role moved once and {counted} moves were counted"
    );
    let newest = after.status.failover_history.first();
    let newest = newest.context("the history is empty after a move")?;
    ensure!(
        newest.epoch == found.epoch
            && newest.to == found.to
            && newest.from.as_ref() == Some(&found.from),
        "the history says {newest:?}, and {} took over from {} under epoch {}",
        found.to,
        found.from,
        found.epoch
    );
    Ok(())
}
