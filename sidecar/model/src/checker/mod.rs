//! A model checker (stateright) of the very code: states hold clones of the real nodes.
//!
//! Time goes in steps of a quarter of T; between two steps everything that is on its way may arrive in any order, twice,
//! or never: loss, reordering and delay are what does *not* happen in time. A call to the API takes effect at once,
//! late, or never, and its answer may be lost. Stamps are kept relative to now ([`pbx_core::Rebase`]), so states repeat.

mod happen;
mod pod;
mod scenario;
mod start;
mod state;

use std::time::{Duration, Instant};

use pbx_core::{CallId, Input, Role, Seat};
use stateright::{Checker, HasDiscoveries, Model, Property};

pub use pod::{Cell, NOW, Order, Pod, Process};
pub use scenario::{From, NOTHING, SCENARIOS, Scenario, TIMING};
pub use state::{Call, Letter, State, Used};

/// One thing that happens. Numbers are places in the state's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the world's events")]
pub enum Action {
    Advance,
    Deliver { letter: usize },
    Duplicate { letter: usize },
    GuardActs { pod: usize },
    Hear { pod: usize },
    Answer { call: usize },
    LoseAnswer { call: usize },
    Boot { pod: usize },
    Die { pod: usize },
    Crash { pod: usize },
    Reboot { pod: usize },
    Restart { pod: usize, keeps_record: bool },
    Pause { pod: usize },
    StopClock { pod: usize },
    Resume { pod: usize },
    Switchover { pod: usize },
    Replace { seat: u8 },
    Leave { pod: usize },
    Resize,
    Look { pod: usize },
    NewLease,
}

/// At most one pod serves.
pub const ONE_SERVES: &str = "at most one serves";
/// No node breaks an invariant of its own.
pub const UNBROKEN: &str = "no node breaks";
/// Of two that serve, who hears that it is outranked stops at once (R15).
pub const HEEDED: &str = "who is outranked stops";
/// The check is not empty: the role moves.
pub const MOVES: &str = "another serves";

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Explored {
    /// States that were reached, again and again.
    pub states: usize,
    /// Different ones.
    pub unique: usize,
    /// The longest of the shortest paths.
    pub depth: usize,
    /// All states within the limits were seen.
    pub is_closed: bool,
    /// How to two serving, or to a broken node.
    pub violation: Option<String>,
    /// Another than the first was seen to serve.
    pub moves: bool,
}

