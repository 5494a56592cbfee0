//! One real node on a desk: its peers, guard and API are played by the test, message by message.

use std::time::Duration;

use pbx_core::{
    ApiAnswer, ApiCall, Body, BootTime, CallId, Condition, Effect, Epoch, FoundAtStart, GuardEvent,
    Incarnation, Input, MAX_NODES, Message, Node, Notice, Occupant, OnQuorumLoss, PeerCondition,
    Record, Seat, Seats, Settings, Start, Timing, View,
};

/// The node sits in seat 0; peer `n` is occupant `n` in its first life, 1.
pub struct Desk {
    /// The node.
    pub node: Node,
    /// Its clock.
    pub now: BootTime,
    /// Of the last input, or of all ticks since.
    pub effects: Vec<Effect>,
    /// The call that was asked for last.
    pub call: Option<CallId>,
}

/// Its first life.
pub const OWN: Incarnation = Incarnation(100);
/// The life of each peer.
pub const PEER: Incarnation = Incarnation(1);

impl Desk {
    /// A standby out of quarantine, from its record; its peers have just been heard. It is not ready.
    pub fn standby(nodes: u8) -> Self {
        let mut desk = Self::started(nodes, Some(record(nodes)), FoundAtStart::Nothing);
        for seat in 1..nodes {
            desk.hear(seat, Epoch(0), Body::Hello);
        }
        desk
    }

    /// The same, ready, under an active in seat 1 at epoch 5.
    pub fn hot_standby(nodes: u8) -> Self {
        let mut desk = Self::standby(nodes);
        desk.hear(1, Epoch(5), Body::Beat { is_active: true });
        desk.become_ready();
        desk
    }

    /// Asterisk is booted, the API answers.
    pub fn become_ready(&mut self) {
        let is_api_reachable = true;
        let condition = Condition {
            is_ready: true,
            is_api_reachable,
            rank: 0,
            is_held_back: false,
        };
        self.input(Input::Condition(condition));
    }

    /// An active of three, by the acks of both peers, with a confirmed deadline.
    pub fn active() -> Self {
        let mut desk = Self::bidding(3);
        let epoch = desk.view().epoch.expect("bids");
        let beat_sent_at = desk.now;
        desk.pass(1);
        desk.hear(1, epoch, Body::Ack { beat_sent_at });
        let deadline = desk.armed().expect("an order to arm");
        desk.hear(2, epoch, Body::Ack { beat_sent_at });
        desk.input(Input::Guard(GuardEvent::Armed { deadline }));
        desk
    }

    /// A candidate that has just sent its first beats.
    pub fn bidding(nodes: u8) -> Self {
        let mut desk = Self::standby(nodes);
        desk.become_ready();
        assert!(
            desk.view().epoch.is_some(),
            "nobody is better, so it bids at once"
        );
        desk
    }

    /// A node that has just started.
    pub fn started(nodes: u8, record: Option<Record>, guard: FoundAtStart) -> Self {
        let settings = Settings {
            seat: Seat(0),
            occupant: Occupant(0),
            nodes,
            timing: Timing::default(),
            traffic_needs_api: false,
            preferred_seat: None,
            on_quorum_loss: OnQuorumLoss::Demote,
            fixed_seats: None,
        };
        let now = BootTime(1_000_000_000_000);
        let mut effects = Vec::new();
        let start = Start {
            now,
            incarnation: OWN,
            record,
            guard,
        };
        let node = Node::new(settings, start, &mut effects);
        Self {
            node,
            now,
            effects,
            call: None,
        }
    }

    /// Lets time pass in ticks of a millisecond; the effects of all are kept.
    pub fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now = self.now.after(Duration::from_millis(1));
            self.node.step(self.now, Input::Tick, &mut self.effects);
            self.note_call();
        }
    }

    /// The API answers the call that was asked for last.
    pub fn answer(&mut self, answer: ApiAnswer) {
        let call = self.call.take().expect("a call was asked for");
        self.input(Input::Api { call, answer });
    }

    /// One input; the effects are its alone.
    pub fn input(&mut self, input: Input) {
        self.effects.clear();
        self.node.step(self.now, input, &mut self.effects);
        self.note_call();
    }

    fn note_call(&mut self) {
        for effect in &self.effects {
            if let Effect::Call { id, .. } = effect {
                self.call = Some(*id);
            }
        }
    }

    /// A message of a peer that stamps it now.
    pub fn hear(&mut self, from: u8, epoch: Epoch, body: Body) {
        let message = self.message(from, epoch, body);
        self.input(Input::Message(message));
    }

    /// A message of a peer whose clock shows the same.
    pub fn message(&self, from: u8, epoch: Epoch, body: Body) -> Message {
        Message {
            from: Seat(from),
            occupant: Occupant(from.into()),
            to: Seat(0),
            incarnation: PEER,
            to_incarnation: self.view().incarnation,
            epoch,
            sent_at: self.now,
            condition: PeerCondition {
                is_ready: true,
                is_api_reachable: true,
                rank: 0,
            },
            body,
        }
    }

    /// What it is and knows.
    pub fn view(&self) -> View {
        self.node.view(self.now)
    }

    /// What was sent to a peer.
    pub fn sent_to(&self, seat: u8) -> Vec<Body> {
        self.sent()
            .filter(|sent| sent.to == Seat(seat))
            .map(|sent| sent.body)
            .collect()
    }

    /// All that was sent.
    pub fn sent(&self) -> impl Iterator<Item = &Message> {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Send(message) => Some(message),
            _ => None,
        })
    }

    /// The deadline that was ordered last.
    pub fn armed(&self) -> Option<BootTime> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Arm { deadline } => Some(*deadline),
            _ => None,
        })
    }

    /// All notices.
    pub fn notices(&self) -> Vec<Notice> {
        let notice = |effect: &Effect| match effect {
            Effect::Notice(notice) => Some(*notice),
            _ => None,
        };
        self.effects.iter().filter_map(notice).collect()
    }

    /// All calls to the API.
    pub fn calls(&self) -> Vec<ApiCall> {
        let call = |effect: &Effect| match effect {
            Effect::Call { call, .. } => Some(*call),
            _ => None,
        };
        self.effects.iter().filter_map(call).collect()
    }
}

/// The map with everybody in their seats.
pub fn seats(nodes: u8) -> Seats {
    let mut occupants = [None; MAX_NODES];
    for (seat, occupant) in occupants.iter_mut().enumerate().take(nodes.into()) {
        *occupant = Some(Occupant(seat as u128));
    }
    Seats {
        count: nodes,
        occupants,
        requested: [false; MAX_NODES],
    }
}

/// The record of a standby.
pub fn record(nodes: u8) -> Record {
    Record {
        occupant: Occupant(0),
        incarnation: OWN,
        highest_epoch: Epoch(0),
        grant: None,
        bid: None,
        seats: Some(seats(nodes)),
        struck: [false; MAX_NODES],
        former: [None; MAX_NODES],
        has_left: false,
    }
}
