//! A pod: the real node, and around it a shell, a guard with its kernel, and a tmpfs.

use pbx_core::{BootTime, Condition, Node, Occupant, Record, Seat};

use super::random::Clock;

/// One pod. Its place in the world's list names it for ever.
pub struct Pod {
    pub seat: Seat,
    pub occupant: Occupant,
    pub clock: Clock,
    /// The running sidecar's node.
    pub node: Option<Node>,
    /// Counts the sidecar's processes: what was meant for an earlier one is lost.
    pub life: u32,
    pub record: Option<Record>,
    pub asterisk: Process,
    pub condition: Condition,
    /// Certainly dead since then: never to act again.
    pub dead_since: Option<u64>,
    pub paused_until: u64,
    pub api_cut_until: u64,
    pub is_terminating: bool,
    /// The sidecar dies in the middle of its next effects.
    pub dies_midway: bool,
    pub tick_serial: u64,
    /// Commands reach the guard, and its events the sidecar, in order.
    pub guard_busy_until: u64,
    pub guard_said_until: u64,
    /// Asterisk cannot be started (a broken configuration).
    pub is_broken: bool,
    pub rank: u8,
}

/// Asterisk under its leash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
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
