//! A planned move of the role, from the wish to its end: a pure machine. One at a time.
//!
//! ```text
//!            WhenIdle                 no calls, or timeout
//!   begin ──────────► Waiting ────────────────────────────┐
//!     │ Immediate, Drain   │ cancel                        ▼          the core demotes      closed, calls left
//!     └──────────────────────────────────────────► Unregistering ──► Moving ──────────► Draining ─────► Done
//!                          ▼                                            │ the core refuses
//!                      Cancelled                                        ▼
//!                                                                    Refused
//! ```
//!
//! Before the core is asked, the trunks are unregistered. From then on nothing is called off: the role is on its way. Not here:
//! whether the move is safe (the core), what closes Asterisk (`asterisk/calls.rs`).

use std::time::Duration;

use pbx_core::{BootTime, Cause, Seat};
use pbx_crds::switchover::{SwitchoverState, SwitchoverStrategy};
use thiserror::Error;

/// Calls are counted this often while they are waited for.
pub const COUNT_INTERVAL: Duration = Duration::from_millis(500);
/// The core answers at once; this is for an answer that was lost in a full queue.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The heir; none: the best.
    pub to: Option<Seat>,
    /// Switchover, Drill, or another planned cause.
    pub cause: Cause,
    /// What becomes of the calls.
    pub strategy: SwitchoverStrategy,
    /// The longest that calls are waited for.
    pub timeout: Duration,
    /// Who wants it; of the annotation, its value.
    pub requested_by: String,
}

/// What is known when a move is wished for.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
pub struct Ground {
    /// This node serves, and its Asterisk is fully booted.
    pub is_serving: bool,
    /// Maintenance.
    pub is_paused: bool,
    /// The heir, or some standby, could take over.
    pub has_heir: bool,
    /// Why a draining Asterisk would not keep its calls: where floating addresses take them away.
    pub drain_obstacle: Option<String>,
}

/// Why a move is not begun. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Objection {
    /// The wish went to the wrong node.
    #[error("this node is not active, or its Asterisk is just starting: ask the active node")]
    NotActive,
    /// Maintenance.
    #[error("the cluster is paused: resume it first")]
    Paused,
    /// Nobody could take over.
    #[error("no standby is ready to take over: see the state of the nodes")]
    NoHeir,
    /// Another one is under way.
    #[error("a switchover is under way: wait for its end or cancel it")]
    Busy,
    /// The addresses take the calls away.
    #[error("floating addresses take the calls along: {0}; or choose WhenIdle or Immediate")]
    CannotDrain(String),
    /// The heir.
    #[error("there is no node {0}: see the list of nodes")]
    NoSuchNode(String),
    /// The wish.
    #[error("{0}")]
    NotUnderstood(String),
    /// There is nothing to cancel, or it is too late.
    #[error("no switchover is waiting for the end of calls: there is nothing to cancel")]
    NothingToCancel,
}

impl Objection {
    /// Stable, for metrics and the status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotActive => "NotActive",
            Self::Paused => "Paused",
            Self::NoHeir => "NoHeir",
            Self::Busy => "Busy",
            Self::CannotDrain(_) => "CannotDrain",
            Self::NoSuchNode(_) => "NoSuchNode",
            Self::NotUnderstood(_) => "NotUnderstood",
            Self::NothingToCancel => "NothingToCancel",
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Count the calls, and say so by [`Desk::on_calls`].
    CountCalls,
    /// Unregister the trunks, and say so by [`Desk::on_unregistered`].
    Unregister,
    /// Ask the core to hand over; with `drain_until`, the calls may end in peace until then.
    Move {
        /// The heir.
        to: Option<Seat>,
        /// What history says.
        cause: Cause,
        /// Of a drain.
        drain_until: Option<BootTime>,
    },
}

/// Where it is, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was wanted.
    pub wish: Wish,
    /// Where it is.
    pub state: SwitchoverState,
    /// What is awaited, or why it ended.
    pub message: String,
    /// Calls that are still waited for.
    pub calls_left: Option<u32>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Desk {
    stage: Stage,
    progress: Option<Progress>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// For the end of calls.
    Waiting { until: BootTime, count_at: BootTime },
    /// The trunks are being told.
    Unregistering,
    /// The core was asked.
    Moving { until: BootTime },
    /// The role has gone.
    Draining,
}

impl Desk {
    /// Begins a move; the first step is given by [`Desk::on_tick`] or is this answer.
    pub fn begin(
        &mut self,
        now: BootTime,
        wish: Wish,
        ground: &Ground,
    ) -> Result<Option<Step>, Objection> {
        object(&wish, ground, self.stage)?;
        let (state, message) = match wish.strategy {
            SwitchoverStrategy::WhenIdle => {
                (SwitchoverState::Waiting, "waits for the end of calls")
            }
            _ => (SwitchoverState::Moving, "hands over"),
        };
        let until = now.after(wish.timeout);
        self.progress = Some(Progress {
            wish,
            state,
            message: message.to_owned(),
            calls_left: None,
        });
        if state == SwitchoverState::Waiting {
            self.stage = Stage::Waiting {
                until,
                count_at: now,
            };
            return Ok(None);
        }
        self.stage = Stage::Unregistering;
        Ok(Some(Step::Unregister))
    }

    /// Calls a waiting move off.
    pub fn cancel(&mut self) -> Result<(), Objection> {
        if !matches!(self.stage, Stage::Waiting { .. }) {
            return Err(Objection::NothingToCancel);
        }
        self.end(SwitchoverState::Cancelled, "called off; the active goes on");
        Ok(())
    }

