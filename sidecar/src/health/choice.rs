//! What follows from a level. Pure.
//!
//! A hung Asterisk serves nobody: its node hands over to a healthier one, or starts it again in place. One that is sick and
//! still serves hands over to a healthier node, or goes on. Whether there is one the core knows; it answers with a refusal.

use std::time::Duration;

use pbx_core::{BootTime, Cause};
use pbx_crds::health::HealthLevel;

use super::score::Assessment;

/// A refused move for health is asked for again this often: a standby may have recovered.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After the first restart of a hung Asterisk the next one waits: doubled each time, so that a node that cannot do better is
/// not busy with starting only.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_PATIENCE: Duration = Duration::from_mins(1);
/// An Asterisk that answered for so long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_mins(1);

/// What is known when a decision is due.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// This node serves.
    pub is_active: bool,
    /// Asterisk is fully booted, and no planned end of it is under way.
    pub is_booted: bool,
    /// Maintenance.
    pub is_paused: bool,
    /// A healthier standby could take over, and may.
    pub has_heir: bool,
    /// How well it is.
    pub assessment: &'a Assessment,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask the core to hand over, for this cause.
    HandOver(Cause),
    /// Kill this standby's Asterisk: it is started again.
    RestartStandby,
    /// A move is not made, for this reason: counted.
    Suppress(&'static str),
}

/// Remembers what was decided, so that one trouble is one decision.
#[derive(Debug, Default)]
pub struct Chooser {
    asked_at: Option<BootTime>,
    suppressed: Option<&'static str>,
    hangs: u32,
    hung_at: Option<BootTime>,
}

impl Chooser {
    /// What to do now, if anything.
    pub fn decide(&mut self, now: BootTime, situation: &Situation<'_>) -> Option<Decision> {
        let is_failed = situation.assessment.status.level == HealthLevel::Failure;
        if !is_failed || !situation.is_booted {
            self.suppressed = None;
            return None;
        }
        if situation.is_paused {
            return self.suppress("Paused");
        }
        match (situation.assessment.is_hung, situation.is_active) {
            // Restarts are held back, not the way to a node that works.
            (true, true) if situation.has_heir => self.ask(now, Cause::AsteriskHung),
            (true, is_active) => self.on_hung(now, is_active),
            (false, true) => self.ask(now, Cause::HealthFailed),
            (false, false) => None,
        }
    }

    /// The core refused: counted, once for each reason of one trouble.
    pub fn on_refused(&mut self, reason: &'static str) -> Option<Decision> {
        self.suppress(reason)
    }

    /// When [`Chooser::decide`] has something to do although nothing changed.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.asked_at.map(|at| at.after(ASK_AGAIN))
    }

    fn on_hung(&mut self, now: BootTime, is_active: bool) -> Option<Decision> {
        if let Some(at) = self.hung_at {
            if now.since(at) >= RECOVERED_AFTER {
                self.hangs = 0;
            } else if now.since(at) < self.patience() {
                return self.suppress("HungAgain");
            }
        }
        self.hung_at = Some(now);
        self.hangs += 1;
        self.suppressed = None;
        Some(if is_active {
            Decision::HandOver(Cause::AsteriskHung)
        } else {
            Decision::RestartStandby
        })
    }

    /// Once a second, until the role has moved or the trouble is over.
    fn ask(&mut self, now: BootTime, cause: Cause) -> Option<Decision> {
        if self.asked_at.is_some_and(|at| now.since(at) < ASK_AGAIN) {
            return None;
        }
        self.asked_at = Some(now);
        Some(Decision::HandOver(cause))
    }

    fn suppress(&mut self, reason: &'static str) -> Option<Decision> {
        let is_new = self.suppressed != Some(reason);
        self.suppressed = Some(reason);
        is_new.then_some(Decision::Suppress(reason))
    }

    fn patience(&self) -> Duration {
        LONGEST_PATIENCE.min(FIRST_PATIENCE * (1 << self.hangs.saturating_sub(1).min(6)))
    }
}

#[cfg(test)]
mod tests {
    use pbx_crds::health::HealthStatus;

    use super::*;

    const NOW: BootTime = BootTime(1_000_000_000_000);

