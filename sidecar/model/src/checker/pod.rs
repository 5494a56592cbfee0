//! One pod in the checker: the real node, its guard with the kernel's timer, and what is on its way between them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use pbx_core::{BootTime, GuardEvent, Node, Occupant, Record, Seat};

/// All clocks show this: stamps are moved back when time passes.
pub const NOW: BootTime = BootTime(1_000_000_000_000);

/// One pod.
#[derive(Clone, Debug, Hash)]
pub struct Pod {
    /// Its seat.
    pub seat: Seat,
    /// Its UID.
    pub occupant: Occupant,
    /// The sidecar's node, while it runs.
    pub node: Option<Node>,
    /// On tmpfs.
    pub record: Option<Record>,
    /// Asterisk.
    pub process: Process,
    /// As told to the node.
    pub is_ready: bool,
    /// All its processes stand still.
    pub is_paused: bool,
    /// Its clock too: the whole machine stands still.
    pub is_stopped: bool,
    /// For so many more of its own ticks it may count on votes that are over, since its clock stood still (R15).
    pub behind_for: u8,
    /// Orders on their way to the guard.
    pub orders: Vec<Order>,
    /// What the guard said, on its way back.
    pub said: Vec<GuardEvent>,
}

/// What the sidecar orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The leash's deadline.
    Arm(BootTime),
    /// Kill.
    Stop,
    /// Start, armed.
    Restart(BootTime),
}

/// Asterisk under its leash.
///
/// ```text
///  Dead ── boot ──► Slack ── arm ──► Armed ── deadline ──► Dying ── kill_margin ──► Dead
///    └────────── restart ──────────────┘                          (still serves)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// Does not run.
    Dead,
    /// A standby's.
    Slack,
    /// Serves; the kernel's timer stands.
    Armed(BootTime),
    /// The timer has fired at this deadline; it may answer for the time that a kill takes.
    Dying(BootTime),
}

impl Process {
    /// It may answer somebody.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Armed(_) | Self::Dying(_))
    }

    /// The deadline that stands in the kernel.
    pub fn deadline(self) -> Option<BootTime> {
        match self {
            Self::Armed(deadline) | Self::Dying(deadline) => Some(deadline),
            Self::Dead | Self::Slack => None,
        }
    }
}

/// A pod shared between states, with its hash: most steps change one pod of several.
#[derive(Clone, Debug)]
pub struct Cell {
    hash: u64,
    pod: Arc<Pod>,
}

impl Cell {
    /// Of this pod.
    pub fn new(pod: Pod) -> Self {
        let mut hasher = DefaultHasher::new();
        pod.hash(&mut hasher);
        Self {
            hash: hasher.finish(),
            pod: Arc::new(pod),
        }
    }
}

impl Deref for Cell {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

impl Hash for Cell {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}
