//! The sockets around the hub, all on one thread: what they carry goes through [`Hub`] and nowhere else.
//!
//! Reading order: here the one place where the hub is touched; `client.rs` (a client's socket), `link.rs` (Asterisk's),
//! `listen.rs` (who is let in), `start.rs` (the thread).

mod client;
mod link;
mod listen;
mod start;

use std::cell::RefCell;
use std::task::Waker;
use std::time::Instant;

use tokio::sync::{Notify, mpsc};

pub use link::{Connection, Connector, Route, Stream, TcpConnector};
pub use listen::BindError;
pub use start::{Handle, StartError, start};

use crate::hub::{Hub, Outcome, SessionId};

/// What the queue is told.
#[derive(Debug)]
pub enum Told {
    /// Actions have ended.
    Ended(Vec<Outcome>),
    /// Whether there is an Asterisk that takes actions.
    Ready(bool),
}

/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// The hub, and who sleeps until it has something for them.
pub(crate) struct Shared {
    hub: RefCell<Hub>,
    clients: RefCell<Vec<Option<Waker>>>,
    link: RefCell<Option<Waker>>,
    dirty: RefCell<Vec<SessionId>>,
    scratch: RefCell<Vec<u8>>,
    deadline_moved: Notify,
    /// Bounded by what the queue has under way, and by the pace of connections.
    told: mpsc::UnboundedSender<Told>,
}

impl Shared {
    pub(crate) fn new(hub: Hub, told: mpsc::UnboundedSender<Told>) -> Self {
        Self {
            hub: RefCell::new(hub),
            clients: RefCell::default(),
            link: RefCell::default(),
            dirty: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES]),
            deadline_moved: Notify::new(),
            told,
        }
    }

    /// Gives the hub an input, and wakes whoever has to act on it.
    pub(crate) fn apply<T>(&self, input: impl FnOnce(&mut Hub, Instant) -> T) -> T {
        let now = Instant::now();
        let mut hub = self.hub.borrow_mut();
        let (deadline, was_ready) = (hub.next_deadline(), hub.is_ready());
        let result = input(&mut hub, now);
        let mut dirty = self.dirty.borrow_mut();
        hub.take_dirty(now, &mut dirty);
        let mut clients = self.clients.borrow_mut();
        for id in dirty.drain(..) {
            if let Some(waker) = clients.get_mut(id.place()).and_then(Option::take) {
                waker.wake();
            }
        }
        if (!hub.upstream_unsent().is_empty() || hub.upstream_fault().is_some())
            && let Some(waker) = self.link.borrow_mut().take()
        {
            waker.wake();
        }
        let outcomes = hub.take_outcomes();
        if !outcomes.is_empty() {
            // Nobody listens when the queue is off, and then nothing is submitted.
            self.told.send(Told::Ended(outcomes)).ok();
        }
        if hub.is_ready() != was_ready {
            self.told.send(Told::Ready(!was_ready)).ok();
        }
        if hub.next_deadline() < deadline {
            self.deadline_moved.notify_one();
        }
        result
    }

    fn sleep_of(&self, id: SessionId, waker: &Waker) {
        let mut clients = self.clients.borrow_mut();
        if clients.len() <= id.place() {
            clients.resize(id.place() + 1, None);
        }
        keep(&mut clients[id.place()], waker);
    }

    fn sleep_of_link(&self, waker: &Waker) {
        keep(&mut self.link.borrow_mut(), waker);
    }

    /// Lets the hub know of the passing of time, for as long as it is polled.
    pub(crate) async fn keep_time(&self) {
        loop {
            let deadline = self.hub.borrow().next_deadline();
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => self.apply(Hub::tick),
                () = self.deadline_moved.notified() => {}
            }
        }
    }
}

fn keep(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(kept) if kept.will_wake(waker) => {}
        place => *place = Some(waker.clone()),
    }
}
