//! What each action does to the state: the node takes an input, and its effects are carried out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pbx_core::{
    ApiAnswer, ApiCall, CallId, Cause, Command, Condition, Effect, FoundAtStart, GuardEvent,
    Holder, Incarnation, Input, LeaseContent, LeaseView, LeaseWrite, Node, Occupant, Rebase, Role,
    Seat, Settings, Start, drop_rule, moved,
};
use pbx_guard::deadline::{Deadline, Verdict};

use super::pod::{Cell, NOW, Order, Pod, Process};
use super::scenario::{STEP, Scenario};
use super::state::{Call, State, Ticks};

impl Scenario {
    /// One input to a pod's node, and all that follows in no time.
    #[allow(
        clippy::large_types_passed_by_value,
        reason = "each is made for this call"
    )]
    pub(super) fn input(&self, state: &mut State, index: usize, input: Input) {
        let mut pod = Pod::clone(&state.pods[index]);
        let Some(node) = &mut pod.node else { return };
        let mut effects = Vec::new();
        drop_rule(self.without);
        let stepped = catch_unwind(AssertUnwindSafe(|| node.step(NOW, input, &mut effects)));
        state.is_broken |= stepped.is_err();
        self.carry_out(state, index, pod, effects);
    }

    /// A sidecar starts; its guard greets it with what runs.
    pub(super) fn start(&self, state: &mut State, index: usize, keeps_record: bool) {
        let mut pod = Pod::clone(&state.pods[index]);
        pod.record = pod.record.filter(|_| keeps_record);
        pod.is_ready = false;
        pod.orders.clear();
        pod.said.clear();
        let used = state.used;
        let lives = used.crashes + used.restarts + used.amnesias + used.replacements + used.resizes;
        let start = Start {
            now: NOW,
            incarnation: Incarnation(10 + u64::from(lives)),
            record: pod.record,
            guard: match pod.process {
                Process::Dead => FoundAtStart::Nothing,
                process => FoundAtStart::Running {
                    deadline: process.deadline(),
                },
            },
        };
        let settings = Settings {
            seat: pod.seat,
            occupant: pod.occupant,
            nodes: self.nodes.max(pod.seat.0 + 1),
            timing: self.timing,
            traffic_needs_api: false,
            preferred_seat: None,
            on_quorum_loss: self.on_quorum_loss,
            fixed_seats: None,
        };
        let mut effects = Vec::new();
        drop_rule(self.without);
        pod.node = Some(Node::new(settings, start, &mut effects));
        Self::give_calls_up(state, index);
        self.carry_out(state, index, pod, effects);
    }

    /// The machine stops.
    pub(super) fn crash(state: &mut State, index: usize) {
        state.change(index, |pod| {
            pod.node = None;
            pod.record = None;
            pod.process = Process::Dead;
            pod.is_ready = false;
            pod.orders.clear();
            pod.said.clear();
        });
        Self::give_calls_up(state, index);
    }

    /// Asterisk dies by itself.
    pub(super) fn die(&self, state: &mut State, index: usize) {
        state.change(index, |pod| {
            pod.process = Process::Dead;
            pod.said.push(GuardEvent::Exited { at: NOW });
        });
        self.hear_at_once(state, index);
    }

    /// Asterisk is fully booted: a standby's is started for it.
    pub(super) fn boot(&self, state: &mut State, index: usize) {
        state.change(index, |pod| {
            if pod.process == Process::Dead {
                pod.process = Process::Slack;
            }
        });
        self.tell_condition(state, index, true);
    }

    /// Whether there is anything left to boot for.
    pub(super) fn may_boot(pod: &Pod) -> bool {
        let is_there = |node: &Node| node.view(NOW).role != Role::Left;
        !pod.is_ready
            && pod.orders.is_empty()
            && pod.said.is_empty()
            && pod.node.as_ref().is_some_and(is_there)
    }

    /// The pod object is deleted by force, and a successor made; the old life goes on.
    pub(super) fn replace(&self, state: &mut State, seat: Seat) {
        let occupant = Occupant(1_000 + state.pods.len() as u128);
        state.pods.push(Cell::new(Pod::new(seat, occupant)));
        self.start(state, state.pods.len() - 1, false);
    }

    /// The Lease is lost and made anew, with the map that it had.
    pub(super) fn make_lease(&self, state: &mut State) {
        let Some(lost) = state.lease else { return };
        let content = LeaseContent {
            holder: Holder::Created,
            epoch: pbx_core::Epoch(0),
            hold: self.timing.witness_hold_alone,
            ..lost.content
        };
        state.lease = Some(LeaseView {
            uid: lost.uid + 1,
            version: lost.version + 1,
            content,
        });
    }

    /// A pod that is told to end; its seat is not filled again.
    pub(super) fn leave(&self, state: &mut State, index: usize) {
        self.input(state, index, Input::Command(Command::Leave));
    }

    pub(super) fn look_at_seats(&self, state: &mut State, index: usize) {
        self.input(state, index, Input::Command(Command::LookAtSeats));
    }

    /// R13: the number is raised over a free Lease, and lowered when the last seat is empty.
    pub(super) fn may_resize(state: &State) -> bool {
        let content = state.lease.map(|lease| lease.content);
        let is_over = |content: LeaseContent| {
            if content.seats.count.is_multiple_of(2) {
                content.holder == Holder::Nobody
            } else {
                content.seats.occupants[usize::from(content.seats.count) - 1].is_none()
            }
        };
        content.is_some_and(is_over)
    }

    /// The operator changes the number of seats; of more there is a new pod in the last one.
    pub(super) fn resize(&self, state: &mut State) {
        let Some(lease) = &mut state.lease else {
            return;
        };
        let seats = &mut lease.content.seats;
        lease.version += 1;
        if seats.count.is_multiple_of(2) {
            let seat = Seat(seats.count);
            seats.count += 1;
            self.replace(state, seat);
        } else {
            seats.count -= 1;
            seats.occupants[usize::from(seats.count)] = None;
        }
    }

    /// The guard takes its next order.
    pub(super) fn guard_acts(&self, state: &mut State, index: usize) {
        state.change(index, |pod| {
            if !pod.orders.is_empty() {
                let order = pod.orders.remove(0);
                self.obey(pod, order);
            }
        });
        self.hear_at_once(state, index);
    }

    /// A call takes effect; the answer arrives, waits for a paused node, or is lost.
    pub(super) fn answer_call(&self, state: &mut State, index: usize, is_lost: bool) {
        let call = state.calls.remove(index);
        if let Some(answer) = call.answer {
            return self.input(
                state,
                call.pod,
                Input::Api {
                    call: call.id,
                    answer,
                },
            );
        }
        let answer = apply(&mut state.lease, &call.call);
        if is_lost || call.id == CallId(0) {
            return;
        }
        if state.pods[call.pod].is_paused {
            let answer = Some(answer);
            state.calls.push(Call { answer, ..call });
        } else {
            self.input(
                state,
                call.pod,
                Input::Api {
                    call: call.id,
                    answer,
                },
            );
        }
    }

    /// The next thing that the guard said is heard.
    pub(super) fn hear(&self, state: &mut State, index: usize) {
        let mut next = None;
        state.change(index, |pod| {
            if !pod.said.is_empty() {
                next = Some(pod.said.remove(0));
            }
        });
        let Some(event) = next else { return };
        let is_end = matches!(event, GuardEvent::Exited { .. } | GuardEvent::Stopped);
        if is_end {
            // As the sidecar's driver does: what was ordered before concerns a run that is gone.
            state.change(index, |pod| pod.orders.clear());
        }
        self.input(state, index, Input::Guard(event));
        if is_end {
            self.tell_condition(state, index, false);
        }
    }

    pub(super) fn switch_over(&self, state: &mut State, index: usize) {
        let (to, cause) = (None, Cause::Switchover);
        self.input(
            state,
            index,
            Input::Command(Command::Switchover { to, cause }),
        );
    }

    /// All clocks go on by a step, whatever stands still; the kernel's timers fire.
    pub(super) fn advance(&self, state: &mut State) {
        let versions = state.versions();
        let rank = |version: u64| {
            versions
                .binary_search(&version)
                .map_or(0, |rank| rank as u64 + 1)
        };
        let ticks = self.ticks_of(state);
        for index in 0..state.pods.len() {
            state.change(index, |pod| {
                let by = ticks[usize::from(pod.seat.0)];
                let rebase = Rebase {
                    now: NOW,
                    by,
                    peers_by: ticks,
                    version: &rank,
                };
                if let Some(node) = &mut pod.node {
                    node.rebase(&rebase);
                }
                self.age(pod, by);
                pod.behind_for = pod.behind_for.saturating_sub(u8::from(!pod.is_stopped));
            });
        }
        state.renumber(&rank);
        state.age_letters(self, &ticks);
        for index in 0..state.pods.len() {
            self.hear_at_once(state, index);
            if !state.pods[index].is_paused {
                self.input(state, index, Input::Tick);
            }
        }
    }

    fn ticks_of(&self, state: &State) -> Ticks {
        let mut ticks = self.ticks();
        for pod in state.pods.iter().filter(|pod| pod.is_stopped) {
            ticks[usize::from(pod.seat.0)] = std::time::Duration::ZERO;
        }
        ticks
    }

    /// The machine stands still: as a pause, and its clock with it.
    pub(super) fn stop_clock(&self, state: &mut State, index: usize) {
        let longest = self.timing.witness_hold_alone.max(self.timing.deadtime);
        state.change(index, |pod| {
            pod.is_paused = true;
            pod.is_stopped = true;
            pod.behind_for = longest.as_nanos().div_ceil(STEP.as_nanos()) as u8;
        });
    }

    fn age(&self, pod: &mut Pod, by: std::time::Duration) {
        for order in &mut pod.orders {
            if let Order::Arm(at) | Order::Restart(at) = order {
                *at = moved(*at, by);
            }
        }
        for event in &mut pod.said {
            if let GuardEvent::Armed { deadline: at } | GuardEvent::Exited { at } = event {
                *at = moved(*at, by);
            }
        }
        pod.process = match pod.process {
            Process::Armed(deadline) | Process::Dying(deadline) => {
                let deadline = moved(deadline, by);
                if deadline.after(self.timing.kill_margin) <= NOW {
                    pod.said.push(GuardEvent::Exited { at: deadline });
                    Process::Dead
                } else if deadline <= NOW {
                    Process::Dying(deadline)
                } else {
                    Process::Armed(deadline)
                }
            }
            process => process,
        };
    }

    fn carry_out(&self, state: &mut State, index: usize, mut pod: Pod, effects: Vec<Effect>) {
        let mut letters = Vec::new();
        for effect in effects {
            match effect {
                Effect::Record(record) => pod.record = Some(record),
                Effect::Send(message) => letters.push(message),
                Effect::Call { id, call } => state.calls.push(Call {
                    pod: index,
                    id,
                    call,
                    answer: None,
                }),
                Effect::Arm { deadline } => pod.order(Order::Arm(deadline)),
                Effect::Stop => pod.order(Order::Stop),
                Effect::RestartInPlace { deadline } => pod.order(Order::Restart(deadline)),
                Effect::Notice(_) => {}
            }
        }
        Self::number_calls(state, index, &pod);
        if let Some(node) = &mut pod.node {
            node.rebase(&Rebase {
                now: NOW,
                by: std::time::Duration::ZERO,
                peers_by: Default::default(),
                version: &|version| version,
            });
        }
        state.pods[index] = Cell::new(pod);
        for message in &letters {
            state.post(self, message);
        }
        while !self.slow_guard
            && !state.pods[index].is_paused
            && !state.pods[index].orders.is_empty()
        {
            self.guard_acts(state, index);
        }
    }

    /// The open call is number 1; of those given up, one write may still take effect.
    fn number_calls(state: &mut State, index: usize, pod: &Pod) {
        let open = pod.node.as_ref().and_then(Node::open_call);
        for call in state.calls.iter_mut().filter(|call| call.pod == index) {
            call.id = CallId(u64::from(Some(call.id) == open && open.is_some()));
        }
        let is_late = |call: &Call| call.pod == index && call.id == CallId(0);
        let newest = state
            .calls
            .iter()
            .rposition(|call| is_late(call) && is_write(call));
        let mut at = 0;
        state.calls.retain(|call| {
            at += 1;
            !is_late(call) || Some(at - 1) == newest
        });
    }

    fn give_calls_up(state: &mut State, index: usize) {
        for call in state.calls.iter_mut().filter(|call| call.pod == index) {
            call.id = CallId(0);
        }
        state
            .calls
            .retain(|call| call.id != CallId(0) || is_write(call));
    }

    fn tell_condition(&self, state: &mut State, index: usize, is_ready: bool) {
        state.change(index, |pod| pod.is_ready = is_ready);
        let condition = Condition {
            is_ready,
            is_api_reachable: true,
            rank: 0,
            is_held_back: false,
        };
        self.input(state, index, Input::Condition(condition));
    }

    fn hear_at_once(&self, state: &mut State, index: usize) {
        while !state.pods[index].is_paused
            && state.pods[index].node.is_some()
            && !state.pods[index].said.is_empty()
        {
            self.hear(state, index);
        }
    }

    fn obey(&self, pod: &mut Pod, order: Order) {
        match (order, pod.process) {
            (Order::Stop, _) => {
                pod.process = Process::Dead;
                pod.said.push(GuardEvent::Stopped);
            }
            (Order::Arm(_), Process::Dead) => pod.said.push(GuardEvent::Stopped),
            (Order::Restart(deadline), Process::Dead) => {
                match self.judge(Deadline::SLACK, deadline) {
                    Verdict::Passed => pod.said.push(GuardEvent::Stopped),
                    _ => pod.arm(deadline),
                }
            }
            (Order::Arm(deadline) | Order::Restart(deadline), process) => {
                let standing = process
                    .deadline()
                    .map_or(Deadline::SLACK, |at| Deadline::at(at.0));
                match self.judge(standing, deadline) {
                    Verdict::Passed => {}
                    Verdict::Covered => pod.said.push(GuardEvent::Armed { deadline }),
                    Verdict::Later => pod.arm(deadline),
                }
            }
        }
    }

    /// The guard's own judgement, unless that rule is dropped.
    fn judge(&self, standing: Deadline, deadline: pbx_core::BootTime) -> Verdict {
        if self.guard_takes_late {
            Verdict::Later
        } else {
            standing.judge(deadline.0, NOW.0)
        }
    }
}

