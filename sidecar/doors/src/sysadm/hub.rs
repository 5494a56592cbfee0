//! The events of this node, made once for all clients: from the jobs, the view and the storage. Keeps the last of each topic.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::codec::Topic;
use super::events::{self, Class, Form, Preserved, Priority, Storage};
use super::storage;
use crate::doorway::Doorway;
use crate::job::{Action, Job};
use crate::view::View;

/// Events that a client may lag behind before it is dropped.
const EVENTS_KEPT: usize = 256;
/// How often storage is looked at.
const STORAGE_PERIOD: Duration = Duration::from_secs(30);
/// A healthy file system answers at once.
const STORAGE_PATIENCE: Duration = Duration::from_secs(2);

/// An event on its way to the clients.
#[derive(Clone, Debug)]
pub struct Event {
    /// Of which topic.
    pub topic: Topic,
    /// Its text.
    pub text: Arc<str>,
}

/// Where the clients' sessions get events. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    events: broadcast::Sender<Event>,
    /// Held for the time of a copy, by this one thread.
    last: Arc<Mutex<[Option<Arc<str>>; Topic::ALL.len()]>>,
}

impl Hub {
    /// Of the sidecar behind `doorway`, with `storage` by name and folder; and the task that makes the events.
    pub fn follow(
        doorway: Doorway,
        storage: Vec<(String, PathBuf)>,
    ) -> (Self, impl Future<Output = ()>) {
        let hub = Self {
            events: broadcast::channel(EVENTS_KEPT).0,
            last: Arc::default(),
        };
        let task = hub.clone().run(doorway, storage);
        (hub, task)
    }

    /// All events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The last event of `topic`.
    pub fn last(&self, topic: Topic) -> Option<Arc<str>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last[topic as usize].clone()
    }

    async fn run(self, doorway: Doorway, storage: Vec<(String, PathBuf)>) {
        let mut jobs = doorway.jobs.subscribe();
        let mut view = doorway.view.clone();
        let mut snapshots = Snapshots::default();
        let mut system = System::default();
        let mut look = tokio::time::interval(STORAGE_PERIOD);
        view.mark_changed();
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Ok(job) => self.on_job(&job),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = view.changed() => {
                    if changed.is_err() { return }
                    let news = snapshots.on_view(&view.borrow_and_update());
                    for preserved in &news {
                        self.tell(Topic::LifePreserver, events::life_preserver(preserved));
                    }
                }
                _ = look.tick() => self.look(&mut system, storage.clone()).await,
            }
        }
    }

    /// What concerns the whole cluster is told as a class too.
    fn on_job(&self, job: &Job) {
        if concerns_cluster(&job.action) {
            self.send(
                Topic::Dispatcher,
                events::dispatcher(job, Form::Class).into(),
            );
        }
        self.tell(Topic::Dispatcher, events::dispatcher(job, Form::Plain));
    }

    /// A file system that does not answer holds up one thread of its own, and this loop no longer than the deadline.
    async fn look(&self, system: &mut System, folders: Vec<(String, PathBuf)>) {
        let look = move || (storage::hostname(), storage::look(&folders));
        let looking = system.looking.get_or_insert_with(|| spawn_blocking(look));
        let Ok(looked) = timeout(STORAGE_PATIENCE, looking).await else {
            tracing::warn!("a file system of the node's data does not answer");
            return;
        };
        system.looking = None;
        let (hostname, storage) = looked.expect("a look at storage never panics");
        let is_news = system.on_look(hostname, &storage);
        let text: Arc<str> =
            events::system_state(&system.hostname, system.has_changed, &storage).into();
        self.keep(Topic::SystemState, text.clone());
        if is_news {
            self.send(Topic::SystemState, text);
        }
    }

    fn tell(&self, topic: Topic, text: String) {
        let text: Arc<str> = text.into();
        self.keep(topic, text.clone());
        self.send(topic, text);
    }

    fn keep(&self, topic: Topic, text: Arc<str>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last[topic as usize] = Some(text);
    }

    /// Nobody may be listening.
    fn send(&self, topic: Topic, text: Arc<str>) {
        let _ = self.events.send(Event { topic, text });
    }
}

fn concerns_cluster(action: &Action) -> bool {
    match action {
        Action::Promote
        | Action::Demote
        | Action::Switchover { .. }
        | Action::CancelSwitchover
        | Action::Drill
        | Action::Fence
        | Action::Unfence
        | Action::Pause
        | Action::Resume => true,
        Action::StartAsterisk
        | Action::StopAsterisk
        | Action::RestartAsterisk
        | Action::ReloadAsterisk => false,
    }
}

/// Which configuration each node runs with, as last told.
#[derive(Default)]
struct Snapshots {
    known: Vec<(Option<String>, bool)>,
}

impl Snapshots {
    fn on_view(&mut self, view: &View) -> Vec<Preserved> {
        self.known.resize(view.nodes.len(), (None, false));
        let mut news = Vec::new();
        for (known, node) in self.known.iter_mut().zip(&view.nodes) {
            let Some(report) = &node.report else { continue };
            let problem = report.problem.as_ref();
            let refused = problem.filter(|problem| problem.reason == "ConfigInvalid");
            if let (Some(problem), false) = (refused, known.1) {
                news.push(Preserved {
                    message: format!("FAILED: {}: {}", node.name, problem.message),
                    priority: Priority::Critical,
                    class: Class::Snapshot,
                });
            }
            if let Some(hash) = report.config_hash.as_ref()
                && known.0.as_ref() != Some(hash)
            {
                news.push(Preserved {
                    message: format!("{} runs with configuration snapshot {hash}", node.name),
                    priority: Priority::Info,
                    class: Class::Snapshot,
                });
            }
            *known = (report.config_hash.clone(), refused.is_some());
        }
        news
    }
}

/// The host as last told.
#[derive(Default)]
struct System {
    hostname: String,
    has_changed: bool,
    alarms: Vec<(String, u64, bool)>,
    /// A look that has not come back yet.
    looking: Option<JoinHandle<(String, Vec<Storage>)>>,
}

impl System {
    /// Whether it is worth an event: another name, or storage that filled or emptied past a border.
    fn on_look(&mut self, hostname: String, storage: &[Storage]) -> bool {
        let border = |storage: &Storage| match storage.capacity_percent() {
            95.. => 2,
            90..95 => 1,
            _ => 0,
        };
        let alarms: Vec<_> = storage
            .iter()
            .map(|storage| (storage.name.clone(), border(storage), storage.is_read_only))
            .collect();
        let is_first = self.hostname.is_empty();
        let is_renamed = !is_first && self.hostname != hostname;
        self.has_changed |= is_renamed;
        let is_news = is_first || is_renamed || self.alarms != alarms;
        self.hostname = hostname;
        self.alarms = alarms;
        is_news
    }
}
