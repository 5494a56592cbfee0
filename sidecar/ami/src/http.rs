//! Transactions by HTTP: `POST /v1/ami/actions` takes an action in and gives its number, `GET /v1/ami/actions/{id}` tells its state and
//! answer, `?wait=30` waits that many seconds for its end. The hub's users log in by HTTP Basic, and have the rights that they have there.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::queue::{Arrival, Queue, QueueError, Record, State as RecordState};
use crate::user::{Proof, User, Users};

/// The longest wait.
const WAIT_LIMIT: Duration = Duration::from_mins(1);
/// Of a request: an action has at most 128 KiB.
const BODY_LIMIT_BYTES: usize = 256 << 10;
/// A wrong login waits, so that guessing is slow.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Shared {
    queue: Queue,
    users: Users,
}

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    action: String,
    /// A value is text, a number, yes or no, or a list of these for a header that stands more than once.
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
}

#[derive(Serialize)]
struct Accepted {
    id: u64,
    state: RecordState,
}

#[derive(Serialize)]
struct Problem<'a> {
    reason: &'a str,
    message: String,
}

/// The routes, to be merged into a server.
pub fn router(queue: Queue, users: Users) -> Router {
    let shared = Shared { queue, users };
    Router::new()
        .route("/v1/ami/actions", post(take_in))
        .route("/v1/ami/actions/{id}", get(tell))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(shared)
}

async fn take_in(
    State(shared): State<Shared>,
    headers: HeaderMap,
    request: Result<Json<Request>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let Some(user) = log_in(&shared.users, &headers).await else {
        return unauthorized();
    };
    let request = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return bad(rejection.body_text()),
    };
    let arrival = match lines_of(&request).and_then(|lines| Arrival::new(lines, user.write)) {
        Ok(arrival) => arrival,
        Err(message) => return bad(message),
    };
    match shared.queue.arrive(vec![arrival], None).await {
        Ok(ids) => {
            let accepted = Accepted {
                id: ids.first().copied().unwrap_or_default(),
                state: RecordState::Ready,
            };
            (StatusCode::ACCEPTED, Json(accepted)).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

async fn tell(
    State(shared): State<Shared>,
    Path(id): Path<u64>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if log_in(&shared.users, &headers).await.is_none() {
        return unauthorized();
    }
    let wait = match wait_in(&uri) {
        Ok(wait) => wait,
        Err(message) => return bad(message),
    };
    match look_up(&shared.queue, id, wait).await {
        Ok(Some(record)) => Json(record).into_response(),
        Ok(None) => problem(
            StatusCode::NOT_FOUND,
            "NoSuchAction",
            format!("there is no action {id}: it never was, or ended more than a day ago"),
        ),
        Err(error) => unavailable(&error),
    }
}

fn wait_in(uri: &Uri) -> Result<Option<Duration>, String> {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let Some(value) = parameters.find_map(|parameter| parameter.strip_prefix("wait=")) else {
        return Ok(None);
    };
    let seconds = value.trim_end_matches('s').parse();
    let seconds =
        seconds.map_err(|_| format!("wait={value}: write whole seconds, such as wait=30"))?;
    Ok(Some(Duration::from_secs(seconds).min(WAIT_LIMIT)))
}

async fn look_up(
    queue: &Queue,
    id: u64,
    wait: Option<Duration>,
) -> Result<Option<Record>, QueueError> {
    if let Some(wait) = wait {
        let ended = tokio::time::timeout(wait, queue.get(id, true)).await;
        if let Ok(found) = ended {
            return found;
        }
    }
    queue.get(id, false).await
}

async fn log_in(users: &Users, headers: &HeaderMap) -> Option<Arc<User>> {
    let user = basic(headers).and_then(|(name, secret)| {
        users.authenticate(&name, Proof::Secret(secret.as_bytes()), None)
    });
    // From where a request comes is not known here.
    let user = user.filter(|user| user.permit.is_empty());
    if user.is_none() {
        tokio::time::sleep(REFUSAL_DELAY).await;
    }
    user
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = value
        .strip_prefix("Basic ")
        .or_else(|| value.strip_prefix("basic "))?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, secret) = decoded.split_once(':')?;
    Some((name.to_owned(), secret.to_owned()))
}

fn lines_of(request: &Request) -> Result<Vec<String>, String> {
    let mut lines = vec![format!("Action: {}", request.action)];
    for (name, value) in &request.headers {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        if name.is_empty() || name.contains(':') {
            return Err(format!("header {name:?}: a name has no colon in it"));
        }
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(yes) => yes.to_string(),
                _ => return Err(format!("header {name:?}: write its value as text")),
            };
            lines.push(format!("{name}: {text}"));
        }
    }
    Ok(lines)
}

fn bad(message: String) -> Response {
    problem(StatusCode::BAD_REQUEST, "BadAction", message)
}

fn unavailable(error: &QueueError) -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        error.reason(),
        error.to_string(),
    )
}

fn unauthorized() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"ami\"")];
    let message = "log in as a user of the hub, by HTTP Basic".to_owned();
    let answer = problem(StatusCode::UNAUTHORIZED, "Unauthorized", message);
    (challenge, answer).into_response()
}

fn problem(status: StatusCode, reason: &str, message: String) -> Response {
    (status, Json(Problem { reason, message })).into_response()
}
