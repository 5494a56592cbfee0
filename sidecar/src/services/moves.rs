//! What the services do about planned moves: wishes of people and schedules, step by step, and what is told of them.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use pbx_core::{BootTime, Cause, Command, Input, Seat, Suppression};
use pbx_crds::health::HealthLevel;
use pbx_crds::switchover::{HookEvent, SwitchoverStatus, SwitchoverStrategy};
use tokio::task::spawn_local;

use super::{Done, End, Services, now};
use crate::asterisk::calls;
use crate::asterisk::config::why_calls_leave;
use crate::asterisk::supervisor::Phase;
use crate::daemon::{CoreView, ToCore};
use crate::drills::{self, Pair};
use crate::hooks::Happening;
use crate::request::{self, Asked};
use crate::switchover::{Ground, Objection, Step, Wish};

/// Closing takes a few milliseconds; the kernel's deadline stands a little later than this.
const CLOSE_DEADLINE: Duration = Duration::from_millis(400);
/// The number of calls that are left is told this often, and when it is zero.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// Of the grace period: for the handover, the leaving and the guard.
const END_RESERVE: Duration = Duration::from_secs(12);
/// A person's word lets a node take over for so long.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(10);

impl Services {
    /// The annotation of the resource says something new.
    pub(super) fn on_wish(&mut self, value: &str) {
        let is_here = self.active_epoch.is_some();
        let asked = match request::parse(value) {
            Ok(asked) => asked,
            Err(error) => {
                if is_here {
                    tracing::warn!(%error, "a request cannot be understood");
                    let wish = self.wish_for(None, None, Cause::Switchover, value);
                    let objection = Objection::NotUnderstood(error.to_string());
                    self.desk.note_objection(wish, &objection);
                }
                return;
            }
        };
        match asked {
            Asked::Switchover { to, .. } if !is_here => {
                if to.as_deref() == Some(&self.checked.node) {
                    self.take_over_by_word();
                }
            }
            _ if !is_here => {}
            Asked::Switchover { to, strategy } => {
                let _ = self.begin_switchover(to.as_deref(), strategy, Cause::Switchover, value);
            }
            Asked::Drill => {
                let _ = self.begin_drill(value);
            }
            Asked::Cancel => {
                let _ = self.desk.cancel();
            }
        }
    }

    /// The same from a file, which may also ask for a pause.
    pub(super) fn on_asked(&mut self, value: &str) {
        match value {
            "pause" => self.set_paused(true),
            "resume" => self.set_paused(false),
            other => self.on_wish(other),
        }
    }

    /// A person or a schedule wants the role to move. An objection stands in the status as well.
    pub(super) fn begin_switchover(
        &mut self,
        to: Option<&str>,
        strategy: Option<SwitchoverStrategy>,
        cause: Cause,
        who: &str,
    ) -> Result<(), Objection> {
        let seat = to.map(|name| self.seat_of(name)).transpose();
        let wish = self.wish_for(seat.clone().ok().flatten(), strategy, cause, who);
        let begun = match seat {
            Ok(seat) => {
                let ground = self.move_ground(seat);
                self.desk.begin(now(), wish.clone(), &ground)
            }
            Err(objection) => Err(objection),
        };
        match begun {
            Ok(step) => {
                tracing::info!(who, ?cause, to, strategy = ?wish.strategy, "a switchover begins");
                if let Some(step) = step {
                    self.take_step(step);
                }
                Ok(())
            }
            Err(objection) => {
                tracing::warn!(who, reason = objection.reason(), %objection, "a switchover is not made");
                self.desk.note_objection(wish, &objection);
                self.count_suppressed(objection.reason());
                Err(objection)
            }
        }
    }

