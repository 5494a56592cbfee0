//! The durable queue: each action is done once, or reported unknown.
//!
//! Reading order: `record.rs` (an action and its states), `desk.rs` (what goes next; pure), `store.rs` (the file), here the thread that
//! joins them: whatever has come while it wrote is written together, so a thousand actions cost a few commits.

mod desk;
mod record;
mod store;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use desk::Desk;
pub use record::{Arrival, Record, State, actions_in};
use store::Store;
pub use store::StoreError;

use crate::hub::Submission;
use crate::shell::{Handle, Told};

/// Orders of others that wait for the thread.
const ORDERS: usize = 256;
/// Orders in one transaction.
const BATCH: usize = 256;
/// Those who wait for an end.
const WAITERS_LIMIT: usize = 1024;

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Too many wait.
    #[error("the queue is full: wait for some actions to end")]
    Full,
    /// The file cannot be used.
    #[error("the queue is out of order: {0}")]
    OutOfOrder(String),
}

impl QueueError {
    /// A stable name for metrics and answers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full => "QueueFull",
            Self::OutOfOrder(_) => "QueueOutOfOrder",
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

enum Order {
    Arrive {
        arrivals: Vec<Arrival>,
        lane: Option<String>,
        reply: Reply<Vec<u64>>,
    },
    Get {
        id: u64,
        until_end: bool,
        reply: Reply<Option<Record>>,
    },
    Lane {
        lane: String,
        reply: Reply<Lane>,
    },
    Told(Told),
}

/// A handle to the queue.
#[derive(Clone, Debug)]
pub struct Queue {
    orders: mpsc::Sender<Order>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Order")
    }
}