impl Pod {
    /// One that has just been made.
    pub(super) fn new(seat: Seat, occupant: Occupant) -> Self {
        Self {
            seat,
            occupant,
            node: None,
            record: None,
            process: Process::Dead,
            is_ready: false,
            is_paused: false,
            is_stopped: false,
            behind_for: 0,
            orders: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Of two deadlines in a row the later one decides.
    fn order(&mut self, order: Order) {
        if let (Order::Arm(_), Some(Order::Arm(_))) = (order, self.orders.last()) {
            self.orders.pop();
        }
        self.orders.push(order);
    }

    fn arm(&mut self, deadline: pbx_core::BootTime) {
        self.process = Process::Armed(deadline);
        self.said.push(GuardEvent::Armed { deadline });
    }
}

fn is_write(call: &Call) -> bool {
    matches!(call.call, ApiCall::Write(_)) && call.answer.is_none()
}

fn apply(lease: &mut Option<LeaseView>, call: &ApiCall) -> ApiAnswer {
    let Some(lease) = lease else {
        return ApiAnswer::Missing;
    };
    match call {
        ApiCall::Read => ApiAnswer::Lease(*lease),
        ApiCall::Write(LeaseWrite {
            uid,
            version,
            content,
        }) if (*uid, *version) == (lease.uid, lease.version) => {
            lease.version += 1;
            lease.content = *content;
            ApiAnswer::Lease(*lease)
        }
        ApiCall::Write(_) => ApiAnswer::Conflict,
    }
}
