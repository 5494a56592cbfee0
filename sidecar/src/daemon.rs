//! The loop around the core, on a thread of its own: await one event, apply it, carry out all effects in order, repeat.
//!
//! One owner, no locks. Nothing here waits for the API server, for Asterisk or for a client: calls, notices and what peers tell
//! of their ledgers go to the services' thread through bounded queues, and come back as inputs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pbx_core::{
    ApiCall, Body, BootTime, CallId, Cause, Command, Effect, FoundAtStart, Input, Message, Node,
    Notice, Role, Seat, Seats, Start, View,
};
use pbx_guard::protocol::Event;
use tokio::sync::{mpsc, oneshot, watch};

use crate::alarm;
use crate::boot_timer::BootTimer;
use crate::config::{self, Checked};
use crate::guard::{Driver, GuardLink, GuardNote, LinkEvent, Order, first_state, found};
use crate::host::gate::FenceGate;
use crate::metrics::Metrics;
use crate::peer::network::Addresses;
use crate::peer::network::Arrival;
use crate::peer::seal::MAX_DATAGRAM_BYTES;
use crate::peer::{LinkViews, Network, Payload};
use crate::record::RecordStore;
use crate::recorder::entry::Mark;
use crate::recorder::{Recorder, Shot};

/// What a sidecar that starts waits for a guard that is there but does not answer, beyond deadtime: by then the kernel has
/// ended whatever served under an older deadline, even if the guard itself is frozen.
const GUARD_PATIENCE: Duration = Duration::from_millis(500);

/// What the services ask of the loop.
#[derive(Debug)]
pub enum ToCore {
    /// An input of the core.
    Input(Box<Input>),
    /// Start Asterisk without a deadline: a standby's.
    StartSlack,
    /// End a standby's Asterisk, which does not answer or has to read its files anew.
    StopSlack,
    /// Hand over; the calls of this node may end in peace until then.
    Drain {
        /// The heir; none: the best.
        to: Option<Seat>,
        /// What history says.
        cause: Cause,
        /// The kernel ends what is left of the calls.
        until: BootTime,
    },
    /// Asterisk takes no new work any more, or could not be made to.
    Closed(bool),
    /// A peer's address, read from its pod.
    PeerAddress(Seat, SocketAddr),
    /// Tell a peer parts of the ledger.
    SendLedger(Seat, Vec<Vec<u8>>),
    /// The fence lets the service pass until then.
    Fenced(BootTime),
    /// End the PBX container.
    EndGuard,
    /// Keep a moment of the services in the flight recorder.
    Mark(BootTime, Mark),
    /// A copy of the flight recorder; none, if one was taken just before.
    TakeFlight(oneshot::Sender<Option<Shot>>),
}

/// What the loop asks of the services.
#[derive(Debug)]
pub enum FromCore {
    /// The core calls the API.
    Call(CallId, Box<ApiCall>),
    /// The core tells what happened.
    Notice(Notice),
    /// Close Asterisk to new work, and answer with [`ToCore::Closed`].
    Close,
    /// The guard tells what happened.
    Guard(GuardNote),
    /// A peer told a part of its ledger.
    Ledger(Vec<u8>),
    /// A peer's ledger differs from ours.
    LedgerDiffers(Seat),
}

/// What the doors see of the core: published when it changes, not with every beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreView {
    /// The core has started: before it, nothing here means anything.
    pub has_started: bool,
    /// The node's role.
    pub role: Role,
    /// Of an active, the epoch it serves under; else the highest seen.
    pub epoch: u64,
    /// Who serves.
    pub active: Option<Seat>,
    /// Whether it counts on the witness.
    pub holds_witness: bool,
    /// It serves without a quorum (`onQuorumLoss: Continue`).
    pub is_without_quorum: bool,
    /// Whether each peer is heard.
    pub is_peer_up: [bool; pbx_core::MAX_NODES],
    /// Whether each peer is heard, and says that it could take over.
    pub is_peer_ready: [bool; pbx_core::MAX_NODES],
    /// What each said of its health last: a level as a number.
    pub peer_ranks: [u8; pbx_core::MAX_NODES],
    /// Whether each peer was ever heard.
    pub is_peer_known: [bool; pbx_core::MAX_NODES],
    /// How the links to each peer are.
    pub links: LinkViews,
    /// The seat map that the core goes by; none before it sits in its seat.
    pub seats: Option<Seats>,
    /// Where each peer was heard last, by link.
    pub addresses: Addresses,
}

