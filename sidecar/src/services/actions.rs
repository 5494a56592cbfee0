//! What the services do about the actions that doors ask for: one job at a time, told at every change.
//!
//! ```text
//!  request ──► Pending ──► Running ──► Finished        a step's code: 0 done, 1 refused by the core, 2 not done in time
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use pbx_core::{BootTime, Cause};
use pbx_crds::switchover::{SwitchoverState, SwitchoverStrategy};
use pbx_doors::{Action, Job, JobState, Refusal, Request, Step, Strategy};
use tokio::sync::{broadcast, mpsc};

use super::{End, Services, now};
use crate::asterisk::supervisor::Phase;
use crate::daemon::ToCore;
use crate::switchover::Objection;

/// Another node is active by then, once this one has given the role up: a handover takes less than a second, a second attempt of
/// the core's less than three.
const HEIR_PATIENCE: Duration = Duration::from_secs(10);
const DONE: i32 = 0;
const REFUSED: i32 = 1;
const NOT_IN_TIME: i32 = 2;

/// The ends of the queues to the doors, and the job under way.
pub struct Jobs {
    requests: mpsc::Receiver<Request>,
    told: broadcast::Sender<Arc<Job>>,
    numbers: Arc<AtomicU64>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    job: Job,
    awaits: Awaits,
}

/// What ends a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// The planned move.
    Move,
    /// The role was given up: another active, until then.
    Heir(BootTime),
    /// Asterisk has read its files.
    Reload,
}

/// What became of an action at once.
enum Begun {
    /// It goes on.
    Awaits(Awaits),
    /// It is done.
    Done(&'static str),
}

impl Jobs {
    /// Takes `requests` and tells jobs to `told`, numbered from `numbers`.
    pub fn new(
        requests: mpsc::Receiver<Request>,
        told: broadcast::Sender<Arc<Job>>,
        numbers: Arc<AtomicU64>,
    ) -> Self {
        Self {
            requests,
            told,
            numbers,
            under_way: None,
        }
    }

    /// The next request; never once the doors are gone. Cancel-safe.
    pub(super) async fn next_request(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }

    /// When the job under way must have ended.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        match self.under_way.as_ref()?.awaits {
            Awaits::Heir(until) => Some(until),
            Awaits::Move | Awaits::Reload => None,
        }
    }

    fn begin(&mut self, request: Request, command: String, awaits: Awaits) {
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut job = Job {
            id,
            action: request.action,
            who: request.who,
            state: JobState::Pending,
            steps: vec![Step {
                command,
                log: String::new(),
                return_code: None,
            }],
            started_at: None,
            finished_at: None,
        };
        // Who asked may have gone; the answer comes before anything is told of the job.
        let _ = request.reply.send(Ok(id));
        self.tell(&job);
        job.state = JobState::Running { current: 0 };
        job.started_at = Some(Timestamp::now());
        self.tell(&job);
        self.under_way = Some(UnderWay { job, awaits });
    }

    fn finish(&mut self, return_code: i32, log: &str) {
        let Some(UnderWay { mut job, .. }) = self.under_way.take() else {
            return;
        };
        tracing::info!(job = job.id, return_code, log, "an action ended");
        job.state = JobState::Finished;
        job.finished_at = Some(Timestamp::now());
        for step in &mut job.steps {
            log.clone_into(&mut step.log);
            step.return_code = Some(return_code);
        }
        self.tell(&job);
    }

    /// Nobody may be listening.
    fn tell(&self, job: &Job) {
        let _ = self.told.send(Arc::new(job.clone()));
    }
}

impl Services {
    pub(super) fn on_request(&mut self, request: Request) {
        let command = command_of(&request.action);
        match self.begin_action(&request.action, &request.who) {
            Ok(Begun::Awaits(awaits)) => self.jobs.begin(request, command, awaits),
            Ok(Begun::Done(log)) => {
                self.jobs.begin(request, command, Awaits::Reload);
                self.jobs.finish(DONE, log);
            }
            Err(refusal) => drop(request.reply.send(Err(refusal))),
        }
    }

