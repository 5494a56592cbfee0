//! SysAdm's events over websockets: `/sysadm`, and `/sysadm/bridge` for clients that reach the other nodes through this one.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pbx_doors::sysadm::Sysadm;
use pbx_doors::sysadm::codec::MAX_TEXT_BYTES;
use pbx_doors::sysadm::server::{End, Texts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tungstenite::error::ProtocolError;

use crate::metrics::Metrics;

/// What waits for a client that does not read; a text is written whole or not at all.
const MAX_WAITING_BYTES: usize = 64 << 10;
/// A client that says nothing is asked for a sign of life this often.
const PING: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Shared {
    sysadm: Sysadm,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

/// The paths; `places` bounds the clients, and those that were dropped are counted in `metrics`.
pub fn router(sysadm: Sysadm, places: Arc<Semaphore>, metrics: Metrics) -> Router {
    Router::new()
        .route("/sysadm", get(direct))
        .route("/sysadm/bridge", get(bridge))
        .with_state(Shared {
            sysadm,
            places,
            metrics,
        })
}

async fn direct(
    State(shared): State<Shared>,
    headers: HeaderMap,
    up: WebSocketUpgrade,
) -> Response {
    upgrade(shared, &headers, up, false)
}

async fn bridge(
    State(shared): State<Shared>,
    headers: HeaderMap,
    up: WebSocketUpgrade,
) -> Response {
    upgrade(shared, &headers, up, true)
}

fn upgrade(shared: Shared, headers: &HeaderMap, up: WebSocketUpgrade, is_bridge: bool) -> Response {
    let Ok(place) = shared.places.clone().try_acquire_owned() else {
        let message = "too many clients: close some\n";
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let header = headers.get(header::AUTHORIZATION);
    let is_guest = shared.sysadm.is_guest(header.map(HeaderValue::as_bytes));
    up.max_message_size(MAX_TEXT_BYTES)
        .max_frame_size(MAX_TEXT_BYTES)
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WAITING_BYTES)
        .on_upgrade(move |socket| async move {
            let mut texts = SocketTexts {
                socket,
                metrics: shared.metrics.clone(),
                _place: place,
            };
            let end = if is_bridge {
                shared.sysadm.serve_bridge(&mut texts, is_guest).await
            } else {
                shared.sysadm.serve(&mut texts, is_guest).await
            };
            if end == End::Slow {
                Metrics::count(&shared.metrics.doors_dropped, "Slow");
            }
        })
}

struct SocketTexts {
    socket: WebSocket,
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl Texts for SocketTexts {
    /// A binary message is taken for a text, as SysAdm's server does. Pings are answered by the websocket itself.
    async fn next(&mut self) -> Option<String> {
        loop {
            let Ok(received) = tokio::time::timeout(PING, self.socket.recv()).await else {
                self.socket
                    .send(Message::Ping(Vec::new().into()))
                    .await
                    .ok()?;
                continue;
            };
            let message = received?.map_err(|error| self.note_end(error)).ok()?;
            match message {
                Message::Text(text) => return Some(text.to_string()),
                Message::Binary(bytes) => {
                    return Some(String::from_utf8_lossy(&bytes).into_owned());
                }
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return None,
            }
        }
    }

    async fn send(&mut self, text: &str) -> bool {
        self.socket.send(Message::Text(text.into())).await.is_ok()
    }
}

impl SocketTexts {
    /// What is no websocket is counted; a client that just went is not.
    fn note_end(&self, error: axum::Error) {
        let inner = error.into_inner();
        let is_bad = match inner.downcast_ref() {
            Some(tungstenite::Error::Protocol(error)) => {
                *error != ProtocolError::ResetWithoutClosingHandshake
            }
            Some(tungstenite::Error::Capacity(_) | tungstenite::Error::Utf8(_)) => true,
            _ => false,
        };
        if is_bad {
            Metrics::count(&self.metrics.doors_dropped, "BadWebsocket");
        }
    }
}
