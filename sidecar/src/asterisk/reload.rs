//! A new configuration on its way: tried by a standby first, then given to the active. A pure machine; each node has one, and all
//! see the same files.
//!
//! ```text
//!                  standby: starts with it                     lived, and is well
//!  Settled ──new──────────────────────────► Trying ──────────────────────────────► Settled, told to the others
//!     │                                        │ ended, too late, sick
//!     │                                        └────────────► goes back: Rejected until the files change again
//!     │ active: waits until another has told that it lives with it
//!     └──────────────► Waiting ──► reload ──► Settled            (or hands over, and tries it as a standby)
//! ```
//!
//! So what no standby has lived with never reaches the active. Standbys try in turn, by their seats: the next one when another lives with
//! it, or has had its time, so that one is left to take over.

use std::collections::BTreeMap;
use std::time::Duration;

use pbx_core::BootTime;

/// A start takes half a second; a busy machine gets a lot more.
const TRIAL_LIMIT: Duration = Duration::from_secs(30);
/// Fully booted for so long, and well: modules that fail do so at once, and the sensors have looked.
const TRIAL_LIFE: Duration = Duration::from_secs(3);
/// What a peer told is worth something for so long: it tells it every few seconds.
const TOLD_LIFE: Duration = Duration::from_secs(30);
/// How often a standby tells which configuration it lives with.
pub const TELL_INTERVAL: Duration = Duration::from_secs(8);
/// A switchover for a configuration that was refused is asked for again after this.
const MOVE_RETRY: Duration = Duration::from_secs(30);
/// A standby waits so long for each one before it: a whole trial, and the telling.
const TURN: Duration = Duration::from_secs(40);
/// After this, an active that nobody tries it for says so.
const WAITING_LIMIT: Duration = Duration::from_mins(2);

/// What is known of this node.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// It serves.
    pub is_active: bool,
    /// Its Asterisk is fully booted, and nothing ends it.
    pub is_booted: bool,
    /// Its Asterisk does not run, and nothing is lost by starting it with something else: it is not meant to run, or cannot live.
    pub is_stopped: bool,
    /// Its health is at level Failure.
    pub is_sick: bool,
    /// A move is under way, or the node ends.
    pub is_busy: bool,
    /// Other standbys of lower seats, whatever they do.
    pub standbys_before: u32,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the standby's Asterisk with the candidate.
    Try,
    /// The candidate is proven here: keep it.
    Keep,
    /// Start the standby's Asterisk with the configuration before.
    GoBack,
    /// Give the candidate to the active: by a reload, or by a switchover where that is not enough.
    Apply,
}

/// The machine. Configurations are named by their hashes.
#[derive(Debug, Default)]
pub struct Rollover {
    candidate: Option<String>,
    rejected: Option<String>,
    trial: Option<Trial>,
    waiting_since: Option<BootTime>,
    applied_at: Option<BootTime>,
    told: BTreeMap<String, (String, BootTime)>,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    until: BootTime,
    /// The Asterisk of before has gone: what lives now lives with the candidate.
    has_restarted: bool,
    booted_at: Option<BootTime>,
}

impl Rollover {
    /// The files have changed to this; `running` is what Asterisk runs with.
    pub fn on_files(&mut self, now: BootTime, hash: &str, running: &str) {
        if self.rejected.as_deref() != Some(hash) {
            self.rejected = None;
        }
        let is_new = hash != running;
        if self.candidate.as_deref() != Some(hash) {
            self.waiting_since = is_new.then_some(now);
            self.applied_at = None;
        }
        self.candidate = is_new.then(|| hash.to_owned());
    }

    /// A peer lives with this.
    pub fn on_told(&mut self, now: BootTime, node: &str, hash: &str) {
        self.told.insert(node.to_owned(), (hash.to_owned(), now));
    }

    /// The candidate is what runs now.
    pub fn on_applied(&mut self) {
        self.candidate = None;
        self.trial = None;
        self.waiting_since = None;
    }

