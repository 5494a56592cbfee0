//! From readings to a level. Pure.
//!
//! The score is the sum of the points of all sensors that are not well, so it rises with degradation; two critical things are
//! worse than one. Silence of Asterisk counts once two questions were left unanswered, of one vital sensor or of several: one late
//! answer is a busy machine. A level is reached at once, and left only after the score has stayed below it for a while:
//!
//! ```text
//!          score ≥ warning      ≥ critical        ≥ failure
//!   Good ───────────► Warning ───────────► Critical ──────► Failure      (at once, also past levels between)
//!    ▲                  │ ▲                   │ ▲               │
//!    └──────────────────┘ └───────────────────┘ └───────────────┘        (below for `recovery`)
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use pbx_core::BootTime;
use pbx_crds::health::{HealthLevel, HealthSpec, HealthStatus};

use super::plan::{self, Sensor};

/// A warning counts this part of a sensor's points.
const WARNING_PART: u16 = 5;
/// Sensors that a status names.
const NAMED: usize = 5;

/// How a sensor found things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Good,
    /// Worth a look.
    Warning,
    /// Not well.
    Critical,
    /// No answer in time.
    Silent,
    /// It does not apply here and now.
    Skipped,
}

/// What a sensor read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// How it found things.
    pub verdict: Verdict,
    /// In words, for logs and HTTP.
    pub text: String,
    /// In figures, where there is one.
    pub value: Option<f64>,
}

impl Reading {
    /// A reading without a figure.
    pub fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            verdict,
            text: text.into(),
            value: None,
        }
    }
}

/// All sensors and the level that they make.
#[derive(Debug)]
pub struct Scoreboard {
    thresholds: [(u16, HealthLevel); 3],
    recovery: Duration,
    sensors: BTreeMap<String, Entry>,
    level: HealthLevel,
    below_since: Option<BootTime>,
}

#[derive(Debug)]
struct Entry {
    sensor: Sensor,
    reading: Option<Reading>,
    failures_in_a_row: u8,
}

/// What the scoreboard says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assessment {
    /// The sum.
    pub score: u32,
    /// With its hysteresis.
    pub status: HealthStatus,
    /// Asterisk itself does not answer.
    pub is_hung: bool,
}

impl Scoreboard {
    /// Nothing has been read yet.
    pub fn new(spec: &HealthSpec, sensors: &[Sensor]) -> Self {
        let entry = |sensor: &Sensor| {
            let entry = Entry {
                sensor: sensor.clone(),
                reading: None,
                failures_in_a_row: 0,
            };
            (sensor.name.clone(), entry)
        };
        Self {
            thresholds: [
                (spec.failure, HealthLevel::Failure),
                (spec.critical, HealthLevel::Critical),
                (spec.warning, HealthLevel::Warning),
            ],
            recovery: spec.recovery.get(),
            sensors: sensors.iter().map(entry).collect(),
            level: HealthLevel::Good,
            below_since: None,
        }
    }

    /// A sensor was read.
    pub fn on_reading(&mut self, now: BootTime, name: &str, reading: Reading) -> Assessment {
        if let Some(entry) = self.sensors.get_mut(name) {
            entry.note(reading);
        }
        self.assess(now)
    }

    /// Asterisk began another life: nothing that was asked of the last one counts.
    pub fn forget_asterisk(&mut self, now: BootTime) -> Assessment {
        for entry in self.sensors.values_mut() {
            if plan::asks_asterisk(entry.sensor.kind) {
                entry.reading = None;
                entry.failures_in_a_row = 0;
            }
        }
        self.level = HealthLevel::Good;
        self.below_since = None;
        self.assess(now)
    }

    /// The level at `now`.
    pub fn assess(&mut self, now: BootTime) -> Assessment {
        let unanswered = self.unanswered();
        let points = |entry: &Entry| entry.points(unanswered);
        let score = self.sensors.values().map(points).sum();
        self.follow(now, self.level_of(score));
        Assessment {
            score,
            status: HealthStatus {
                level: self.level,
                sensors: self.worst(unanswered),
            },
            is_hung: self.sensors.values().any(|entry| entry.is_hung(unanswered)),
        }
    }

