//! What the services do about the actions that doors ask for: one job at a time, told at every change.
//!
//! ```text
//!  request ──► Pending ──► Running ──► Finished        a step's code: 0 done, 1 refused by the core, 2 not done in time
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use pbx_core::{BootTime, Cause, Command, Input, Seat, Suppression};
use pbx_doors::{Action, Job, JobState, Refusal, Request, Step, Strategy};
use tokio::sync::{broadcast, mpsc};

use super::{Services, now};

/// Another node is active by then, or the switchover has failed: a handover takes less than a second, a second attempt of the
/// core's less than three.
const SWITCHOVER_PATIENCE: Duration = Duration::from_secs(10);
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
    ends_by: BootTime,
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
        self.under_way.as_ref().map(|under_way| under_way.ends_by)
    }

    fn begin(&mut self, request: Request, command: String) {
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
        let ends_by = now().after(SWITCHOVER_PATIENCE);
        self.under_way = Some(UnderWay { job, ends_by });
    }

    fn finish(&mut self, return_code: i32, log: String) {
        let Some(UnderWay { mut job, .. }) = self.under_way.take() else {
            return;
        };
        tracing::info!(job = job.id, return_code, log, "an action ended");
        job.state = JobState::Finished;
        job.finished_at = Some(Timestamp::now());
        for step in &mut job.steps {
            step.log.clone_from(&log);
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
        match self.plan(&request.action) {
            Ok((to, command)) => {
                let cause = Cause::Switchover;
                self.jobs.begin(request, command);
                self.ask(&Input::Command(Command::Switchover { to, cause }));
            }
            Err(refusal) => drop(request.reply.send(Err(refusal))),
        }
    }

    /// The core's answer to a switchover that it does not make.
    pub(super) fn on_switchover_refused(&mut self, reason: Suppression) {
        let why = match reason {
            Suppression::NoHeir => "no standby is heard",
            Suppression::HeirNotReady => "no standby is ready: see its detail in the status",
            Suppression::HeirWithoutApi => "the standby does not reach the API server",
            Suppression::NotActive => "this node is not active, or gives the role up already",
        };
        self.jobs.finish(REFUSED, why.into());
    }

    /// A job ends once another node is active, or its time is over.
    pub(super) fn tend_job(&mut self) {
        let Some(ends_by) = self.jobs.next_deadline() else {
            return;
        };
        let view = *self.channels.view.borrow();
        let own = self.checked.settings.seat;
        if let Some(active) = view.active.filter(|active| *active != own) {
            let name = self.checked.name_of(active);
            let log = format!("{name} is active under epoch {}", view.epoch);
            self.jobs.finish(DONE, log);
        } else if now() >= ends_by {
            let log = format!("no other node became active within {SWITCHOVER_PATIENCE:?}");
            self.jobs.finish(NOT_IN_TIME, log);
        }
    }

    /// The heir of a switchover that is to be made now, and how the step is called.
    fn plan(&self, action: &Action) -> Result<(Option<Seat>, String), Refusal> {
        if let Some(under_way) = &self.jobs.under_way {
            return Err(Refusal::Busy(under_way.job.id));
        }
        let heir = match action {
            Action::Demote => None,
            Action::Switchover {
                to,
                strategy: None | Some(Strategy::Immediate),
            } => to.as_deref(),
            _ => {
                let message = format!("this version cannot do it: {action:?}");
                return Err(Refusal::NotPossible(message));
            }
        };
        if self.active_epoch.is_none() {
            let message = "this node is not active";
            return Err(Refusal::NotPossible(message.into()));
        }
        let Some(name) = heir else {
            return Ok((None, "switchover".into()));
        };
        let nodes = &self.checked.file.nodes;
        let seat = nodes.iter().position(|node| node.name == name);
        let seat = seat.ok_or_else(|| Refusal::NoSuchNode(name.into()))?;
        Ok((Some(Seat(seat as u8)), format!("switchover {name}")))
    }
}