    /// It could not be applied, or proved bad.
    pub fn on_failed(&mut self) {
        self.rejected = self.candidate.take();
        self.trial = None;
        self.waiting_since = None;
    }

    /// Asterisk ended: that of before, or the one on trial.
    pub fn on_exited(&mut self, now: BootTime) {
        let Some(trial) = &mut self.trial else { return };
        if std::mem::replace(&mut trial.has_restarted, true) {
            trial.booted_at = None;
            trial.until = now;
        }
    }

    /// This standby is not to take over: its Asterisk is on trial.
    pub fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// The candidate that nobody has tried for long.
    pub fn overdue(&self, now: BootTime) -> Option<&str> {
        let since = self.waiting_since?;
        (now.since(since) >= WAITING_LIMIT).then_some(self.candidate.as_deref()?)
    }

    /// What is due; carried out at once.
    pub fn on_tick(&mut self, now: BootTime, state: State) -> Option<Action> {
        if let Some(trial) = &mut self.trial {
            let verdict = trial.judge(now, state);
            if verdict.is_some() {
                self.trial = None;
            }
            return verdict;
        }
        let candidate = self.candidate.as_deref()?;
        if state.is_busy || self.rejected.as_deref() == Some(candidate) {
            return None;
        }
        if !state.is_active {
            let may_try = state.is_stopped || (state.is_booted && self.has_turn(now, state));
            if !may_try {
                return None;
            }
            self.trial = Some(Trial {
                until: now.after(TRIAL_LIMIT),
                has_restarted: state.is_stopped,
                booted_at: None,
            });
            return Some(Action::Try);
        }
        let may_ask = self.applied_at.is_none_or(|at| now.since(at) >= MOVE_RETRY);
        if state.is_booted && may_ask && self.is_proven(now, candidate) {
            self.applied_at = Some(now);
            return Some(Action::Apply);
        }
        None
    }

    /// When [`Rollover::on_tick`] has something to do.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let trial = self.trial.as_ref()?;
        let proof = trial.booted_at.map(|at| at.after(TRIAL_LIFE));
        Some(proof.map_or(trial.until, |at| at.min(trial.until)))
    }

    /// A standby that could take over does not leave the active alone for a trial at the same time as others.
    fn has_turn(&self, now: BootTime, state: State) -> bool {
        let waited = self.waiting_since.map(|since| now.since(since));
        let candidate = self.candidate.as_deref().unwrap_or_default();
        waited.is_none_or(|waited| waited >= TURN * state.standbys_before)
            || self.is_proven(now, candidate)
    }

    fn is_proven(&self, now: BootTime, candidate: &str) -> bool {
        let is_fresh = |at: BootTime| now.since(at) < TOLD_LIFE;
        let mut told = self.told.values();
        told.any(|(hash, at)| hash == candidate && is_fresh(*at))
    }
}