    /// A switchover that proves the standby, if there is something to prove.
    pub(super) fn begin_drill(&mut self, who: &str) -> Result<(), &'static str> {
        let pair = self.pair();
        if let Some(reason) = drills::obstacle(pair) {
            tracing::warn!(reason, "a drill is skipped");
            self.count_suppressed(reason);
            let why = format!("skipped: {reason}");
            self.tell_hooks(HookEvent::Drill, Some(why), None);
            return Err(reason);
        }
        let strategy = self.live.drills.strategy;
        let strategy = strategy.unwrap_or(SwitchoverStrategy::WhenIdle);
        let begun = self.begin_switchover(None, Some(strategy), Cause::Drill, who);
        begun.map_err(|objection| objection.reason())
    }

    /// The pod of an active ends: its calls are treated as switchovers are, as far as the grace period allows.
    pub(super) fn move_calls_before_end(&mut self, grace_ends: BootTime) {
        let strategy = self.live.switchover.strategy;
        let is_here = self.active_epoch.is_some() && !self.desk.is_busy();
        if !is_here || strategy == SwitchoverStrategy::Immediate {
            return;
        }
        let configured = self.live.switchover.timeout.get();
        let left = grace_ends.since(now()).saturating_sub(END_RESERVE);
        let wish = Wish {
            timeout: configured.min(left),
            ..self.wish_for(None, None, Cause::PodDeleted, "end of the pod")
        };
        // Whatever stands in the way, the pod ends: then at once.
        if let Ok(Some(step)) = self.desk.begin(now(), wish, &self.move_ground(None)) {
            self.take_step(step);
        }
    }

    /// What is due of moves and drills.
    pub(super) fn tend_moves(&mut self) {
        if let Some(step) = self.desk.on_tick(now()) {
            self.take_step(step);
        }
        let is_due = self
            .schedule
            .as_mut()
            .is_some_and(|schedule| schedule.is_due(Timestamp::now()));
        // The others have the same schedule, and leave it to the active.
        if is_due && self.active_epoch.is_some() {
            let _ = self.begin_drill("schedule");
        }
    }

    /// How long until something of moves or drills is due.
    pub(super) fn moves_wait(&self) -> Option<Duration> {
        let of_desk = self.desk.next_deadline().map(|due| due.since(now()));
        let of_drill = self.schedule.as_ref().map(|schedule| {
            let wait = schedule.next().duration_since(Timestamp::now());
            Duration::try_from(wait).unwrap_or_default()
        });
        of_desk.into_iter().chain(of_drill).min()
    }

    pub(super) fn take_step(&mut self, step: Step) {
        match step {
            Step::CountCalls => self.count_calls(),
            Step::Unregister => self.unregister_for_move(),
            Step::Move {
                to,
                cause,
                drain_until: None,
            } => self.ask(&Input::Command(Command::Switchover { to, cause })),
            Step::Move {
                to,
                cause,
                drain_until: Some(until),
            } => self.send(ToCore::Drain { to, cause, until }),
        }
    }

    pub(super) fn on_unregistered(&mut self) {
        if let Some(step) = self.desk.on_unregistered(now()) {
            self.take_step(step);
        }
    }

    pub(super) fn on_calls(&mut self, calls: u32) {
        self.metrics.calls_left.set(i64::from(calls));
        if let Some(step) = self.desk.on_calls(calls) {
            self.take_step(step);
        }
    }

    /// The core wants this Asterisk closed to new work, and waits for the answer under the kernel's deadline.
    pub(super) fn close_asterisk(&mut self) {
        let (to_core, done) = (self.channels.to_core.clone(), self.done.clone());
        let Some(configured) = self.configured.clone() else {
            return self.send(ToCore::Closed(false));
        };
        self.forget_life();
        spawn_local(async move {
            let closed = calls::close(&configured, CLOSE_DEADLINE).await;
            let _ = to_core.send(ToCore::Closed(closed.is_ok())).await;
            let mut closed = match closed {
                Ok(closed) => closed,
                Err(error) => {
                    tracing::warn!(reason = error.reason(), %error, "Asterisk cannot be closed: its calls end now");
                    return;
                }
            };
            let mut left = Some(closed.count());
            while let Some(calls) = left {
                let _ = done.send(Done::Calls(calls)).await;
                left = closed.next().await;
            }
        });
    }

    /// The core refused a move: of health, or one that somebody waits for.
    pub(super) fn on_refused(&mut self, reason: Suppression) {
        let reason = suppression_reason(reason);
        if self.desk.on_refused(reason) {
            // Its trunks were unregistered for the move.
            self.register_trunks();
            self.count_suppressed(reason);
        } else if !self.on_health_refused(reason) {
            self.count_suppressed(reason);
        }
    }

    /// Tells the hooks of `event`.
    pub(super) fn tell_hooks(&self, event: HookEvent, cause: Option<String>, from: Option<String>) {
        let happening = Happening {
            event: event.as_str(),
            cluster: self.checked.file.cluster.clone(),
            node: self.checked.node.clone(),
            time: Timestamp::now(),
            epoch: self.channels.view.borrow().epoch,
            cause,
            from,
            health: self.health.assessment.status.level.as_str(),
        };
        self.hooks.tell(event, happening);
    }

    /// What is told of the present or last move. The number of calls changes all the time: it is told every few seconds.
    pub(super) fn switchover_status(&mut self) -> Option<SwitchoverStatus> {
        let progress = self.desk.progress()?;
        let before = self.told_move.take();
        let is_same = before.as_ref().is_some_and(|(told, _)| {
            told.state == progress.state && told.requested_by == progress.wish.requested_by
        });
        let since = before
            .as_ref()
            .filter(|_| is_same)
            .map_or_else(|| Time(Timestamp::now()), |(told, _)| told.since.clone());
        let mut told_at = now();
        let mut calls_left = progress.calls_left;
        if let Some((told, at)) = before.filter(|_| is_same)
            && now().since(at) < TELL_INTERVAL
            && calls_left != Some(0)
            && told.calls_left.is_some()
        {
            calls_left = told.calls_left;
            told_at = at;
        }
        let status = SwitchoverStatus {
            requested_by: progress.wish.requested_by.clone(),
            to: progress.wish.to.map(|seat| self.checked.name_of(seat)),
            strategy: progress.wish.strategy,
            state: progress.state,
            message: progress.message.clone(),
            calls_left,
            since,
        };
        self.told_move = Some((status.clone(), told_at));
        Some(status)
    }

    /// Unplanned moves are for people to make.
    pub(super) fn is_held_back(&self) -> bool {
        let is_by_word = self.may_take_over_until.is_some_and(|until| now() < until);
        let is_manual = self.live.mode == pbx_crds::switchover::FailoverMode::Manual;
        !is_by_word && (self.live.paused || is_manual)
    }

    /// A person names this node while nobody serves: that is the word it waited for.
    pub(super) fn take_over_by_word(&mut self) {
        if self.is_held_back() && self.channels.view.borrow().active.is_none() {
            tracing::info!("a person lets this node take over");
            self.may_take_over_until = Some(now().after(TAKE_OVER_PATIENCE));
        }
    }

    fn wish_for(
        &self,
        to: Option<Seat>,
        strategy: Option<SwitchoverStrategy>,
        cause: Cause,
        who: &str,
    ) -> Wish {
        let configured = &self.live.switchover;
        Wish {
            to,
            cause,
            strategy: strategy.unwrap_or(configured.strategy),
            timeout: configured.timeout.get(),
            requested_by: who.to_owned(),
        }
    }

    fn move_ground(&self, to: Option<Seat>) -> Ground {
        Ground {
            is_serving: self.active_epoch.is_some()
                && self.supervisor.phase() == Phase::Booted
                && self.end == End::NotAsked,
            is_paused: self.live.paused,
            has_heir: self.has_heir(to),
            drain_obstacle: self.drain_obstacle(),
        }
    }

    /// Whether the node of this seat, or any other, could take over.
    pub(super) fn has_heir(&self, to: Option<Seat>) -> bool {
        self.has_ready_peer(|seat, _| to.is_none_or(|to| seat == usize::from(to.0)))
    }

    /// Whether another node could take over, and is better than this level: what the core asks of an heir for the sake of health.
    pub(super) fn has_healthier(&self, level: HealthLevel) -> bool {
        self.has_ready_peer(|seat, view| view.peer_ranks[seat] < level as u8)
    }

    fn has_ready_peer(&self, is_meant: impl Fn(usize, &CoreView) -> bool) -> bool {
        let view = self.channels.view.borrow();
        let own = usize::from(self.checked.settings.seat.0);
        let mut seats = 0..self.checked.file.nodes.len();
        seats.any(|seat| seat != own && view.is_peer_ready[seat] && is_meant(seat, &view))
    }

    /// Why a draining Asterisk would lose its calls to the floating addresses, if it would.
    fn drain_obstacle(&self) -> Option<String> {
        let plan = self.checked.plan.as_ref()?;
        if !plan.ports.is_empty() {
            let why = "network.fence.ports close this host's own address as well: leave them out";
            return Some(why.to_owned());
        }
        let floating: Vec<IpAddr> = plan.addresses.iter().map(|address| address.ip).collect();
        let configured = self.configured.as_ref()?;
        let judged = why_calls_leave(&configured.snapshot, &floating);
        judged.unwrap_or_else(|error| Some(error.to_string()))
    }

    fn pair(&self) -> Pair {
        let view = self.channels.view.borrow();
        let own = usize::from(self.checked.settings.seat.0);
        let mut others = (0..self.checked.file.nodes.len()).filter(|seat| *seat != own);
        Pair {
            is_paused: self.live.paused,
            is_moving: self.desk.is_busy(),
            level: self.health.assessment.status.level,
            are_standbys_ready: others.all(|seat| view.is_peer_ready[seat]),
        }
    }

    fn seat_of(&self, name: &str) -> Result<Seat, Objection> {
        let nodes = &self.checked.file.nodes;
        let at = nodes.iter().position(|node| node.name == name);
        at.map(|at| Seat(at as u8))
            .ok_or_else(|| Objection::NoSuchNode(name.chars().take(80).collect()))
    }

    fn count_calls(&self) {
        let (Some(booted), done) = (self.booted.clone(), self.done.clone()) else {
            return;
        };
        spawn_local(async move {
            // One that does not come is asked for again.
            if let Ok(calls) = calls::count(&booted.ami).await {
                let _ = done.send(Done::Calls(calls)).await;
            }
        });
    }

    fn unregister_for_move(&self) {
        let (configured, booted) = (self.configured.clone(), self.booted.clone());
        let done = self.done.clone();
        spawn_local(async move {
            if let (Some(configured), Some(booted)) = (configured, booted) {
                configured.unregister_trunks(&booted).await;
            }
            let _ = done.send(Done::Unregistered).await;
        });
    }
}

/// Stable, for metrics and status.
pub(super) fn suppression_reason(reason: Suppression) -> &'static str {
    match reason {
        Suppression::NoHeir => "NoHeir",
        Suppression::HeirNotReady => "HeirNotReady",
        Suppression::HeirWithoutApi => "HeirWithoutApi",
        Suppression::NotActive => "NotActive",
        Suppression::HeirSicker => "HeirSicker",
        Suppression::HeldBack => "HeldBack",
    }
}

/// Until when a person's word counts.
pub(super) type Word = Option<BootTime>;