    /// A job ends with what it awaits.
    pub(super) fn tend_job(&mut self) {
        let Some(UnderWay { awaits, .. }) = &mut self.jobs.under_way else {
            return;
        };
        if *awaits == Awaits::Move && !self.desk.is_busy() {
            let progress = self.desk.progress();
            let (state, message) = progress.map_or((SwitchoverState::Refused, ""), |progress| {
                (progress.state, progress.message.as_str())
            });
            if state != SwitchoverState::Done {
                return self.jobs.finish(REFUSED, message);
            }
            *awaits = Awaits::Heir(now().after(HEIR_PATIENCE));
        }
        if let Awaits::Heir(until) = *awaits {
            self.await_heir(until);
        }
    }

    /// Asterisk has read its files, or why not.
    pub(super) fn end_reload_job(&mut self, failure: Option<&str>) {
        let is_awaited = self
            .jobs
            .under_way
            .as_ref()
            .is_some_and(|under_way| under_way.awaits == Awaits::Reload);
        if is_awaited {
            let code = failure.map_or(DONE, |_| REFUSED);
            self.jobs.finish(code, failure.unwrap_or("reloaded"));
        }
    }

    fn await_heir(&mut self, until: BootTime) {
        let view = *self.channels.view.borrow();
        let own = self.checked.settings.seat;
        if let Some(active) = view.active.filter(|active| *active != own) {
            let name = self.checked.name_of(active);
            let log = format!("{name} is active under epoch {}", view.epoch);
            self.end_move_job(&log);
        } else if now() >= until {
            let log = format!("no other node became active within {HEIR_PATIENCE:?}");
            self.jobs.finish(NOT_IN_TIME, &log);
        }
    }

    /// Who gave the role up to be kept out is kept out now.
    fn end_move_job(&mut self, log: &str) {
        let is_fence = |under_way: &UnderWay| under_way.job.action == Action::Fence;
        let fenced = if self.jobs.under_way.as_ref().is_some_and(is_fence) {
            self.set_fenced(true)
        } else {
            Ok(())
        };
        match fenced {
            Ok(()) => self.jobs.finish(DONE, log),
            Err(refusal) => self.jobs.finish(REFUSED, &refusal.to_string()),
        }
    }

    fn begin_action(&mut self, action: &Action, who: &str) -> Result<Begun, Refusal> {
        if self.end != End::NotAsked {
            return Err(Refusal::Ending);
        }
        if let Action::CancelSwitchover = action {
            self.desk.cancel().map_err(refusal_of)?;
            return Ok(Begun::Done("called off"));
        }
        if let Some(under_way) = &self.jobs.under_way {
            return Err(Refusal::Busy(under_way.job.id));
        }
        match action {
            Action::Demote => self.begin_move(None, None, who),
            Action::Switchover { to, strategy } => {
                self.begin_move(to.as_deref(), strategy.map(strategy_of), who)
            }
            Action::Drill => {
                let begun = self.begin_drill(who);
                begun.map_err(|reason| Refusal::NotPossible(format!("skipped: {reason}")))?;
                Ok(Begun::Awaits(Awaits::Move))
            }
            Action::Promote => self.begin_promotion(),
            Action::Fence => self.begin_fence(who),
            Action::Unfence => {
                self.set_fenced(false)?;
                Ok(Begun::Done("it may be active again"))
            }
            Action::Pause => self.begin_pause(true),
            Action::Resume => self.begin_pause(false),
            Action::ReloadAsterisk => self.begin_reload(),
            Action::StartAsterisk | Action::StopAsterisk | Action::RestartAsterisk => {
                self.begin_life(action)
            }
            Action::CancelSwitchover => unreachable!("answered above"),
        }
    }

    fn begin_move(
        &mut self,
        to: Option<&str>,
        strategy: Option<SwitchoverStrategy>,
        who: &str,
    ) -> Result<Begun, Refusal> {
        let begun = self.begin_switchover(to, strategy, Cause::Switchover, who);
        begun.map_err(refusal_of)?;
        Ok(Begun::Awaits(Awaits::Move))
    }

