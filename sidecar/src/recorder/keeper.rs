//! What becomes of a copy of the ring: a file in the record's folder, or the body of an answer. On the services' side, and the slow
//! part (a digest of a megabyte) on a thread of its own, so that no move of traffic waits for it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pbx_core::BootTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::file::{self, FlightStore, Header};
use super::{Occasion, REST, Shot};
use crate::config::Checked;
use crate::daemon::ToCore;

/// The folder, beside the record.
const FOLDER: &str = "flights";
/// Copies on their way to readers: a slow one keeps its megabyte, and the others ask again.
const MAX_READERS: usize = 2;
/// A role is on its way when a copy comes: the processor is for those who move and tell it.
const AFTER_THE_MOVE: Duration = Duration::from_millis(20);
/// The core answers within a step, and gives a copy every half second; a core that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gets copies from the core, on request.
#[derive(Clone)]
pub struct FlightDoor {
    to_core: mpsc::Sender<ToCore>,
    whose: Arc<Whose>,
    readers: Arc<Semaphore>,
}

/// Writes copies to files.
pub struct Keeper {
    door: FlightDoor,
    store: Arc<Mutex<FlightStore>>,
    last: Option<(Occasion, String)>,
}

struct Whose {
    cluster: String,
    node: String,
    names: Vec<String>,
}

impl FlightDoor {
    /// To the core behind `to_core`.
    pub fn new(checked: &Checked, to_core: mpsc::Sender<ToCore>) -> Self {
        let whose = Arc::new(Whose {
            cluster: checked.file.cluster.clone(),
            node: checked.node.clone(),
            names: checked.names.clone(),
        });
        Self {
            to_core,
            whose,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// The whole file of now, and the reader's place, to be kept until it has read; `None`: too many are being read, many ask at
    /// once, or the core is stuck.
    pub async fn take(&self) -> Option<(Vec<u8>, OwnedSemaphorePermit)> {
        let place = self.readers.clone().try_acquire_owned().ok()?;
        let shot = self.ask().await?;
        let whose = self.whose.clone();
        let bytes = spawn_blocking(move || whose.assemble(&shot)).await.ok()?;
        Some((bytes, place))
    }

    /// Right behind another copy the core gives none: who asks then gets his a little later.
    async fn ask(&self) -> Option<Shot> {
        let asked = async {
            loop {
                let (reply, answer) = oneshot::channel();
                self.to_core.try_send(ToCore::TakeFlight(reply)).ok()?;
                if let Some(shot) = answer.await.ok()? {
                    return Some(shot);
                }
                tokio::time::sleep(REST).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.ok()?
    }
}

impl Keeper {
    /// Keeps files in a folder of `record_dir`.
    pub fn new(record_dir: &Path, door: FlightDoor) -> Self {
        let store = FlightStore::new(record_dir.join(FOLDER));
        Self {
            door,
            store: Arc::new(Mutex::new(store)),
            last: None,
        }
    }

    /// Writes what the core sends, and a copy at each SIGUSR1, until the core is gone.
    pub async fn run(mut self, mut shots: mpsc::Receiver<Shot>) {
        let mut asked = listen();
        loop {
            tokio::select! {
                shot = shots.recv() => match shot {
                    Some(shot) => self.keep(shot),
                    None => return,
                },
                () = next(&mut asked) => self.on_asked().await,
            }
        }
    }

    async fn on_asked(&mut self) {
        if let Some(shot) = self.door.ask().await {
            self.keep(shot);
        } else {
            tracing::warn!("no flight is written: the core gave no copy");
        }
    }

    fn keep(&mut self, shot: Shot) {
        let stem = self.stem(&shot);
        let (whose, store) = (self.door.whose.clone(), self.store.clone());
        spawn_blocking(move || {
            std::thread::sleep(AFTER_THE_MOVE);
            let bytes = whose.assemble(&shot);
            let store = store
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            match store.write(&stem, &bytes) {
                Ok(path) => {
                    tracing::info!(path = %path.display(), bytes = bytes.len(), "flight written");
                }
                Err(error) => tracing::warn!(%error, "the flight cannot be written"),
            }
        });
    }

    /// The aftermath goes where the first copy of its occasion went.
    fn stem(&mut self, shot: &Shot) -> String {
        if let Some((occasion, stem)) = &self.last
            && *occasion == shot.occasion
        {
            return stem.clone();
        }
        let stem = stem(&shot.occasion, unix_ns(shot.occasion.at));
        self.last = Some((shot.occasion, stem.clone()));
        stem
    }
}

impl Whose {
    fn assemble(&self, shot: &Shot) -> Vec<u8> {
        let header = Header {
            program: env!("CARGO_PKG_VERSION").into(),
            layout: super::layout(),
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            names: self.names.clone(),
            taken_at: shot.taken_at,
            taken_at_unix_ns: unix_ns(shot.taken_at),
            occasion: shot.occasion.kind.as_str().into(),
        };
        file::assemble(&header, &shot.entries)
    }
}

/// The wall clock at a moment of the boot clock, by what both say now.
fn unix_ns(at: BootTime) -> u64 {
    let ago = BootTime(pbx_guard::boot_now_ns()).since(at);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.saturating_sub(ago).as_nanos() as u64)
}

fn stem(occasion: &Occasion, unix_ns: u64) -> String {
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or(Timestamp::MIN);
    let time = time.to_zoned(TimeZone::UTC);
    let kind = occasion.kind.as_str();
    format!(
        "{}-epoch-{}-{kind}",
        time.strftime("%Y%m%dT%H%M%S.%3fZ"),
        occasion.epoch
    )
}

fn listen() -> Option<Signal> {
    signal(SignalKind::user_defined1())
        .inspect_err(|error| tracing::warn!(%error, "SIGUSR1 writes no flight"))
        .ok()
}

async fn next(signal: &mut Option<Signal>) {
    let is_open = match signal {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    };
    if !is_open {
        std::future::pending::<()>().await;
    }
}