/// The ends of the queues that the loop holds.
pub struct Channels {
    /// What the services ask.
    pub inbox: mpsc::Receiver<ToCore>,
    /// What the services are asked.
    pub outbox: mpsc::Sender<FromCore>,
    /// What the doors see.
    pub view: watch::Sender<CoreView>,
    /// Copies of the flight recorder, to be written.
    pub shots: mpsc::Sender<Shot>,
}

/// The loop.
pub struct Daemon {
    node: Node,
    driver: Driver,
    link: GuardLink,
    gate: FenceGate,
    network: Network,
    timer: BootTimer,
    records: RecordStore,
    channels: Channels,
    metrics: Metrics,
    recorder: Recorder,
    silence: Duration,
    work: Work,
    /// Of the switchover that is being asked for in this step: its stop is a drain.
    drain_until: Option<BootTime>,
}

/// Reused buffers: what is still to be done within the present step.
#[derive(Default)]
struct Work {
    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    orders: Vec<Order>,
}

/// Lives on the stack between two awaits: boxing the request would cost an allocation and save nothing.
enum Happened {
    Datagram(Arrival),
    Guard(LinkEvent),
    Asked(ToCore),
    Tick,
    ServicesGone,
}

impl Daemon {
    /// Binds the socket, asks the guard what runs, and starts the core from its record.
    pub async fn start(
        checked: &Checked,
        records: RecordStore,
        metrics: Metrics,
        channels: Channels,
        gate: FenceGate,
    ) -> anyhow::Result<Self> {
        let settings = checked.settings;
        alarm::set_beat(settings.timing.calm_keepalive());
        let network = Network::bind(checked, metrics.clone())?;
        let mut link = GuardLink::new(checked.file.asterisk.guard_socket.clone());
        let first = first_state(&mut link, settings.timing.deadtime + GUARD_PATIENCE).await;
        let mut work = Work::default();
        let start = Start {
            now: now(),
            incarnation: config::new_incarnation(),
            record: records.read_record().filter(|record| {
                // Without an API server the seats are the file's: who left comes back, after its quarantine.
                !record.has_left || settings.fixed_seats.is_none()
            }),
            guard: first.map_or(FoundAtStart::Nothing, |event| found(&event)),
        };
        tracing::info!(seat = settings.seat.0, has_record = start.record.is_some(), found = ?start.guard, "core starts");
        let node = Node::new(settings, start, &mut work.effects);
        let recorder = Recorder::new(&settings, &start, &work.effects, &node);
        let mut daemon = Self {
            node,
            driver: Driver::default(),
            link,
            gate,
            network,
            timer: BootTimer::new()?,
            records,
            channels,
            metrics,
            recorder,
            silence: settings.timing.silence(),
            work,
            drain_until: None,
        };
        if let Some(event) = first {
            daemon
                .driver
                .on_event(now(), event, &mut daemon.work.orders);
        }
        daemon.carry_out(now());
        Ok(daemon)
    }

