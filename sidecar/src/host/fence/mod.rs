//! The fence: nothing passes to or from a floating address unless the kernel's own timeouts say that authority lasts.
//!
//! Reading order: [`ruleset`] (the rules), [`lease`] (when it may be opened, and until when), [`wire`] and [`kernel`] (how the
//! kernel is told), this file (the thread). It has a thread of its own because nftables is one lock for the whole network
//! namespace: somebody who loads a large rule set must not hold up a heartbeat.
//!
//! What is left out: who may be active, and until when. The core says that, as deadlines.

mod kernel;
mod lease;
mod ruleset;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use pbx_core::BootTime;
use prometheus_client::metrics::counter::Counter;
use thiserror::Error;

pub use self::kernel::FenceError;
use self::kernel::Kernel;
use self::lease::{Lease, Slot};
use super::plan::Plan;
use crate::metrics::Metrics;

/// A rule set that somebody else changed is noticed within this time.
const CHECK_EVERY: Duration = Duration::from_millis(700);
/// A refresh that was late is tried again with a fresh clock, so often.
const TRIES: u32 = 3;
const QUEUE: usize = 64;

/// What the core's loop wants of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Let the service pass until then, and say that it does.
    Open {
        /// The kernel ends it then.
        deadline: BootTime,
        /// Whoever asked waits for the answer.
        must_tell: bool,
    },
    /// Let nothing pass.
    Close,
}

impl Order {
    fn is_awaited(self) -> bool {
        matches!(
            self,
            Self::Open {
                must_tell: true,
                ..
            }
        )
    }
}

/// What the fence tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceEvent {
    /// Service may pass until then; the kernel ends it.
    Standing(BootTime),
    /// The rules are there as they should be.
    Sound,
    /// The rules are not there, and could not be loaded: a stable reason, and what is wrong.
    Broken {
        /// Stable, `CamelCase`.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
}

/// Orders the fence about; never waits for it.
#[derive(Clone, Debug)]
pub struct FenceHandle {
    orders: SyncSender<Order>,
    standing_ns: Arc<AtomicU64>,
    queue_full: Counter,
}

impl FenceHandle {
    /// Lets the service pass until `deadline`. [`FenceEvent::Standing`] confirms it if it `must_tell`.
    pub fn open(&self, deadline: BootTime, must_tell: bool) {
        self.send(Order::Open {
            deadline,
            must_tell,
        });
    }

    /// Lets nothing pass.
    pub fn close(&self) {
        self.send(Order::Close);
    }

    /// The deadline that the kernel was given last, told or not. What was closed since may still be it.
    pub fn standing(&self) -> BootTime {
        BootTime(self.standing_ns.load(Ordering::Acquire))
    }

    /// A lost order costs availability only: what was open ends by the kernel's clock.
    fn send(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            self.queue_full.inc();
        }
    }
}

#[cfg(test)]
impl FenceHandle {
    /// As if the kernel had been given this deadline.
    pub fn stand(&self, deadline: BootTime) {
        self.standing_ns.store(deadline.0, Ordering::Release);
    }

    /// Whose orders nobody carries out.
    pub fn to_nowhere() -> Self {
        Self {
            orders: sync_channel(QUEUE).0,
            standing_ns: Arc::default(),
            queue_full: Counter::default(),
        }
    }
}

/// The thread could not be started.
#[derive(Debug, Error)]
#[error("cannot start the thread of the fence")]
pub struct StartError(#[from] std::io::Error);

/// Starts the thread, which loads the rules at once and keeps them. `tell` is called from it and must not block.
pub fn start(
    plan: &Plan,
    metrics: Metrics,
    tell: impl Fn(FenceEvent) + Send + 'static,
) -> Result<FenceHandle, StartError> {
    let (orders, inbox) = sync_channel(QUEUE);
    let queue_full = metrics.queue_full.clone();
    let standing_ns = Arc::<AtomicU64>::default();
    let keeper = Keeper {
        standing_ns: standing_ns.clone(),
        rules: ruleset::rules(plan),
        table: plan.table.clone(),
        loaded: None,
        wanted: None,
        said: None,
        metrics,
        tell: Box::new(tell),
    };
    std::thread::Builder::new()
        .name("fence".into())
        .spawn(move || {
            pbx_guard::schedule::run_ahead();
            keeper.run(&inbox);
        })?;
    Ok(FenceHandle {
        orders,
        standing_ns,
        queue_full,
    })
}

/// Takes the rules away: for a node that has left, and whose addresses are gone.
pub fn remove(plan: &Plan) -> Result<(), FenceError> {
    kernel::load(&ruleset::removal(plan))
}

/// What runs on the thread.
struct Keeper {
    rules: String,
    table: String,
    loaded: Option<Loaded>,
    /// The latest deadline ordered, until it is closed: what a mended fence is opened with again.
    wanted: Option<BootTime>,
    /// What was told last, so that each thing is told once.
    said: Option<FenceEvent>,
    /// What [`FenceHandle::standing`] reads.
    standing_ns: Arc<AtomicU64>,
    metrics: Metrics,
    tell: Box<dyn Fn(FenceEvent) + Send>,
}

struct Loaded {
    kernel: Kernel,
    lease: Lease,
    fingerprint: Vec<u8>,
}

/// What became of an attempt to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    /// It is open until the deadline.
    Done,
    /// The first phase took too long.
    Late,
    /// The deadline is near or past.
    Pointless,
}