    /// When the level falls although nothing is read.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.below_since.map(|since| since.after(self.recovery))
    }

    fn level_of(&self, score: u32) -> HealthLevel {
        self.thresholds
            .iter()
            .find(|(threshold, _)| score >= u32::from(*threshold))
            .map_or(HealthLevel::Good, |(_, level)| *level)
    }

    fn follow(&mut self, now: BootTime, reached: HealthLevel) {
        if reached >= self.level {
            self.level = reached;
            self.below_since = None;
            return;
        }
        let since = *self.below_since.get_or_insert(now);
        if now.since(since) >= self.recovery {
            self.level = reached;
            self.below_since = None;
        }
    }

    /// Questions in a row that Asterisk has left unanswered, of all vital sensors together.
    fn unanswered(&self) -> u32 {
        let silent = self
            .sensors
            .values()
            .filter(|entry| entry.is_vitally_silent());
        silent.map(|entry| u32::from(entry.failures_in_a_row)).sum()
    }

    fn worst(&self, unanswered: u32) -> Vec<String> {
        let mut counting: Vec<&Entry> = self
            .sensors
            .values()
            .filter(|entry| entry.points(unanswered) > 0)
            .collect();
        counting.sort_by_key(|entry| std::cmp::Reverse(entry.points(unanswered)));
        counting
            .iter()
            .take(NAMED)
            .map(|entry| entry.sensor.name.clone())
            .collect()
    }
}

impl Entry {
    fn note(&mut self, reading: Reading) {
        let is_failure = matches!(reading.verdict, Verdict::Critical | Verdict::Silent);
        self.failures_in_a_row = if is_failure {
            self.failures_in_a_row.saturating_add(1)
        } else {
            0
        };
        self.reading = Some(reading);
    }

    fn points(&self, unanswered: u32) -> u32 {
        let points = self.sensor.points;
        let verdict = self.reading.as_ref().map(|reading| reading.verdict);
        u32::from(match verdict {
            Some(Verdict::Critical | Verdict::Silent) if self.is_believed(unanswered) => points,
            Some(Verdict::Warning) => points.div_ceil(WARNING_PART),
            _ => 0,
        })
    }

    fn is_hung(&self, unanswered: u32) -> bool {
        self.is_vitally_silent() && self.is_believed(unanswered)
    }

    fn is_vitally_silent(&self) -> bool {
        let is_silent = |reading: &Reading| reading.verdict == Verdict::Silent;
        plan::is_vital(self.sensor.kind) && self.reading.as_ref().is_some_and(is_silent)
    }