    /// Runs until the services are gone.
    pub async fn run(mut self) {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES + 1];
        loop {
            let happened = self.wait(&mut buffer).await;
            let now = now();
            match happened {
                Happened::Datagram(arrival) => self.on_datagram(now, arrival, &mut buffer),
                Happened::Guard(LinkEvent::Event(event)) => {
                    self.mark_event(now, &event);
                    self.driver.on_event(now, event, &mut self.work.orders);
                }
                Happened::Guard(LinkEvent::Lost) => self.driver.on_lost(),
                Happened::Asked(asked) => self.on_asked(asked),
                Happened::Tick => {
                    self.driver.on_tick(now, &mut self.work.orders);
                    self.work.inputs.push_back(Input::Tick);
                }
                Happened::ServicesGone => return,
            }
            self.carry_out(now);
            self.drain_until = None;
            self.publish(now);
            self.keep_flight(now);
            self.metrics.last_step_at_ns.store(now.0, Ordering::Relaxed);
        }
    }

    async fn wait(&mut self, buffer: &mut [u8]) -> Happened {
        let deadline = self.node.next_deadline().min(self.recorder.next_deadline());
        let deadline = self
            .driver
            .next_deadline()
            .map_or(deadline, |due| due.min(deadline));
        tokio::select! {
            biased;
            event = self.link.next() => Happened::Guard(event),
            // An error is that of an earlier send; the peer's silence says the rest.
            received = self.network.receive(buffer) => received.map_or(Happened::Tick, Happened::Datagram),
            asked = self.channels.inbox.recv() => asked.map_or(Happened::ServicesGone, Happened::Asked),
            () = self.timer.until(deadline) => Happened::Tick,
        }
    }

    fn on_datagram(&mut self, now: BootTime, arrival: Arrival, buffer: &mut [u8]) {
        let Some((seat, payload)) = self.network.open(now, arrival, buffer) else {
            return;
        };
        match payload {
            Payload::Core {
                message,
                ledger_digest,
                ..
            } => {
                if ledger_digest != self.metrics.ledger_digest.load(Ordering::Relaxed) {
                    self.tell(FromCore::LedgerDiffers(seat));
                }
                self.work.inputs.push_back(Input::Message(message));
            }
            Payload::Ledger(json) => self.tell(FromCore::Ledger(json)),
        }
    }

    fn on_asked(&mut self, asked: ToCore) {
        match asked {
            ToCore::Input(input) => self.work.inputs.push_back(*input),
            ToCore::StartSlack => self.driver.start_slack(&mut self.work.orders),
            ToCore::StopSlack => self.driver.stop_slack(&mut self.work.orders),
            ToCore::Drain { to, cause, until } => {
                self.drain_until = Some(until);
                let command = Input::Command(Command::Switchover { to, cause });
                self.work.inputs.push_back(command);
            }
            ToCore::Closed(is_closed) => self.driver.on_closed(is_closed, &mut self.work.orders),
            ToCore::PeerAddress(seat, address) => self.network.note(seat, address),
            ToCore::SendLedger(seat, parts) => {
                for part in &parts {
                    self.network.send_ledger(seat, part);
                }
            }
            ToCore::Fenced(deadline) => {
                let event = self.gate.on_fence(deadline).map(Input::Guard);
                self.work.inputs.extend(event);
            }
            ToCore::EndGuard => Driver::exit(&mut self.work.orders),
            ToCore::Mark(at, mark) => self.recorder.on_mark(at, mark, &self.node),
            // Who asked may have gone: then nobody wants it.
            ToCore::TakeFlight(reply) => drop(reply.send(self.recorder.on_asked(now()))),
        }
    }

    /// Until nothing is left to do: effects before orders before inputs, so that the order within a step is kept.
    fn carry_out(&mut self, now: BootTime) {
        loop {
            if !self.work.effects.is_empty() {
                let mut effects = std::mem::take(&mut self.work.effects);
                for effect in effects.drain(..) {
                    self.on_effect(now, &effect);
                }
                // Keeps the buffer: a beat allocates nothing.
                self.work.effects = effects;
            } else if !self.work.orders.is_empty() {
                let mut orders = std::mem::take(&mut self.work.orders);
                for order in orders.drain(..) {
                    self.on_order(order);
                }
                self.work.orders = orders;
            } else if let Some(input) = self.work.inputs.pop_front() {
                self.node.step(now, input, &mut self.work.effects);
                let effects = &self.work.effects;
                self.recorder.on_step(now, &input, effects, &self.node);
            } else {
                return;
            }
        }
    }

    fn on_effect(&mut self, now: BootTime, effect: &Effect) {
        let event = self.gate.on_effect(effect).map(Input::Guard);
        self.work.inputs.extend(event);
        match effect {
            Effect::Record(record) => self.write_record(record),
            Effect::Send(message) => self.send(now, message),
            Effect::Call { id, call } => self.tell(FromCore::Call(*id, Box::new(*call))),
            Effect::Arm { deadline } | Effect::RestartInPlace { deadline } => {
                let mut orders = std::mem::take(&mut self.work.orders);
                self.driver.arm(now, *deadline, &mut orders);
                self.work.orders = orders;
            }
            Effect::Stop => self.on_stop(),
            Effect::Notice(notice) => {
                tracing::info!(?notice, boot_ns = now.0, "core");
                self.tell(FromCore::Notice(*notice));
            }
        }
    }

    fn on_stop(&mut self) {
        match self.drain_until.take() {
            Some(until) => {
                if self.driver.drain(until, &mut self.work.orders) {
                    self.tell(FromCore::Close);
                }
            }
            None => self.driver.stop(&mut self.work.orders),
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Send(command) => self.link.send(command),
            Order::Core(event) => {
                let event = self.gate.on_guard(event).map(Input::Guard);
                self.work.inputs.extend(event);
            }
            Order::Note(note) => self.tell(FromCore::Guard(note)),
        }
    }

    /// Without its record a restarted node waits in quarantine, so a failed write costs time and never safety of others;
    /// but R7 wants it before the grant leaves: better no node than one that forgets its vote.
    fn write_record(&self, record: &pbx_core::Record) {
        if let Err(error) = self.records.write_record(record) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the record cannot be written: the sidecar ends"
            );
            std::process::exit(1);
        }
    }

    fn send(&mut self, now: BootTime, message: &Message) {
        // Read before it leaves: on one machine it has arrived before the call returns.
        let leaves_at = matches!(message.body, Body::Handover { .. }).then(self::now);
        self.network.send(now, message);
        alarm::note_sent(now);
        if let Some(at) = leaves_at {
            let mark = Mark::HandoverSent { to: message.to };
            self.recorder.on_mark(at, mark, &self.node);
        }
    }

    fn mark_event(&mut self, now: BootTime, event: &Event) {
        let (at, mark) = match event {
            Event::Doomed { at_ns, .. } => (BootTime(*at_ns), Mark::EndSeen),
            Event::Exited { at_ns, .. } => (BootTime(*at_ns), Mark::AsteriskGone),
            Event::Started { .. } => (now, Mark::AsteriskStarted),
            _ => return,
        };
        self.recorder.on_mark(at, mark, &self.node);
    }

    /// After the effects: whoever takes over does not wait for a copy.
    fn keep_flight(&mut self, now: BootTime) {
        if let Some(shot) = self.recorder.due(now)
            && self.channels.shots.try_send(shot).is_err()
        {
            self.metrics.queue_full.inc();
        }
    }

    fn tell(&self, what: FromCore) {
        if self.channels.outbox.try_send(what).is_err() {
            self.metrics.queue_full.inc();
        }
    }

    fn publish(&self, now: BootTime) {
        let links = self.network.views(now);
        let view = CoreView {
            addresses: self.network.addresses(),
            ..core_view(&self.node.view(now), now, self.silence, links)
        };
        self.channels.view.send_if_modified(|known| {
            let is_new = *known != view;
            *known = view;
            is_new
        });
    }
}