    /// So many calls are left here.
    pub fn on_calls(&mut self, calls: u32) -> Option<Step> {
        if let (Some(progress), false) = (&mut self.progress, self.stage == Stage::Idle) {
            progress.calls_left = Some(calls);
        }
        let is_over = matches!(self.stage, Stage::Waiting { .. }) && calls == 0;
        is_over.then(|| self.unregister())
    }

    /// The trunks are unregistered, as far as they could be.
    pub fn on_unregistered(&mut self, now: BootTime) -> Option<Step> {
        let wish = &self.progress.as_ref()?.wish;
        if self.stage != Stage::Unregistering {
            return None;
        }
        let is_drain = wish.strategy == SwitchoverStrategy::Drain;
        let step = Step::Move {
            to: wish.to,
            cause: wish.cause,
            drain_until: is_drain.then(|| now.after(wish.timeout)),
        };
        self.stage = Stage::Moving {
            until: now.after(ANSWER_PATIENCE),
        };
        Some(step)
    }

    /// The core refused; returns whether it refused this move.
    pub fn on_refused(&mut self, reason: &str) -> bool {
        let is_ours = matches!(self.stage, Stage::Moving { .. });
        if is_ours {
            let message = format!("{reason}: the active goes on");
            self.end(SwitchoverState::Refused, &message);
        }
        is_ours
    }

    /// This node has ceased to be active.
    pub fn on_demoted(&mut self) {
        match self.stage {
            Stage::Idle | Stage::Draining => {}
            Stage::Moving { .. } if self.is_drain() => {
                self.stage = Stage::Draining;
                self.tell(
                    SwitchoverState::Draining,
                    "the role has moved; calls may end in peace",
                );
            }
            Stage::Moving { .. } => self.end(SwitchoverState::Done, "the role has moved"),
            Stage::Waiting { .. } | Stage::Unregistering => {
                self.end(
                    SwitchoverState::Refused,
                    "another cause moved the role first",
                );
            }
        }
    }

    /// Asterisk has gone.
    pub fn on_exited(&mut self) {
        if self.stage == Stage::Draining {
            let cut = self
                .progress
                .as_ref()
                .and_then(|progress| progress.calls_left);
            let message = match cut {
                None | Some(0) => "the role has moved, all calls have ended".to_owned(),
                Some(left) => format!("the role has moved; {left} calls were cut at the timeout"),
            };
            self.end(SwitchoverState::Done, &message);
        }
    }

    /// What is due.
    pub fn on_tick(&mut self, now: BootTime) -> Option<Step> {
        match &mut self.stage {
            Stage::Waiting { until, .. } if now >= *until => Some(self.unregister()),
            Stage::Waiting { count_at, .. } if now >= *count_at => {
                *count_at = now.after(COUNT_INTERVAL);
                Some(Step::CountCalls)
            }
            Stage::Moving { until } if now >= *until => {
                self.end(SwitchoverState::Refused, "no answer: the active goes on");
                None
            }
            _ => None,
        }
    }

    /// When [`Desk::on_tick`] has something to do.
    pub fn next_deadline(&self) -> Option<BootTime> {
        match self.stage {
            Stage::Waiting { until, count_at } => Some(until.min(count_at)),
            Stage::Moving { until } => Some(until),
            _ => None,
        }
    }

    /// A move is under way.
    pub fn is_busy(&self) -> bool {
        self.stage != Stage::Idle
    }

    /// The core was asked, or the role has gone: nothing is decided in between.
    pub fn is_moving(&self) -> bool {
        matches!(self.stage, Stage::Moving { .. } | Stage::Draining)
    }

    /// The move that is under way, or the last one.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// A wish that was not even begun, for whoever looks for an answer in the status.
    pub fn note_objection(&mut self, wish: Wish, objection: &Objection) {
        if self.stage == Stage::Idle {
            self.progress = Some(Progress {
                wish,
                state: SwitchoverState::Refused,
                message: objection.to_string(),
                calls_left: None,
            });
        }
    }

    fn unregister(&mut self) -> Step {
        self.stage = Stage::Unregistering;
        self.tell(SwitchoverState::Moving, "hands over");
        Step::Unregister
    }

    fn is_drain(&self) -> bool {
        let strategy = self
            .progress
            .as_ref()
            .map(|progress| progress.wish.strategy);
        strategy == Some(SwitchoverStrategy::Drain)
    }

    fn tell(&mut self, state: SwitchoverState, message: &str) {
        if let Some(progress) = &mut self.progress {
            progress.state = state;
            message.clone_into(&mut progress.message);
        }
    }

    fn end(&mut self, state: SwitchoverState, message: &str) {
        self.stage = Stage::Idle;
        self.tell(state, message);
    }
}

fn object(wish: &Wish, ground: &Ground, stage: Stage) -> Result<(), Objection> {
    if stage != Stage::Idle {
        return Err(Objection::Busy);
    }
    if !ground.is_serving {
        return Err(Objection::NotActive);
    }
    if ground.is_paused {
        return Err(Objection::Paused);
    }
    if !ground.has_heir {
        return Err(Objection::NoHeir);
    }
    match &ground.drain_obstacle {
        Some(why) if wish.strategy == SwitchoverStrategy::Drain => {
            Err(Objection::CannotDrain(why.clone()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