    /// The active hands over; a standby can only take what nobody has.
    fn begin_promotion(&mut self) -> Result<Begun, Refusal> {
        let active = self.channels.view.borrow().active;
        match active {
            Some(seat) if seat == self.checked.settings.seat => {
                Ok(Begun::Done("this node is active already"))
            }
            Some(seat) => Err(Refusal::NotPossible(format!(
                "{} is active: ask it for a switchover to {}",
                self.checked.name_of(seat),
                self.checked.node
            ))),
            None => {
                self.take_over_by_word();
                Ok(Begun::Awaits(Awaits::Heir(now().after(HEIR_PATIENCE))))
            }
        }
    }

    fn begin_pause(&mut self, is_paused: bool) -> Result<Begun, Refusal> {
        if self.slice().is_some() {
            let message = "spec.paused of the PbxCluster says so: change it there";
            return Err(Refusal::NotPossible(message.into()));
        }
        self.set_paused(is_paused);
        Ok(Begun::Done("this node alone: each has its own word"))
    }

    fn begin_reload(&mut self) -> Result<Begun, Refusal> {
        let is_idle = self.supervisor.phase() == Phase::Booted && !self.is_reloading;
        if !is_idle || self.rollover.is_trying() {
            let message = "Asterisk is not fully booted, or is reloading";
            return Err(Refusal::NotPossible(message.into()));
        }
        self.reload();
        Ok(Begun::Awaits(Awaits::Reload))
    }

    /// An active hands over first: without an heir it is not fenced.
    fn begin_fence(&mut self, who: &str) -> Result<Begun, Refusal> {
        if self.active_epoch.is_some() {
            return self.begin_move(None, None, who);
        }
        self.set_fenced(true)?;
        Ok(Begun::Done("it is kept out until it is unfenced"))
    }

    fn set_fenced(&mut self, is_fenced: bool) -> Result<(), Refusal> {
        let written = self.fencing.set(is_fenced);
        written.map_err(|error| Refusal::NotPossible(error.to_string()))?;
        self.supervisor.halt(is_fenced);
        if is_fenced {
            self.send(ToCore::StopSlack);
        }
        Ok(())
    }

    fn begin_life(&mut self, action: &Action) -> Result<Begun, Refusal> {
        if self.active_epoch.is_some() {
            let message = "it serves: switch over first";
            return Err(Refusal::NotPossible(message.into()));
        }
        if self.fencing.is_set() {
            let message = "it is fenced: unfence it first";
            return Err(Refusal::NotPossible(message.into()));
        }
        self.supervisor.halt(*action == Action::StopAsterisk);
        if *action != Action::StartAsterisk {
            self.send(ToCore::StopSlack);
        }
        Ok(Begun::Done("ordered"))
    }
}

fn command_of(action: &Action) -> String {
    match action {
        Action::Promote => "promote".into(),
        Action::Demote => "demote".into(),
        Action::Switchover { to: None, .. } => "switchover".into(),
        Action::Switchover { to: Some(node), .. } => format!("switchover {node}"),
        Action::CancelSwitchover => "cancel".into(),
        Action::Drill => "drill".into(),
        Action::StartAsterisk => "start".into(),
        Action::StopAsterisk => "stop".into(),
        Action::RestartAsterisk => "restart".into(),
        Action::ReloadAsterisk => "reload".into(),
        Action::Fence => "fence".into(),
        Action::Unfence => "unfence".into(),
        Action::Pause => "pause".into(),
        Action::Resume => "resume".into(),
    }
}

fn refusal_of(objection: Objection) -> Refusal {
    match objection {
        Objection::NoSuchNode(name) => Refusal::NoSuchNode(name),
        other => Refusal::NotPossible(other.to_string()),
    }
}

fn strategy_of(strategy: Strategy) -> SwitchoverStrategy {
    match strategy {
        Strategy::Immediate => SwitchoverStrategy::Immediate,
        Strategy::Drain => SwitchoverStrategy::Drain,
        Strategy::WhenIdle => SwitchoverStrategy::WhenIdle,
    }
}