    /// The vital sensors ask the same Asterisk: what they find silent counts together.
    fn is_believed(&self, unanswered: u32) -> bool {
        let failures = if self.is_vitally_silent() {
            unanswered
        } else {
            u32::from(self.failures_in_a_row)
        };
        failures >= u32::from(self.sensor.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(1_000_000_000_000);

    fn board() -> Scoreboard {
        let spec = HealthSpec::default();
        Scoreboard::new(&spec, &plan::sensors(&spec, "/run"))
    }

    fn after(seconds: u64) -> BootTime {
        NOW.after(Duration::from_secs(seconds))
    }

    fn read(board: &mut Scoreboard, at: BootTime, name: &str, verdict: Verdict) -> Assessment {
        board.on_reading(at, name, Reading::new(verdict, "as read"))
    }

    fn fall_silent(board: &mut Scoreboard, at: BootTime) {
        for _ in 0..2 {
            read(board, at, "AmiPing", Verdict::Silent);
        }
    }

    #[test]
    fn the_score_rises_with_each_thing_that_is_lost() {
        let mut board = board();
        assert_eq!(
            read(&mut board, NOW, "Disk", Verdict::Warning).status.level,
            HealthLevel::Good
        );
        let critical = read(&mut board, NOW, "Disk", Verdict::Critical);
        assert_eq!(
            (critical.score, critical.status.level),
            (50, HealthLevel::Critical)
        );
        for _ in 0..2 {
            read(&mut board, NOW, "TaskProcessors", Verdict::Critical);
        }
        let failed = board.assess(NOW);
        assert_eq!(
            (failed.score, failed.status.level),
            (100, HealthLevel::Failure)
        );
        assert_eq!(failed.status.sensors, ["Disk", "TaskProcessors"]);
        assert!(!failed.is_hung, "sick is not hung");
    }

    #[test]
    fn asterisk_is_hung_once_two_vital_questions_were_left_unanswered() {
        let mut board = board();
        let once = read(&mut board, NOW, "Channels", Verdict::Silent);
        assert!(!once.is_hung && once.status.level == HealthLevel::Good);
        let twice = read(&mut board, NOW, "Channels", Verdict::Silent);
        assert!(twice.is_hung && twice.status.level == HealthLevel::Failure);
        read(&mut board, NOW, "Channels", Verdict::Good);
        assert!(!read(&mut board, NOW, "AmiPing", Verdict::Silent).is_hung);
        assert!(read(&mut board, NOW, "SipOptions", Verdict::Silent).is_hung);
    }

    #[test]
    fn other_sensors_say_nothing_of_a_hang() {
        let mut board = board();
        read(&mut board, NOW, "Registrations", Verdict::Silent);
        let refused = read(&mut board, NOW, "Registrations", Verdict::Silent);
        assert!(!refused.is_hung && refused.score == 30);
        assert!(!read(&mut board, NOW, "AmiPing", Verdict::Silent).is_hung);
    }

    #[test]
    fn late_answers_between_answers_in_time_never_add_up() {
        let mut board = board();
        for name in ["AmiPing", "Channels", "SipOptions", "AmiPing"] {
            assert!(!read(&mut board, NOW, name, Verdict::Silent).is_hung);
            assert_eq!(read(&mut board, NOW, name, Verdict::Good).score, 0);
        }
    }

    #[test]
    fn one_failure_of_a_patient_sensor_counts_nothing() {
        let mut board = board();
        assert_eq!(
            read(&mut board, NOW, "Registrations", Verdict::Critical).score,
            0
        );
        assert_eq!(
            read(&mut board, NOW, "Registrations", Verdict::Critical).score,
            30
        );
        assert_eq!(
            read(&mut board, NOW, "Registrations", Verdict::Good).score,
            0
        );
    }

    #[test]
    fn a_level_falls_only_after_the_score_was_low_for_the_recovery() {
        let mut board = board();
        fall_silent(&mut board, NOW);
        let level = |board: &mut Scoreboard, seconds| board.assess(after(seconds)).status.level;
        read(&mut board, after(1), "AmiPing", Verdict::Good);
        assert_eq!(board.next_deadline(), Some(after(11)));
        assert_eq!(level(&mut board, 10), HealthLevel::Failure);
        fall_silent(&mut board, after(10));
        read(&mut board, after(12), "AmiPing", Verdict::Good);
        assert_eq!(level(&mut board, 21), HealthLevel::Failure, "it began anew");
        assert_eq!(level(&mut board, 22), HealthLevel::Good);
        assert_eq!(board.next_deadline(), None);
    }

    #[test]
    fn a_new_life_of_asterisk_begins_well() {
        let mut board = board();
        fall_silent(&mut board, NOW);
        read(&mut board, NOW, "Disk", Verdict::Critical);
        let fresh = board.forget_asterisk(NOW);
        assert_eq!(
            (fresh.score, fresh.status.level),
            (50, HealthLevel::Critical)
        );
    }

    #[test]
    fn what_does_not_apply_and_who_is_unknown_count_nothing() {
        let mut board = board();
        read(&mut board, NOW, "Disk", Verdict::Critical);
        assert_eq!(read(&mut board, NOW, "Disk", Verdict::Skipped).score, 0);
        assert_eq!(read(&mut board, NOW, "nobody", Verdict::Critical).score, 0);
    }
}
