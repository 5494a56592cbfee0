//! When a standby's Asterisk may run: a pure machine.
//!
//! In Pod mode stale paths (kube-proxy, conntrack) lead to a demoted node for up to a second, so a demoted Asterisk starts again
//! only after an uncached read has shown the traffic pointing elsewhere, and a settling time. While the API is down, it stays
//! stopped. A node that the traffic points to while nobody serves is ready all the same: its promotion starts Asterisk armed.
//!
//! ```text
//!            traffic read, elsewhere, settled            FullyBooted
//!   Held ───────────────────────────────────► Starting ─────────────► Booted
//!    ▲            (or the core starts it)         │                      │
//!    └──────────────── exited ────────────────────┴──────────────────────┘
//! ```

use std::time::Duration;

use pbx_core::BootTime;

/// kube-proxy syncs at most once a second; a little more covers its work.
pub const SETTLING: Duration = Duration::from_millis(1_300);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read where the traffic points, uncached, and say so by [`Supervisor::on_traffic`].
    ReadTraffic,
    /// Start Asterisk without a deadline.
    StartSlack,
    /// Connect to it and wait for FullyBooted.
    Boot,
}

/// Where Asterisk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not running.
    Held,
    /// Not running, a start is ordered.
    Ordered,
    /// Running, not booted yet.
    Starting,
    /// Fully booted.
    Booted,
    /// Takes no new calls any more, and ends with its last one.
    Draining,
    /// It executes nothing any more, and is not gone yet.
    Ending,
}

/// The machine.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each learnt and asked alone"
)]
pub struct Supervisor {
    phase: Phase,
    /// Traffic is moved by an EndpointSlice.
    needs_traffic_read: bool,
    /// A standby's does not run.
    is_cold: bool,
    /// A person wants it stopped.
    is_halted: bool,
    has_config: bool,
    is_active: bool,
    is_leaving: bool,
    /// It served in its last life: stale flows may still come.
    has_served: bool,
    traffic: Traffic,
    may_start_at: BootTime,
    may_read_at: BootTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Unknown,
    Asked,
    Elsewhere,
    Here,
}

impl Supervisor {
    /// Nothing runs yet, as far as is known.
    pub fn new(needs_traffic_read: bool, is_cold: bool) -> Self {
        Self {
            is_cold,
            is_halted: false,
            phase: Phase::Held,
            needs_traffic_read,
            has_config: false,
            is_active: false,
            is_leaving: false,
            has_served: false,
            traffic: if needs_traffic_read {
                Traffic::Unknown
            } else {
                Traffic::Elsewhere
            },
            may_start_at: BootTime(0),
            may_read_at: BootTime(0),
        }
    }

    /// Where Asterisk is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether this node could be promoted now.
    pub fn is_ready(&self) -> bool {
        let may_be_stopped = (self.is_cold && !self.is_active) || self.traffic == Traffic::Here;
        let is_cold_ready = self.phase == Phase::Held && may_be_stopped && self.has_config;
        !self.is_leaving && !self.is_halted && (self.phase == Phase::Booted || is_cold_ready)
    }

    /// A standby's Asterisk does not run.
    pub fn is_cold(&self) -> bool {
        self.is_cold
    }

    /// A person wants a standby's Asterisk to stay stopped, or no more.
    pub fn halt(&mut self, is_halted: bool) {
        self.is_halted = is_halted;
    }

    /// The configuration directory is there.
    pub fn on_config(&mut self) {
        self.has_config = true;
    }

    /// This node won or lost the role.
    pub fn on_role(&mut self, is_active: bool) {
        self.is_active = is_active;
        self.has_served |= is_active;
    }

    /// The pod ends: nothing is started any more.
    pub fn on_leaving(&mut self) {
        self.is_leaving = true;
    }

    /// The guard started Asterisk.
    pub fn on_started(&mut self) -> Action {
        self.phase = Phase::Starting;
        Action::Boot
    }

    /// Asterisk is fully booted.
    pub fn on_booted(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Booted;
        }
    }

    /// Asterisk takes no new calls any more.
    pub fn on_draining(&mut self) {
        self.phase = Phase::Draining;
    }

    /// Asterisk does nothing any more; [`Supervisor::on_exited`] follows.
    pub fn on_ending(&mut self) {
        self.phase = Phase::Ending;
    }

    /// Asterisk is gone, or was found not running. `quick_exits` counts its short lives in a row.
    pub fn on_exited(&mut self, now: BootTime, quick_exits: u32) {
        self.phase = Phase::Held;
        self.may_start_at = now.after(delay(quick_exits));
        if self.needs_traffic_read {
            self.traffic = Traffic::Unknown;
        }
    }

    /// An uncached read of the traffic was answered, or failed (`None`).
    pub fn on_traffic(&mut self, now: BootTime, is_here: Option<bool>) {
        match is_here {
            None => {
                self.traffic = Traffic::Unknown;
                self.may_read_at = now.after(RETRY);
            }
            Some(true) => {
                self.has_served = true;
                self.traffic = Traffic::Here;
                self.may_read_at = now.after(RETRY);
            }
            Some(false) => {
                self.traffic = Traffic::Elsewhere;
                if std::mem::take(&mut self.has_served) {
                    self.may_start_at = self.may_start_at.max(now.after(SETTLING));
                }
            }
        }
    }

    /// When [`Supervisor::on_tick`] has something to do.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.wants_start().then_some(self.due_at())
    }

    /// What is due.
    pub fn on_tick(&mut self, now: BootTime) -> Option<Action> {
        if !self.wants_start() || now < self.due_at() {
            return None;
        }
        if self.traffic == Traffic::Elsewhere {
            self.phase = Phase::Ordered;
            return Some(Action::StartSlack);
        }
        // A node that the traffic points to stays ready while it asks again.
        if self.traffic == Traffic::Unknown {
            self.traffic = Traffic::Asked;
        }
        self.may_read_at = now.after(RETRY);
        Some(Action::ReadTraffic)
    }

    fn due_at(&self) -> BootTime {
        if self.traffic == Traffic::Elsewhere {
            self.may_start_at
        } else {
            self.may_read_at
        }
    }

    fn wants_start(&self) -> bool {
        let is_asked = self.traffic == Traffic::Asked;
        self.phase == Phase::Held
            && self.has_config
            && !self.is_cold
            && !self.is_halted
            && !self.is_active
            && !self.is_leaving
            && !is_asked
    }
}