    fn assessment(level: HealthLevel, is_hung: bool) -> Assessment {
        Assessment {
            score: 0,
            status: HealthStatus {
                level,
                sensors: Vec::new(),
            },
            is_hung,
        }
    }

    fn at(seconds: u64) -> BootTime {
        NOW.after(Duration::from_secs(seconds))
    }

    fn situation(assessment: &Assessment) -> Situation<'_> {
        Situation {
            is_active: true,
            is_booted: true,
            is_paused: false,
            has_heir: true,
            assessment,
        }
    }

    #[test]
    fn below_failure_nothing_moves() {
        let critical = assessment(HealthLevel::Critical, false);
        assert_eq!(Chooser::default().decide(NOW, &situation(&critical)), None);
    }

    #[test]
    fn a_sick_active_asks_again_and_a_refusal_counts_once() {
        let sick = assessment(HealthLevel::Failure, false);
        let mut chooser = Chooser::default();
        let move_it = Some(Decision::HandOver(Cause::HealthFailed));
        assert_eq!(chooser.decide(NOW, &situation(&sick)), move_it);
        let counted = Some(Decision::Suppress("HeirSicker"));
        assert_eq!(chooser.on_refused("HeirSicker"), counted);
        assert_eq!(chooser.decide(NOW, &situation(&sick)), None);
        assert_eq!(chooser.decide(at(1), &situation(&sick)), move_it);
        assert_eq!(chooser.on_refused("HeirSicker"), None);
        assert_eq!(
            chooser.on_refused("NoHeir"),
            Some(Decision::Suppress("NoHeir"))
        );
    }

    #[test]
    fn a_hung_active_moves_and_a_hung_standby_is_started_again() {
        let hung = assessment(HealthLevel::Failure, true);
        let mut standby = situation(&hung);
        standby.is_active = false;
        assert_eq!(
            Chooser::default().decide(NOW, &situation(&hung)),
            Some(Decision::HandOver(Cause::AsteriskHung))
        );
        assert_eq!(
            Chooser::default().decide(NOW, &standby),
            Some(Decision::RestartStandby)
        );
    }

    #[test]
    fn one_that_hangs_again_and_again_is_restarted_at_a_slower_pace() {
        let hung = assessment(HealthLevel::Failure, true);
        let mut alone = situation(&hung);
        alone.has_heir = false;
        let mut chooser = Chooser::default();
        assert!(chooser.decide(NOW, &alone).is_some());
        let held = Some(Decision::Suppress("HungAgain"));
        assert_eq!(chooser.decide(at(2), &alone), held);
        assert_eq!(chooser.decide(at(3), &alone), None);
        let again = Some(Decision::HandOver(Cause::AsteriskHung));
        assert_eq!(chooser.decide(at(5), &alone), again);
        assert_eq!(chooser.decide(at(11), &alone), held);
        assert_eq!(chooser.decide(at(15), &alone), again);
    }

    #[test]
    fn an_active_that_hangs_again_hands_over_at_once_while_there_is_a_standby() {
        let hung = assessment(HealthLevel::Failure, true);
        let mut chooser = Chooser::default();
        let move_it = Some(Decision::HandOver(Cause::AsteriskHung));
        assert_eq!(chooser.decide(NOW, &situation(&hung)), move_it);
        let asked = chooser.decide(NOW.after(Duration::from_millis(500)), &situation(&hung));
        assert_eq!(asked, None, "the answer is on its way");
        assert_eq!(chooser.decide(at(2), &situation(&hung)), move_it);
    }

    #[test]
    fn paused_nothing_is_done_and_it_is_said() {
        let hung = assessment(HealthLevel::Failure, true);
        let mut paused = situation(&hung);
        paused.is_paused = true;
        let mut chooser = Chooser::default();
        assert_eq!(
            chooser.decide(NOW, &paused),
            Some(Decision::Suppress("Paused"))
        );
        assert_eq!(chooser.decide(NOW, &paused), None);
    }

    #[test]
    fn a_sick_standby_and_one_that_boots_are_left_alone() {
        let sick = assessment(HealthLevel::Failure, false);
        let mut standby = situation(&sick);
        standby.is_active = false;
        assert_eq!(Chooser::default().decide(NOW, &standby), None);
        let mut booting = situation(&sick);
        booting.is_booted = false;
        assert_eq!(Chooser::default().decide(NOW, &booting), None);
    }
}
