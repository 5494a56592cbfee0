//! When a drill is due, and why one is skipped. Pure.

use std::str::FromStr;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pbx_crds::health::HealthLevel;
use thiserror::Error;

/// Why a schedule cannot be used.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// It is no schedule.
    #[error(
        "drills.schedule \"{schedule}\" is no cron schedule: write five fields, such as 0 3 * * 0 ({source})"
    )]
    Parse {
        /// As written.
        schedule: String,
        /// What is wrong with it.
        source: croner::errors::CronError,
    },
    /// It never comes, such as on 30 February.
    #[error("drills.schedule \"{schedule}\" never comes: choose days that exist ({source})")]
    Never {
        /// As written.
        schedule: String,
        /// What the search said.
        source: croner::errors::CronError,
    },
}

/// A schedule, in UTC.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Cron,
    next: Timestamp,
}

/// What is known when a drill is due.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Maintenance.
    pub is_paused: bool,
    /// Another move is under way.
    pub is_moving: bool,
    /// How well this node is.
    pub level: HealthLevel,
    /// Every other node is heard, and could take over.
    pub are_standbys_ready: bool,
}

impl Schedule {
    /// Reads it, and finds its first moment after `now`.
    pub fn new(schedule: &str, now: Timestamp) -> Result<Self, ScheduleError> {
        let cron = Cron::from_str(schedule).map_err(|source| ScheduleError::Parse {
            schedule: schedule.to_owned(),
            source,
        })?;
        let next = next_of(&cron, schedule, now)?;
        Ok(Self {
            text: schedule.to_owned(),
            cron,
            next,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// When the next one is due.
    pub fn next(&self) -> Timestamp {
        self.next
    }

    /// Whether one is due; then the next one is found. Those that were missed are one.
    pub fn is_due(&mut self, now: Timestamp) -> bool {
        if now < self.next {
            return false;
        }
        // One that was found once comes again.
        self.next = next_of(&self.cron, &self.text, now).unwrap_or(Timestamp::MAX);
        true
    }
}

/// Why a drill would prove nothing now; `None`: it may begin.
pub fn obstacle(pair: Pair) -> Option<&'static str> {
    [
        (pair.is_paused, "Paused"),
        (pair.is_moving, "Busy"),
        (!pair.are_standbys_ready, "StandbyNotReady"),
        (pair.level >= HealthLevel::Critical, "NodeSick"),
    ]
    .into_iter()
    .find_map(|(is_so, reason)| is_so.then_some(reason))
}

fn next_of(cron: &Cron, schedule: &str, now: Timestamp) -> Result<Timestamp, ScheduleError> {
    let next = cron.find_next_occurrence(&now.to_zoned(TimeZone::UTC), false);
    let next = next.map_err(|source| ScheduleError::Never {
        schedule: schedule.to_owned(),
        source,
    })?;
    Ok(next.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_schedule_is_due_once_and_missed_ones_are_one() {
        let mut schedule = Schedule::new("0 3 * * 0", at("2026-11-20T12:00:00Z")).unwrap();
        assert_eq!(schedule.next(), at("2026-11-22T03:00:00Z"));
        assert!(!schedule.is_due(at("2026-11-22T02:59:59Z")));
        assert!(schedule.is_due(at("2026-12-01T00:00:00Z")));
        assert!(!schedule.is_due(at("2026-12-01T00:00:01Z")));
        assert_eq!(schedule.next(), at("2026-12-06T03:00:00Z"));
    }

    #[test]
    fn nonsense_and_days_that_do_not_exist_are_said() {
        let now = at("2026-11-20T12:00:00Z");
        let nonsense = Schedule::new("every sunday", now).unwrap_err().to_string();
        assert!(nonsense.contains("write five fields"), "{nonsense}");
        let never = Schedule::new("0 3 30 2 *", now).unwrap_err().to_string();
        assert!(never.contains("never comes"), "{never}");
    }

    #[test]
    fn a_drill_needs_a_healthy_pair() {
        let well = Pair {
            is_paused: false,
            is_moving: false,
            level: HealthLevel::Warning,
            are_standbys_ready: true,
        };
        assert_eq!(obstacle(well), None);
        let cases = [
            (
                Pair {
                    is_paused: true,
                    ..well
                },
                "Paused",
            ),
            (
                Pair {
                    is_moving: true,
                    ..well
                },
                "Busy",
            ),
            (
                Pair {
                    are_standbys_ready: false,
                    ..well
                },
                "StandbyNotReady",
            ),
            (
                Pair {
                    level: HealthLevel::Critical,
                    ..well
                },
                "NodeSick",
            ),
        ];
        for (pair, reason) in cases {
            assert_eq!(obstacle(pair), Some(reason));
        }
    }
}
