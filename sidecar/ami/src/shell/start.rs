//! The hub's thread: a runtime of its own, so that nothing else of the process waits for a client or is waited for.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::listen::{self, BindError, Door};
use super::{Route, Shared, Told, link};
use crate::config::Settings;
use crate::hub::{Counters, Hub, Submission};

/// Submissions on their way to the hub; the queue has fewer under way.
const SUBMISSIONS: usize = 256;

/// Why the hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A place to listen cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The thread or its runtime cannot be made.
    #[error("cannot start the hub's thread")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// A stable name for metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind(_) => "CannotListen",
            Self::Thread(_) => "CannotStartThread",
        }
    }
}

/// The running hub. It runs until the process ends.
#[derive(Debug)]
pub struct Handle {
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Actions for it.
    pub submissions: mpsc::Sender<Submission>,
    /// What became of them.
    pub told: mpsc::UnboundedReceiver<Told>,
}

/// Binds everything, then runs the hub on a thread of its own.
pub fn start(settings: &Settings, route: Route) -> Result<Handle, StartError> {
    let doors = doors(settings)?;
    let mark = listen::challenge();
    let hub = Hub::new(settings.users.clone(), &mark, Instant::now());
    let counters = hub.counters();
    let (submissions, inbox) = mpsc::channel(SUBMISSIONS);
    let (outbox, told) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Thread)?;
    let run = move || {
        let shared = Rc::new(Shared::new(hub, outbox));
        LocalSet::new().block_on(&runtime, serve(shared, doors, inbox, route));
    };
    std::thread::Builder::new()
        .name("ami".into())
        .spawn(run)
        .map_err(StartError::Thread)?;
    Ok(Handle {
        counters,
        submissions,
        told,
    })
}

fn doors(settings: &Settings) -> Result<Vec<Door>, BindError> {
    let mut doors = Vec::new();
    for address in &settings.listen {
        doors.push(Door::Tcp(listen::bind(*address)?));
    }
    if let Some((addresses, certificate)) = &settings.tls {
        for address in addresses {
            doors.push(Door::Tls(listen::bind(*address)?, certificate.clone()));
        }
    }
    if let Some(path) = &settings.socket {
        doors.push(Door::Unix(listen::bind_unix(path)?));
    }
    Ok(doors)
}

async fn serve(
    shared: Rc<Shared>,
    doors: Vec<Door>,
    mut inbox: mpsc::Receiver<Submission>,
    route: Route,
) {
    let places = listen::places();
    for door in doors {
        let (shared, places) = (shared.clone(), places.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = listen::serve(shared, door, places).await {
                tracing::error!(%error, "an AMI listener has ended: clients cannot come in by it");
            }
        });
    }
    tokio::task::spawn_local(link::keep(shared.clone(), route));
    let submissions = async {
        while let Some(submission) = inbox.recv().await {
            shared.apply(|hub, now| hub.submit(submission, now));
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(submissions, shared.keep_time());
}
