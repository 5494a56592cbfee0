//! What people and programs ask for through a door, and how far it has come.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

/// What can be asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// This node becomes active: whoever is active hands over to it.
    Promote,
    /// This node ceases to be active.
    Demote,
    /// The role moves, to this node or to the best standby.
    Switchover {
        /// Name of the heir.
        to: Option<String>,
        /// What becomes of the calls; `None`: as configured.
        strategy: Option<Strategy>,
    },
    /// A switchover under way is called off, while that is possible.
    CancelSwitchover,
    /// A switchover that proves the standby.
    Drill,
    /// Asterisk of this node is started, if it may run.
    StartAsterisk,
    /// Asterisk of this node is stopped until it is started again.
    StopAsterisk,
    /// Asterisk of this node is stopped and started.
    RestartAsterisk,
    /// Asterisk of this node reads its configuration again.
    ReloadAsterisk,
    /// This node is kept out, over a restart of its sidecar too: it gives the role up if it has it, its Asterisk is stopped, and nobody
    /// hands over to it.
    Fence,
    /// The end of that.
    Unfence,
    /// Decide nothing, watch everything.
    Pause,
    /// The end of a pause.
    Resume,
}

/// What a switchover does about calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Moves at once: what the old active carries ends.
    Immediate,
    /// New calls go to the new active at once, old ones end in peace up to the timeout.
    Drain,
    /// Waits until there are no calls, up to the timeout, then moves.
    WhenIdle,
}

/// An action, who wants it, and where to answer.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub action: Action,
    /// Who, for the audit log: the door and what it knows of the client.
    pub who: String,
    /// The job that was begun, or why none was.
    pub reply: oneshot::Sender<Result<u64, Refusal>>,
}

/// Why an action is not begun. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no node of that name.
    #[error("there is no node {0}: see the list of nodes")]
    NoSuchNode(String),
    /// The node is not the one that could do it.
    #[error("{0}")]
    NotPossible(String),
    /// Another job is under way.
    #[error("job {0} is under way: wait for its end or cancel it")]
    Busy(u64),
    /// The node is ending.
    #[error("this node is ending")]
    Ending,
}

impl Refusal {
    /// Stable, for metrics and answers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchNode(_) => "NoSuchNode",
            Self::NotPossible(_) => "NotPossible",
            Self::Busy(_) => "Busy",
            Self::Ending => "Ending",
        }
    }
}

/// An action under way, as it is told at every change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number, unique for the life of the sidecar.
    pub id: u64,
    /// What.
    pub action: Action,
    /// Who asked.
    pub who: String,
    /// Where it is.
    pub state: JobState,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// When it left the queue.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Where a job is.
///
/// ```text
///  Pending ──► Running{current} ──► Finished
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Waits for its turn.
    Pending,
    /// Does this step.
    Running {
        /// Place in `steps`.
        current: usize,
    },
    /// Ended: each step that was done has its return code.
    Finished,
}

/// One step of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// As a command line would name it, such as `switchover office-1`.
    pub command: String,
    /// What it had to say.
    pub log: String,
    /// 0: done; others: why not. `None`: not done yet.
    pub return_code: Option<i32>,
}