impl Loaded {
    /// Both phases.
    fn refresh(&mut self, deadline: BootTime) -> Result<Refresh, FenceError> {
        let Some(fill) = self.lease.fill(now(), deadline) else {
            return Ok(Refresh::Pointless);
        };
        self.kernel.fill(fill)?;
        let Some(slot) = self.lease.point(now()) else {
            return Ok(Refresh::Late);
        };
        self.kernel.point(slot)?;
        self.lease.on_pointed(slot);
        Ok(Refresh::Done)
    }

    /// Whether the rules stand as they were loaded. While nobody changes any rules of this machine, one number says so.
    fn is_sound(&mut self) -> Result<bool, FenceError> {
        Ok(self.kernel.is_unchanged()? || self.kernel.fingerprint()? == self.fingerprint)
    }
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Order>) {
        self.check();
        let mut next_check = Instant::now() + CHECK_EVERY;
        loop {
            let wait = next_check.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(wait) {
                Ok(order) => {
                    if self.on_order(newest(order, inbox)) {
                        next_check = Instant::now() + CHECK_EVERY;
                    }
                    // Who is awake anyway looks a little early.
                    if next_check.saturating_duration_since(Instant::now()) < CHECK_EVERY / 2 {
                        self.check();
                        next_check = Instant::now() + CHECK_EVERY;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.check();
                    next_check = Instant::now() + CHECK_EVERY;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether the rules are known to stand by that.
    fn on_order(&mut self, order: Order) -> bool {
        let result = match order {
            Order::Open {
                deadline,
                must_tell,
            } => {
                self.wanted = Some(deadline);
                self.open(deadline, must_tell)
            }
            Order::Close => {
                self.wanted = None;
                let closed = self.loaded.as_mut().map(|loaded| loaded.kernel.close());
                closed.unwrap_or(Ok(())).map(|()| false)
            }
        };
        result.unwrap_or_else(|error| {
            self.on_changed(&error.to_string());
            false
        })
    }

    /// Opens it. A deadline that cannot be kept opens nothing, and is not confirmed. Whether the rules are known to stand by that.
    fn open(&mut self, deadline: BootTime, must_tell: bool) -> Result<bool, FenceError> {
        let Some(loaded) = &mut self.loaded else {
            return Ok(false);
        };
        for _ in 0..TRIES {
            let refresh = match loaded.refresh(deadline) {
                // Often others' rules were changed: these stand as they did, a moment ago.
                Err(FenceError::Overtaken) if loaded.is_sound()? => {
                    loaded.kernel.forget_generation();
                    continue;
                }
                refresh => refresh?,
            };
            if refresh == Refresh::Pointless {
                break;
            }
            if refresh == Refresh::Done {
                Metrics::count(&self.metrics.fence, "Refreshed");
                self.standing_ns.store(deadline.0, Ordering::Release);
                if must_tell {
                    (self.tell)(FenceEvent::Standing(deadline));
                }
                return Ok(loaded.kernel.knows_generation());
            }
            Metrics::count(&self.metrics.fence, "Late");
        }
        Ok(false)
    }

    /// Looks whether the rules stand as they were loaded; loads them if not.
    fn check(&mut self) {
        let changed = match &mut self.loaded {
            None => Some("not loaded yet".to_owned()),
            Some(loaded) => match loaded.is_sound() {
                Ok(true) => None,
                Ok(false) => Some("somebody changed its rules".to_owned()),
                Err(error) => Some(error.to_string()),
            },
        };
        if let Some(why) = changed {
            self.on_changed(&why);
        }
    }

    /// An emptied rule set lets everything pass: the rules come back closed, and are opened again for what is wanted.
    fn on_changed(&mut self, why: &str) {
        let was_loaded = self.loaded.take().is_some();
        match load(&self.rules, &self.table) {
            Ok(loaded) => {
                if was_loaded {
                    tracing::warn!(
                        why,
                        "the fence was changed by somebody else and is mended: keep other tools off its tables"
                    );
                    Metrics::count(&self.metrics.fence, "Mended");
                }
                self.loaded = Some(loaded);
                self.say(FenceEvent::Sound);
                if let Some(deadline) = self.wanted
                    && let Err(error) = self.open(deadline, true)
                {
                    self.on_broken(&error);
                }
            }
            Err(error) => self.on_broken(&error),
        }
    }

    fn on_broken(&mut self, error: &FenceError) {
        self.loaded = None;
        Metrics::count(&self.metrics.fence, "Broken");
        self.say(FenceEvent::Broken {
            reason: error.reason(),
            message: error.to_string(),
        });
    }

    fn say(&mut self, event: FenceEvent) {
        if self.said.as_ref() != Some(&event) {
            self.said = Some(event.clone());
            (self.tell)(event);
        }
    }
}

/// Loads the rules and takes over what stands in them.
fn load(rules: &str, table: &str) -> Result<Loaded, FenceError> {
    kernel::load(rules)?;
    let mut kernel = Kernel::open(table)?;
    let lease = Lease::new(kernel.pointer()?.unwrap_or(Slot::A));
    let fingerprint = kernel.fingerprint()?;
    Ok(Loaded {
        kernel,
        lease,
        fingerprint,
    })
}

/// A later order replaces an earlier one; after a stall only the last counts. Who waits for an answer gets that of the last.
fn newest(mut order: Order, inbox: &Receiver<Order>) -> Order {
    while let Ok(mut next) = inbox.try_recv() {
        if let Order::Open { must_tell, .. } = &mut next {
            *must_tell |= order.is_awaited();
        }
        order = next;
    }
    order
}

fn now() -> BootTime {
    BootTime(pbx_guard::boot_now_ns())
}

#[cfg(test)]
mod tests;
