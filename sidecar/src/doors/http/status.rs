//! What is read: the report, its stream, whether the sidecar lives and is ready, metrics, the flight recorder.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use pbx_crds::report::{Report, ReportedRole};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Shared;
use crate::alarm::rest;
use crate::metrics::Seconds;

/// Of a flight.
const PIECE_BYTES: usize = 64 << 10;
/// An empty line this often shows a reader that the stream lives.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// A core that made no step for so long is stuck: its ticks come every keepalive.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The report, and what changes too often to be told to streams and the operator.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(flatten)]
    report: &'a Report,
    link_times: Vec<LinkTime>,
}

/// A link's smoothed measurements.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkTime {
    name: String,
    round_trip_ms: f64,
    jitter_ms: f64,
}

pub async fn status(State(shared): State<Shared>) -> Response {
    let report = shared.report.borrow().clone();
    let links = shared.metrics.all_links().filter(|link| link.is_measured());
    let milliseconds = |gauge: &Seconds| (gauge.get() * 1e6).round() / 1e3;
    let link_times = links.map(|link| LinkTime {
        name: link.name.clone(),
        round_trip_ms: milliseconds(&link.round_trip),
        jitter_ms: milliseconds(&link.jitter),
    });
    let status = Status {
        report: &report,
        link_times: link_times.collect(),
    };
    let mut text = serde_json::to_string_pretty(&status).expect("a report is JSON");
    text.push('\n');
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

pub async fn stream(State(shared): State<Shared>) -> Response {
    let Ok(permit) = shared.streams.clone().try_acquire_owned() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many streams: close some\n",
        )
            .into_response();
    };
    let mut report = shared.report.clone();
    report.mark_changed();
    let body = Body::from_stream(lines(report, permit));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The newest report, then every change, an empty line in between when nothing changes.
fn lines(
    report: watch::Receiver<Arc<Report>>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold((report, permit), |(mut report, permit)| async move {
        let changed = tokio::select! {
            changed = report.changed() => Some(changed),
            () = rest(KEEPALIVE) => None,
        };
        let line = match changed {
            None => Bytes::from_static(b"\n"),
            Some(Err(_)) => return None,
            Some(Ok(())) => {
                let mut text =
                    serde_json::to_vec(&**report.borrow_and_update()).expect("a report is JSON");
                text.push(b'\n');
                text.into()
            }
        };
        Some((Ok(line), (report, permit)))
    })
}

/// Looks at the core's loop alone: a container must not be restarted because something else is slow.
pub async fn healthz(State(shared): State<Shared>) -> Response {
    let last = shared.metrics.last_step_at_ns.load(Ordering::Relaxed);
    let silent = Duration::from_nanos(pbx_guard::boot_now_ns().saturating_sub(last));
    if silent < STUCK_AFTER {
        "ok\n".into_response()
    } else {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the core made no step for {silent:?}\n"),
        )
            .into_response()
    }
}

/// Admitted, out of quarantine, fully booted: independent of the role and of the API.
pub async fn readyz(State(shared): State<Shared>) -> Response {
    let report = shared.report.borrow().clone();
    if report.ready || report.role == ReportedRole::Active {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", report.detail),
        )
            .into_response()
    }
}

pub async fn metrics_text(State(shared): State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text()).into_response()
}

/// In pieces, so that the reader's place is free only when it has nearly all.
fn pieces(
    bytes: Bytes,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold((bytes, place), |(mut rest, place)| async move {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        (!piece.is_empty()).then(|| (Ok(piece), (rest, place)))
    })
}

/// What the flight recorder holds: `pbx-sidecar replay` reads it.
pub async fn flight(State(shared): State<Shared>) -> Response {
    match shared.flight.take().await {
        Some((bytes, place)) => {
            let head = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, bytes.len().to_string()),
            ];
            (head, Body::from_stream(pieces(bytes.into(), place))).into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            "a flight was taken just now, or two are being read: ask again in a second\n",
        )
            .into_response(),
    }
}