/// What the doors see of a core that has not started.
pub fn view_before_start() -> CoreView {
    CoreView {
        has_started: false,
        role: Role::Quarantined,
        epoch: 0,
        active: None,
        holds_witness: false,
        is_without_quorum: false,
        is_peer_up: [false; pbx_core::MAX_NODES],
        is_peer_ready: [false; pbx_core::MAX_NODES],
        peer_ranks: [0; pbx_core::MAX_NODES],
        is_peer_known: [false; pbx_core::MAX_NODES],
        links: LinkViews::default(),
        seats: None,
        addresses: Addresses::default(),
    }
}

fn core_view(view: &View, now: BootTime, silence: Duration, links: LinkViews) -> CoreView {
    CoreView {
        has_started: true,
        role: view.role,
        epoch: view.epoch.unwrap_or(view.highest_epoch).0,
        active: view.active.map(|(seat, _)| seat),
        holds_witness: view.holds_witness,
        is_without_quorum: view.is_without_quorum,
        is_peer_up: view.peers.map(|peer| {
            peer.heard_at
                .is_some_and(|heard_at| now.since(heard_at) < silence)
        }),
        is_peer_ready: view.peers.map(|peer| {
            let is_fresh = |heard_at| now.since(heard_at) < silence;
            peer.condition.is_ready && !peer.is_leaving && peer.heard_at.is_some_and(is_fresh)
        }),
        peer_ranks: view.peers.map(|peer| peer.condition.rank),
        is_peer_known: view.peers.map(|peer| peer.heard_at.is_some()),
        links,
        seats: view.seats,
        addresses: Addresses::default(),
    }
}

fn now() -> BootTime {
    BootTime(pbx_guard::boot_now_ns())
}
