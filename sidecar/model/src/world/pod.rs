//! A pod: the real node, and around it a shell, a guard with its kernel, and a tmpfs.

use pbx_core::{BootTime, Condition, Node, Occupant, Record, Seat};

use super::random::Clock;

/// One pod. Its place in the world's list names it for ever.
pub struct Pod {
    /// Where it sits, or sat.
    pub seat: Seat,
    /// Its UID.
    pub occupant: Occupant,
    /// The machine's clock.
    pub clock: Clock,
    /// The running sidecar's node.
    pub node: Option<Node>,
    /// Counts the sidecar's processes: what was meant for an earlier one is lost.
    pub life: u32,
    /// On its tmpfs.
    pub record: Option<Record>,
    /// Asterisk, and the leash.
    pub asterisk: Process,
    /// As the shell told it last.
    pub condition: Condition,
    /// Certainly dead since then: never to act again.
    pub dead_since: Option<u64>,
    /// Its processes stand still until then.
    pub paused_until: u64,
    /// Until this moment of its own clock it may count on votes that are over, since the clock stood still (R15).
    pub behind_until: BootTime,
    /// Its guard stands still until then.
    pub guard_paused_until: u64,
    /// The life of the sidecar that the guard is connected to: orders of earlier ones are lost.
    pub guard_follows: u32,
    /// It reaches no API until then.
    pub api_cut_until: u64,
    /// It was told to end.
    pub is_terminating: bool,
    /// The sidecar dies in the middle of its next effects.
    pub dies_midway: bool,
    /// The tick that counts: earlier ones were overtaken.
    pub tick_serial: u64,
    /// Orders reach the guard in order.
    pub guard_busy_until: u64,
    /// And its events the sidecar.
    pub guard_said_until: u64,
    /// Asterisk cannot be started (a broken configuration).
    pub is_broken: bool,
    /// What its condition says.
    pub rank: u8,
}

/// Asterisk under its leash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Alive.
    pub is_running: bool,
    /// The kernel's deadline on the pod's clock.
    pub deadline: Option<BootTime>,
    /// Counts the processes.
    pub run: u64,
    /// Counts the settings of the timer.
    pub timer: u64,
}

impl Process {
    /// Armed and alive: what I1 allows once.
    pub fn is_serving(&self) -> bool {
        self.is_running && self.deadline.is_some()
    }
}
