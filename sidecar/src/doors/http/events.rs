//! `/v1/events`: server-sent events, for browsers and scripts; `/v1/jobs`: the newest jobs.
//!
//! `event: cluster` is the cluster as this node knows it, the newest state first, then every change; `event: job` a job, at every
//! change. A reader that lags misses intermediate states of the cluster, and of jobs those that are no longer kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use pbx_doors::{JOBS_KEPT, Job, View};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::Shared;

/// A comment this often shows a reader, and what lies between, that the stream lives.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The cluster as this node knows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster<'a> {
    #[serde(rename = "cluster")]
    name: &'a str,
    reporter: &'a str,
    active: Option<&'a str>,
    epoch: i64,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
}

/// The newest jobs. Cheap to clone.
#[derive(Clone, Default)]
pub struct JobList {
    /// Held for the time of a copy, by this one thread.
    jobs: Arc<Mutex<VecDeque<Arc<Job>>>>,
}

impl JobList {
    /// Empty, and the task that fills it from `told`.
    pub fn follow(mut told: broadcast::Receiver<Arc<Job>>) -> (Self, impl Future<Output = ()>) {
        let list = Self::default();
        let filled = list.clone();
        let task = async move {
            loop {
                match told.recv().await {
                    Ok(job) => filled.note(job),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        (list, task)
    }

    fn note(&self, job: Arc<Job>) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match jobs.iter_mut().find(|known| known.id == job.id) {
            Some(known) => *known = job,
            None => jobs.push_front(job),
        }
        jobs.truncate(JOBS_KEPT);
    }

    fn all(&self) -> Vec<Arc<Job>> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().cloned().collect()
    }
}

/// The newest first.
pub async fn jobs(State(shared): State<Shared>) -> Response {
    let jobs = shared.jobs.all();
    let jobs: Vec<&Job> = jobs.iter().map(|job| &**job).collect();
    axum::Json(jobs).into_response()
}

/// The stream.
pub async fn events(State(shared): State<Shared>) -> Response {
    let Ok(place) = shared.listeners.clone().try_acquire_owned() else {
        let message = "too many event streams: close some\n";
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let mut view = shared.doorway.view.clone();
    view.mark_changed();
    let source = Source {
        view,
        jobs: shared.doorway.jobs.subscribe(),
        _place: place,
    };
    let stream = unfold(source, |mut source| async move {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(event), source))
    });
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEPALIVE))
        .into_response()
}

struct Source {
    view: watch::Receiver<Arc<View>>,
    jobs: broadcast::Receiver<Arc<Job>>,
    _place: OwnedSemaphorePermit,
}

impl Source {
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                // The state first: a new reader sees it before any job.
                biased;
                changed = self.view.changed() => {
                    changed.ok()?;
                    let view = self.view.borrow_and_update().clone();
                    return Some(named("cluster", &cluster(&view)));
                }
                job = self.jobs.recv() => match job {
                    Ok(job) => return Some(named("job", &*job)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

fn named(name: &str, data: &impl Serialize) -> Event {
    let json = serde_json::to_string(data).expect("a view and a job are JSON");
    Event::default().event(name).data(json)
}

fn cluster(view: &View) -> Cluster<'_> {
    let nodes = view.nodes.iter().enumerate().map(|(at, node)| {
        let report = node.report.as_ref().filter(|_| node.is_up);
        Node {
            name: &node.name,
            state: match (view.active == Some(at), node.is_up) {
                (true, true) => "active",
                (false, true) => "standby",
                (_, false) => "dead",
            },
            address: node.address.map(|address| address.to_string()),
            detail: report.map(|report| &*report.detail),
            ready: report.map(|report| report.ready),
        }
    });
    Cluster {
        name: &view.cluster,
        reporter: &view.own().name,
        active: view.active.map(|at| &*view.nodes[at].name),
        epoch: view.epoch,
        nodes: nodes.collect(),
    }
}