impl Trial {
    fn judge(&mut self, now: BootTime, state: State) -> Option<Action> {
        let is_new_life = state.is_booted && self.has_restarted;
        if is_new_life && self.booted_at.is_none() && now < self.until {
            self.booted_at = Some(now);
            self.until = self.until.max(now.after(TRIAL_LIFE));
        }
        if let Some(at) = self.booted_at
            && now.since(at) >= TRIAL_LIFE
        {
            return Some(if state.is_sick {
                Action::GoBack
            } else {
                Action::Keep
            });
        }
        (now >= self.until).then_some(Action::GoBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(1_000_000_000_000);
    const STANDBY: State = State {
        is_active: false,
        is_booted: true,
        is_stopped: false,
        is_sick: false,
        is_busy: false,
        standbys_before: 0,
    };
    const ACTIVE: State = State {
        is_active: true,
        ..STANDBY
    };
    const DOWN: State = State {
        is_booted: false,
        ..STANDBY
    };

    fn at(seconds: u64) -> BootTime {
        NOW.after(Duration::from_secs(seconds))
    }

    fn with_new() -> Rollover {
        let mut rollover = Rollover::default();
        rollover.on_files(NOW, "new", "old");
        rollover
    }

    #[test]
    fn a_standby_tries_it_and_keeps_it_when_it_lives() {
        let mut rollover = with_new();
        assert_eq!(rollover.on_tick(NOW, STANDBY), Some(Action::Try));
        assert!(rollover.is_trying());
        assert_eq!(rollover.on_tick(NOW, STANDBY), None, "that is the old life");
        rollover.on_exited(NOW);
        assert_eq!(rollover.on_tick(NOW, DOWN), None);
        assert_eq!(
            rollover.on_tick(at(1), STANDBY),
            None,
            "booted a moment ago"
        );
        assert_eq!(rollover.next_deadline(), Some(at(4)));
        assert_eq!(rollover.on_tick(at(4), STANDBY), Some(Action::Keep));
        rollover.on_applied();
        assert_eq!(rollover.on_tick(at(5), STANDBY), None);
    }

    #[test]
    fn a_second_standby_waits_for_the_first_one_and_not_for_ever() {
        let second = State {
            standbys_before: 1,
            ..STANDBY
        };
        let mut rollover = with_new();
        assert_eq!(rollover.on_tick(at(39), second), None);
        let mut told = with_new();
        told.on_told(at(5), "a", "new");
        assert_eq!(told.on_tick(at(5), second), Some(Action::Try));
        assert_eq!(rollover.on_tick(at(40), second), Some(Action::Try));
        let stopped = State {
            is_booted: false,
            is_stopped: true,
            ..second
        };
        assert_eq!(with_new().on_tick(NOW, stopped), Some(Action::Try));
    }

    #[test]
    fn one_that_dies_or_never_boots_or_is_sick_goes_back_and_is_not_tried_again() {
        let mut never = with_new();
        never.on_tick(NOW, STANDBY);
        assert_eq!(never.on_tick(at(30), DOWN), Some(Action::GoBack));
        never.on_failed();
        never.on_files(at(31), "new", "old");
        assert_eq!(never.on_tick(at(31), STANDBY), None);
        never.on_files(at(32), "newer", "old");
        assert_eq!(never.on_tick(at(32), STANDBY), Some(Action::Try));

        let mut dies = with_new();
        dies.on_tick(NOW, STANDBY);
        dies.on_exited(NOW);
        dies.on_tick(at(1), STANDBY);
        dies.on_exited(at(2));
        assert_eq!(dies.on_tick(at(2), DOWN), Some(Action::GoBack));

        let mut sick = with_new();
        sick.on_tick(NOW, STANDBY);
        sick.on_exited(NOW);
        sick.on_tick(at(1), STANDBY);
        let is_sick = State {
            is_sick: true,
            ..STANDBY
        };
        assert_eq!(sick.on_tick(at(4), is_sick), Some(Action::GoBack));
    }

    #[test]
    fn the_active_waits_for_a_peer_that_lives_with_it() {
        let mut rollover = with_new();
        assert_eq!(rollover.on_tick(NOW, ACTIVE), None);
        rollover.on_told(NOW, "b", "old");
        assert_eq!(rollover.on_tick(NOW, ACTIVE), None);
        rollover.on_told(NOW, "b", "new");
        assert_eq!(rollover.on_tick(at(31), ACTIVE), None, "told long ago");
        rollover.on_told(at(31), "b", "new");
        assert_eq!(rollover.on_tick(at(31), ACTIVE), Some(Action::Apply));
        assert_eq!(rollover.on_tick(at(32), ACTIVE), None, "it is asked once");
        assert_eq!(rollover.overdue(at(100)), None);
        assert_eq!(rollover.overdue(at(120)), Some("new"));
    }

    #[test]
    fn files_that_go_back_end_it() {
        let mut rollover = with_new();
        rollover.on_files(at(1), "old", "old");
        assert_eq!(rollover.on_tick(at(1), STANDBY), None);
    }
}
