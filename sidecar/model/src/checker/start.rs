//! The first state of an exploration: reached by the code itself, in a world without faults.

use pbx_core::{
    Epoch, Holder, Incarnation, LeaseContent, LeaseView, MAX_NODES, Occupant, Record, Seat, Seats,
};

use super::pod::{Cell, Pod};
use super::scenario::{From, Scenario};
use super::state::{State, Used};
use super::{Action, Process};

/// Longer than it takes to be alone for five T, and to renew for long.
const MOST_STEPS: usize = 60;

impl Scenario {
    /// Somebody in seat 0 serves, all others are as the scenario says; nothing is on its way.
    pub(super) fn first_state(&self) -> State {
        let mut state = self.seated();
        self.run_until(&mut state, |state| {
            let is_free = |lease: LeaseView| lease.content.holder == Holder::Nobody;
            state.pods[0].process.is_serving() && state.lease.is_some_and(is_free)
        });
        if self.from == From::Alone {
            for index in 1..state.pods.len() {
                Self::crash(&mut state, index);
            }
            let hold = self.timing.witness_hold_alone;
            self.run_until(&mut state, |state| {
                state.lease.is_some_and(|lease| lease.content.hold == hold)
            });
            for index in 1..state.pods.len() {
                self.start(&mut state, index, false);
            }
        }
        state.letters.clear();
        state.used = Used::default();
        state
    }

    /// The highest epoch that is explored.
    pub(super) fn last_epoch(&self) -> u64 {
        // The first promotion is to a seat's second in a world without faults, at most.
        (2 + self.most_raises) * MAX_NODES as u64
    }

    fn run_until(&self, state: &mut State, is_done: impl Fn(&State) -> bool) {
        for _ in 0..MOST_STEPS {
            self.calm_down(state);
            if is_done(state) {
                return;
            }
            self.happen(state, Action::Advance);
        }
        panic!("{}: the first state is not reached: {state:#?}", self.name);
    }

    /// All that can arrive does.
    fn calm_down(&self, state: &mut State) {
        loop {
            let to_boot = state.pods.iter().position(|pod| Self::may_boot(pod));
            let to_act = state.pods.iter().position(|pod| !pod.orders.is_empty());
            let action = if let Some(pod) = to_act {
                Action::GuardActs { pod }
            } else if !state.calls.is_empty() {
                Action::Answer { call: 0 }
            } else if !state.letters.is_empty() {
                Action::Deliver { letter: 0 }
            } else if let Some(pod) = to_boot {
                Action::Boot { pod }
            } else {
                return;
            };
            self.happen(state, action);
        }
    }

    /// Everybody in its seat, out of quarantine, with a running standby's Asterisk.
    fn seated(&self) -> State {
        let mut occupants = [None; MAX_NODES];
        for seat in 0..self.nodes {
            occupants[usize::from(seat)] = Some(Occupant(1_000 + u128::from(seat)));
        }
        let seats = Seats {
            count: self.nodes,
            occupants,
            requested: [false; MAX_NODES],
        };
        let content = LeaseContent {
            holder: Holder::Nobody,
            epoch: Epoch(0),
            hold: self.timing.witness_hold,
            seats,
        };
        let mut state = State {
            pods: Vec::new(),
            letters: Vec::new(),
            lease: Some(LeaseView {
                uid: 1,
                version: 1,
                content,
            }),
            calls: Vec::new(),
            used: Used::default(),
            is_broken: false,
            is_deaf: false,
        };
        for seat in 0..self.nodes {
            let mut pod = Pod::new(Seat(seat), Occupant(1_000 + u128::from(seat)));
            pod.record = Some(record(&pod, seats));
            pod.process = Process::Slack;
            state.pods.push(Cell::new(pod));
            self.start(&mut state, usize::from(seat), true);
        }
        state
    }
}

fn record(pod: &Pod, seats: Seats) -> Record {
    Record {
        occupant: pod.occupant,
        incarnation: Incarnation(1),
        highest_epoch: Epoch(0),
        grant: None,
        bid: None,
        seats: Some(seats),
        struck: [false; MAX_NODES],
        former: [None; MAX_NODES],
        has_left: false,
    }
}
