//! A pod: the real node, and around it a shell, a guard with its kernel, and a tmpfs.

use std::collections::VecDeque;

use pbx_core::{BootTime, Condition, Input, Node, Occupant, Record, Seat};
use pbx_guard::driver::Driver;

use super::guard::Process;
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
    /// Between the node and the guard.
    pub driver: Driver,
    /// What the node is still to be told in this step.
    pub inputs: VecDeque<Input>,
    /// The node is being told.
    pub is_stepping: bool,
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
    /// Counts the sidecar's connections to the guard.
    pub connection: u32,
    /// The first connection that the guard still listens to: orders of earlier ones are lost.
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
    /// What its condition says.
    pub rank: u8,
}

impl Pod {
    /// The sidecar's process is gone, with what it was about to hear and its connection to the guard.
    pub(super) fn end_sidecar(&mut self) {
        self.node = None;
        self.inputs.clear();
        self.life += 1;
        self.connection += 1;
    }
}
