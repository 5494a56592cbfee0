//! `POST /v1/actions/{action}`: what may be asked of the cluster, with the token, and with a line in the log for each that was.

use std::net::SocketAddr;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pbx_doors::{Action, Refusal, Strategy};
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::metrics::Metrics;

/// Details of an action; all may be left out, and so may the body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Details {
    /// Of a switchover: the heir.
    to: Option<String>,
    /// Of a switchover: what becomes of the calls.
    strategy: Option<Strategy>,
}

#[derive(Serialize)]
struct Begun {
    job: u64,
}

#[derive(Serialize)]
struct Problem {
    reason: &'static str,
    message: String,
}

/// Begins an action: 202 and the number of its job, or why not.
pub async fn act(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    axum::Extension(ConnectInfo(from)): axum::Extension<ConnectInfo<SocketAddr>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let outcome = match authorize(&shared, &headers) {
        Ok(()) => match action(&name, &body) {
            Ok(action) => begin(&shared, action, from).await,
            Err(refused) => Err(refused),
        },
        Err(refused) => Err(refused),
    };
    match outcome {
        Ok(job) => {
            Metrics::count(&shared.metrics.actions, "Begun");
            (StatusCode::ACCEPTED, Json(Begun { job })).into_response()
        }
        Err((status, problem)) => {
            Metrics::count(&shared.metrics.actions, problem.reason);
            (status, Json(problem)).into_response()
        }
    }
}

type Refused = (StatusCode, Problem);

fn refused(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Refused {
    let message = message.into();
    (status, Problem { reason, message })
}

fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), Refused> {
    if !shared.token.is_set() {
        let message =
            "no token is configured: set doors.tokenSecret (in a sidecar's file: doors.tokenFile)";
        return Err(refused(StatusCode::FORBIDDEN, "NoToken", message));
    }
    let header = headers.get(header::AUTHORIZATION);
    if header.is_some_and(|header| shared.token.is_bearer(header.as_bytes())) {
        return Ok(());
    }
    let message = "send the header Authorization: Bearer and the token";
    Err(refused(StatusCode::UNAUTHORIZED, "Unauthorized", message))
}

async fn begin(shared: &Shared, action: Action, from: SocketAddr) -> Result<u64, Refused> {
    let who = format!("http {from}");
    let begun = shared.doorway.ask(action.clone(), who.clone()).await;
    tracing::info!(who, ?action, ?begun, "audit: an action by HTTP");
    begun.map_err(|refusal| {
        let status = match &refusal {
            Refusal::NoSuchNode(_) => StatusCode::NOT_FOUND,
            Refusal::NotPossible(_) | Refusal::Busy(_) => StatusCode::CONFLICT,
            Refusal::Ending => StatusCode::SERVICE_UNAVAILABLE,
        };
        refused(status, refusal.reason(), refusal.to_string())
    })
}

fn action(name: &str, body: &[u8]) -> Result<Action, Refused> {
    let details = if body.is_empty() {
        Details::default()
    } else {
        serde_json::from_slice(body)
            .map_err(|error| refused(StatusCode::BAD_REQUEST, "BadBody", error.to_string()))?
    };
    let action = match name {
        "switchover" => {
            return Ok(Action::Switchover {
                to: details.to,
                strategy: details.strategy,
            });
        }
        "promote" => Action::Promote,
        "demote" => Action::Demote,
        "cancel-switchover" => Action::CancelSwitchover,
        "drill" => Action::Drill,
        "start" => Action::StartAsterisk,
        "stop" => Action::StopAsterisk,
        "restart" => Action::RestartAsterisk,
        "reload" => Action::ReloadAsterisk,
        "fence" => Action::Fence,
        "unfence" => Action::Unfence,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        _ => {
            let known = "switchover, promote, demote, cancel-switchover, drill, start, stop, restart, reload, fence, unfence, pause, resume";
            let message = format!("there is no action {name}: use one of {known}");
            return Err(refused(StatusCode::NOT_FOUND, "NoSuchAction", message));
        }
    };
    if details.to.is_some() || details.strategy.is_some() {
        let message = format!("{name} takes no details: to and strategy belong to a switchover");
        return Err(refused(StatusCode::BAD_REQUEST, "BadBody", message));
    }
    Ok(action)
}