impl Queue {
    /// Opens the file and starts the queue's thread, which feeds the hub.
    pub fn start(path: &Path, hub: Handle) -> Result<Self, StoreError> {
        let store = Store::open(path)?;
        let (desk, unknown) = Desk::load(store.all()?, now_ms());
        store.write(&unknown, &[])?;
        let (orders, inbox) = mpsc::channel(ORDERS);
        let worker = Worker {
            desk,
            is_ready: false,
            store,
            waiters: Vec::new(),
            replies: Vec::new(),
            submissions: hub.submissions,
        };
        let ends = orders.downgrade();
        let mut told = hub.told;
        spawn("ami-queue", move || worker.run(inbox))?;
        spawn("ami-queue-ends", move || {
            while let Some(told) = told.blocking_recv() {
                let Some(orders) = ends.upgrade() else {
                    return;
                };
                if orders.blocking_send(Order::Told(told)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders })
    }

    /// Takes actions in, all or none; they are on disk when it returns. Those of one lane are done one after the other.
    pub async fn arrive(
        &self,
        arrivals: Vec<Arrival>,
        lane: Option<String>,
    ) -> Result<Vec<u64>, QueueError> {
        self.order(|reply| Order::Arrive {
            arrivals,
            lane,
            reply,
        })
        .await
    }

    /// The record of an action; `until_end` waits until nothing more will happen to it.
    pub async fn get(&self, id: u64, until_end: bool) -> Result<Option<Record>, QueueError> {
        self.order(|reply| Order::Get {
            id,
            until_end,
            reply,
        })
        .await
    }

    /// How far a lane is; for a thread that may wait.
    pub fn lane(&self, lane: &str) -> Result<Lane, QueueError> {
        let lane = lane.to_owned();
        block(&self.orders, |reply| Order::Lane { lane, reply })
    }

    /// The same as [`Self::arrive`], for a thread that may wait.
    pub fn arrive_blocking(
        &self,
        arrivals: Vec<Arrival>,
        lane: Option<String>,
    ) -> Result<Vec<u64>, QueueError> {
        block(&self.orders, |reply| Order::Arrive {
            arrivals,
            lane,
            reply,
        })
    }

    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, QueueError> {
        let gone = || QueueError::OutOfOrder("its thread has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.orders
            .send(order(reply))
            .await
            .map_err(|_closed| gone())?;
        answer.await.map_err(|_closed| gone())?
    }
}

/// How far a lane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Nothing of it was ever taken in, or all of it is forgotten.
    Unknown,
    /// Something of it has not ended.
    Open,
    /// All its records, by number.
    Ended(Vec<Record>),
}

fn block<T>(
    orders: &mpsc::Sender<Order>,
    order: impl FnOnce(Reply<T>) -> Order,
) -> Result<T, QueueError> {
    let gone = || QueueError::OutOfOrder("its thread has ended".to_owned());
    let (reply, answer) = oneshot::channel();
    orders
        .blocking_send(order(reply))
        .map_err(|_closed| gone())?;
    answer.blocking_recv().map_err(|_closed| gone())?
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(StoreError::Thread)
}

struct Worker {
    desk: Desk,
    /// Whether there is an Asterisk that takes actions.
    is_ready: bool,
    store: Store,
    waiters: Vec<(u64, Reply<Option<Record>>)>,
    /// Given once their actions are on disk.
    replies: Vec<(Reply<Vec<u64>>, Vec<u64>)>,
    submissions: mpsc::Sender<Submission>,
}

impl Worker {
    fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        // What an earlier life left is sent before anybody asks.
        let mut batch = Vec::new();
        loop {
            for order in batch.drain(..) {
                self.carry_out(order);
            }
            if let Err(error) = self.settle() {
                tracing::error!(error = %error, "the AMI queue cannot be written: nothing more is taken or sent");
                return;
            }
            if inbox.blocking_recv_many(&mut batch, BATCH) == 0 {
                return;
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Arrive {
                arrivals,
                lane,
                reply,
            } => match self.desk.arrive(&arrivals, lane.as_deref(), now_ms()) {
                Some(ids) => self.replies.push((reply, ids)),
                None => answer(reply, Err(QueueError::Full)),
            },
            Order::Get {
                id,
                until_end,
                reply,
            } => self.look_up(id, until_end, reply),
            Order::Lane { lane, reply } => answer(reply, self.lane(&lane)),
            Order::Told(Told::Ready(is_ready)) => self.is_ready = is_ready,
            Order::Told(Told::Ended(outcomes)) => {
                for outcome in &outcomes {
                    self.desk.end(outcome, now_ms());
                }
            }
        }
    }

    fn lane(&self, lane: &str) -> Result<Lane, QueueError> {
        if self.desk.is_lane_open(lane) {
            return Ok(Lane::Open);
        }
        let all = self.store.all();
        let mut records = all.map_err(|error| QueueError::OutOfOrder(error.to_string()))?;
        records.retain(|record| record.lane.as_deref() == Some(lane));
        Ok(if records.is_empty() {
            Lane::Unknown
        } else {
            Lane::Ended(records)
        })
    }

    fn look_up(&mut self, id: u64, until_end: bool, reply: Reply<Option<Record>>) {
        let open = self.desk.open(id);
        match open {
            Some(record) if !record.state.is_final() && until_end => {
                self.waiters.retain(|(_, reply)| !reply.is_closed());
                if self.waiters.len() < WAITERS_LIMIT {
                    self.waiters.push((id, reply));
                } else {
                    answer(reply, Ok(Some(record.clone())));
                }
            }
            Some(record) => answer(reply, Ok(Some(record.clone()))),
            None => {
                let found = self.store.get(id);
                let found = found.map_err(|error| QueueError::OutOfOrder(error.to_string()));
                answer(reply, found);
            }
        }
    }

    /// To disk first; then to the hub, and to whoever waits.
    fn settle(&mut self) -> Result<(), StoreError> {
        let changes = self.desk.settle(self.is_ready, now_ms());
        if !changes.records.is_empty() || !changes.forgotten.is_empty() {
            self.store.write(&changes.records, &changes.forgotten)?;
        }
        for (reply, ids) in self.replies.drain(..) {
            answer(reply, Ok(ids));
        }
        for submission in changes.submissions {
            // A hub that has ended takes the process with it.
            self.submissions.blocking_send(submission).ok();
        }
        for record in changes
            .records
            .iter()
            .filter(|record| record.state.is_final())
        {
            let waiting = self.waiters.extract_if(.., |(id, _)| *id == record.id);
            for (_, reply) in waiting {
                answer(reply, Ok(Some(record.clone())));
            }
        }
        Ok(())
    }
}

/// Whoever has given up hears nothing.
fn answer<T>(reply: Reply<T>, result: Result<T, QueueError>) {
    reply.send(result).ok();
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