/// Explores at most so many states, breadth first, so that a violation is shown on a shortest path.
pub fn explore(
    scenario: Scenario,
    most_states: usize,
    threads: usize,
    limit: Duration,
) -> Explored {
    let start = Instant::now();
    let checker = scenario
        .checker()
        .threads(threads)
        .target_state_count(most_states)
        .timeout(limit)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let discoveries = checker.discoveries();
    let violation = [ONE_SERVES, UNBROKEN, HEEDED].iter().find_map(|name| {
        let path = discoveries.get(name)?;
        let actions: Vec<String> = path
            .clone()
            .into_actions()
            .iter()
            .map(|action| format!("{action:?}"))
            .collect();
        Some(format!("not so: {name}\n  {}", actions.join("\n  ")))
    });
    Explored {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_closed: checker.state_count() < most_states
            && start.elapsed() < limit
            && violation.is_none(),
        violation,
        moves: discoveries.contains_key(MOVES),
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Advance);
        for (letter, it) in state.letters.iter().enumerate() {
            if state.pods[it.to].node.is_some() && !state.pods[it.to].is_paused {
                actions.push(Action::Deliver { letter });
                if state.used.duplicates < self.limits.duplicates {
                    actions.push(Action::Duplicate { letter });
                }
            }
        }
        for (call, it) in state.calls.iter().enumerate() {
            let is_paused = state.pods[it.pod].is_paused;
            if it.answer.is_none() || !is_paused {
                actions.push(Action::Answer { call });
            }
            if it.answer.is_none() && it.id != CallId(0) {
                actions.push(Action::LoseAnswer { call });
            }
        }
        for pod in 0..state.pods.len() {
            self.actions_of_pod(state, pod, actions);
        }
        self.faults_of_all(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.happen(&mut state, action);
        state.tidy();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_SERVES, |_, state: &State| state.serving() <= 1),
            Property::always(UNBROKEN, |_, state: &State| !state.is_broken),
            Property::always(HEEDED, |_, state: &State| !state.is_deaf),
            Property::sometimes(MOVES, |_, state: &State| {
                state.pods[1..].iter().any(|pod| pod.process.is_serving())
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        let epochs = state.pods.iter().filter_map(|pod| pod.node.as_ref());
        let highest = epochs.map(|node| node.view(NOW).highest_epoch.0).max();
        highest.unwrap_or_default() <= self.last_epoch()
    }
}

impl Scenario {
    fn actions_of_pod(&self, state: &State, pod: usize, actions: &mut Vec<Action>) {
        let (it, used, limits) = (&state.pods[pod], &state.used, &self.limits);
        if it.is_paused {
            return actions.push(Action::Resume { pod });
        }
        let Some(node) = &it.node else {
            return actions.push(Action::Reboot { pod });
        };
        let mut offer = |is_possible: bool, action: Action| {
            if is_possible {
                actions.push(action);
            }
        };
        offer(!it.orders.is_empty(), Action::GuardActs { pod });
        offer(!it.said.is_empty(), Action::Hear { pod });
        offer(Self::may_boot(it), Action::Boot { pod });
        let is_alive = it.process != Process::Dead;
        offer(is_alive && used.deaths < limits.deaths, Action::Die { pod });
        offer(used.crashes < limits.crashes, Action::Crash { pod });
        for (keeps_record, is_left) in [
            (true, used.restarts < limits.restarts),
            (false, used.amnesias < limits.amnesias),
        ] {
            offer(is_left, Action::Restart { pod, keeps_record });
        }
        offer(used.pauses < limits.pauses, Action::Pause { pod });
        offer(used.stops < limits.stops, Action::StopClock { pod });
        let is_active = node.view(NOW).role == Role::Active;
        offer(
            is_active && used.switchovers < limits.switchovers,
            Action::Switchover { pod },
        );
    }

    fn faults_of_all(&self, state: &State, actions: &mut Vec<Action>) {
        if state.used.replacements < self.limits.replacements {
            actions.extend((0..self.nodes).map(|seat| Action::Replace { seat }));
        }
        self.resizing(state, actions);
        if state.used.leases < self.limits.leases {
            actions.push(Action::NewLease);
        }
    }

    /// The last node leaves in order; the operator changes the number; a shell finds another map in the Lease.
    fn resizing(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(seats) = state.lease.map(|lease| lease.content.seats) else {
            return;
        };
        for (pod, it) in state.pods.iter().enumerate() {
            let view = it.node.as_ref().map(|node| node.view(NOW));
            let Some(view) = view.filter(|_| !it.is_paused) else {
                continue;
            };
            let is_last = it.seat.0 == 2 && seats.count == 3;
            let leaves = matches!(view.role, Role::Leaving | Role::Left);
            if is_last && !leaves && state.used.leaves < self.limits.leaves {
                actions.push(Action::Leave { pod });
            }
            if state.used.resizes > 0 && view.seats.is_some_and(|own| own.count != seats.count) {
                actions.push(Action::Look { pod });
            }
        }
        if state.used.resizes < self.limits.resizes && Self::may_resize(state) {
            actions.push(Action::Resize);
        }
    }

    pub(crate) fn happen(&self, state: &mut State, action: Action) {
        match action {
            Action::Advance => self.advance(state),
            Action::Deliver { letter } => {
                let letter = state.letters.remove(letter);
                let is_told = state.tells_of_rival(&letter);
                self.input(state, letter.to, Input::Message(letter.message));
                state.is_deaf |= is_told && state.goes_on(letter.to);
            }
            Action::Duplicate { letter } => {
                state.used.duplicates += 1;
                let Letter { to, message } = state.letters[letter].clone();
                self.input(state, to, Input::Message(message));
            }
            Action::GuardActs { pod } => self.guard_acts(state, pod),
            Action::Hear { pod } => self.hear(state, pod),
            Action::Answer { call } => self.answer_call(state, call, false),
            Action::LoseAnswer { call } => self.answer_call(state, call, true),
            Action::Boot { pod } => self.boot(state, pod),
            Action::Reboot { pod } => self.start(state, pod, false),
            Action::Look { pod } => self.look_at_seats(state, pod),
            Action::Resume { pod } => state.change(pod, |pod| {
                pod.is_paused = false;
                pod.is_stopped = false;
            }),
            fault => self.fault(state, fault),
        }
    }

    fn fault(&self, state: &mut State, fault: Action) {
        let used = &mut state.used;
        match fault {
            Action::Die { pod } => {
                used.deaths += 1;
                self.die(state, pod);
            }
            Action::Crash { pod } => {
                used.crashes += 1;
                Self::crash(state, pod);
            }
            Action::Restart { pod, keeps_record } => {
                used.restarts += u8::from(keeps_record);
                used.amnesias += u8::from(!keeps_record);
                self.start(state, pod, keeps_record);
            }
            Action::Pause { pod } => {
                used.pauses += 1;
                state.change(pod, |pod| pod.is_paused = true);
            }
            Action::StopClock { pod } => {
                used.stops += 1;
                self.stop_clock(state, pod);
            }
            Action::Switchover { pod } => {
                used.switchovers += 1;
                self.switch_over(state, pod);
            }
            Action::Replace { seat } => {
                used.replacements += 1;
                self.replace(state, Seat(seat));
            }
            Action::Leave { pod } => {
                used.leaves += 1;
                self.leave(state, pod);
            }
            Action::Resize => {
                used.resizes += 1;
                self.resize(state);
            }
            Action::NewLease => {
                used.leases += 1;
                self.make_lease(state);
            }
            _ => {}
        }
    }
}
