//! /metrics, /healthz and /readyz of the operator.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Taking the port.
    #[error("cannot listen on {address}: choose another --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Serving.
    #[error("cannot serve HTTP any more")]
    Serve(#[source] std::io::Error),
}

/// Serves until it fails. A spare operator, which waits for the lead, is healthy and ready too: the event loop answers.
pub async fn serve(address: SocketAddr, metrics: Metrics) -> Result<(), HttpError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| HttpError::Listen { address, source })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(text))
        .with_state(metrics);
    axum::serve(listener, router)
        .await
        .map_err(HttpError::Serve)
}

async fn text(State(metrics): State<Metrics>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