const RETRY: Duration = Duration::from_millis(250);

/// How long a standby that keeps dying is held back.
fn delay(quick_exits: u32) -> Duration {
    match quick_exits {
        0 => Duration::ZERO,
        more => LONGEST_DELAY.min(Duration::from_millis(500) * (1 << (more - 1).min(6))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(1_000_000_000_000);

    fn held() -> Supervisor {
        let mut supervisor = Supervisor::new(true, false);
        supervisor.on_config();
        supervisor
    }

    fn demoted() -> Supervisor {
        let mut supervisor = held();
        supervisor.on_role(true);
        supervisor.on_role(false);
        supervisor.on_exited(NOW, 0);
        supervisor
    }

    #[test]
    fn a_new_standby_starts_once_the_traffic_is_seen_elsewhere() {
        let mut supervisor = held();
        assert_eq!(supervisor.on_tick(NOW), Some(Action::ReadTraffic));
        assert_eq!(supervisor.on_tick(NOW), None);
        supervisor.on_traffic(NOW, Some(false));
        assert_eq!(supervisor.on_tick(NOW), Some(Action::StartSlack));
        assert_eq!(supervisor.on_tick(NOW), None, "it is ordered once");
        assert_eq!(supervisor.on_started(), Action::Boot);
        assert!(!supervisor.is_ready());
        supervisor.on_booted();
        assert!(supervisor.is_ready());
    }

    #[test]
    fn a_demoted_one_settles_first() {
        let mut supervisor = demoted();
        assert_eq!(supervisor.on_tick(NOW), Some(Action::ReadTraffic));
        supervisor.on_traffic(NOW, Some(false));
        assert_eq!(supervisor.on_tick(NOW), None);
        assert_eq!(
            supervisor.on_tick(NOW.after(SETTLING)),
            Some(Action::StartSlack)
        );
    }

    #[test]
    fn while_the_api_is_down_a_demoted_one_stays_stopped() {
        let mut supervisor = demoted();
        for second in 0..60 {
            let now = NOW.after(Duration::from_secs(second));
            assert_ne!(supervisor.on_tick(now), Some(Action::StartSlack));
            supervisor.on_traffic(now, None);
        }
        assert!(!supervisor.is_ready());
    }

    #[test]
    fn who_the_traffic_points_to_is_ready_while_stopped() {
        let mut supervisor = demoted();
        supervisor.on_tick(NOW);
        supervisor.on_traffic(NOW, Some(true));
        assert!(supervisor.is_ready());
        assert_eq!(supervisor.on_tick(NOW), None);
        assert_eq!(
            supervisor.on_tick(NOW.after(RETRY)),
            Some(Action::ReadTraffic)
        );
        assert!(supervisor.is_ready(), "it stays ready while it asks again");
    }

    #[test]
    fn a_leaving_node_starts_nothing() {
        let mut supervisor = held();
        supervisor.on_leaving();
        assert_eq!(supervisor.on_tick(NOW), None);
        assert!(!supervisor.is_ready());
    }

    #[test]
    fn a_cold_standby_is_ready_and_not_started() {
        let mut supervisor = Supervisor::new(true, true);
        assert!(!supervisor.is_ready(), "without a configuration");
        supervisor.on_config();
        assert_eq!(supervisor.on_tick(NOW), None);
        assert!(supervisor.is_ready());
        supervisor.on_role(true);
        supervisor.on_started();
        assert!(!supervisor.is_ready());
        supervisor.on_booted();
        assert!(supervisor.is_ready());
    }

    #[test]
    fn a_draining_one_is_not_ready_and_settles_when_it_has_ended() {
        let mut supervisor = held();
        supervisor.on_started();
        supervisor.on_booted();
        supervisor.on_role(true);
        supervisor.on_draining();
        supervisor.on_role(false);
        assert!(!supervisor.is_ready());
        assert_eq!(supervisor.on_tick(NOW), None);
        supervisor.on_exited(NOW, 0);
        assert_eq!(supervisor.on_tick(NOW), Some(Action::ReadTraffic));
    }

    #[test]
    fn a_bare_host_starts_at_once() {
        let mut supervisor = Supervisor::new(false, false);
        supervisor.on_config();
        assert_eq!(supervisor.on_tick(NOW), Some(Action::StartSlack));
    }
}
