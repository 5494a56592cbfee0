//! Durations as Kubernetes writes them (`800ms`, `1m30s`), never negative.
//!
//! `kube::core::Duration` reads "-5s" as five seconds and has a bare string as its schema: this one refuses the
//! first and says its pattern in the second.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// What a duration in the resource looks like.
pub const PATTERN: &str = r"^([0-9]{1,6}(ms|s|m|h))+$";
const MAX_LENGTH: usize = 20;

/// A duration of whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortDuration(Duration);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// It does not look like one.
    #[error(
        "\"{0}\" is not a duration: write whole numbers with ms, s, m or h, such as 800ms or 1m30s"
    )]
    Malformed(String),
}

impl ShortDuration {
    /// A duration of `milliseconds`.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// As the standard library has it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<ShortDuration> for Duration {
    fn from(duration: ShortDuration) -> Self {
        duration.0
    }
}

impl FromStr for ShortDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || DurationError::Malformed(text.chars().take(40).collect());
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(malformed());
        }
        let mut rest = text;
        let mut milliseconds = 0_u64;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let count: u64 = rest[..digits].parse().map_err(|_| malformed())?;
            let (unit, tail) = split_unit(&rest[digits..]).ok_or_else(malformed)?;
            milliseconds = milliseconds
                .checked_add(count.checked_mul(unit).ok_or_else(malformed)?)
                .ok_or_else(malformed)?;
            rest = tail;
        }
        Ok(Self::from_millis(milliseconds))
    }
}

/// The unit's milliseconds, and what follows it.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
        .into_iter()
        .find_map(|(name, milliseconds)| text.strip_prefix(name).map(|tail| (milliseconds, tail)))
}

impl fmt::Display for ShortDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        if milliseconds.is_multiple_of(1000) {
            write!(f, "{}s", milliseconds / 1000)
        } else {
            write!(f, "{milliseconds}ms")
        }
    }
}

impl Serialize for ShortDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ShortDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ShortDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ShortDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        for (text, milliseconds) in [
            ("800ms", 800),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("1s500ms", 1_500),
        ] {
            assert_eq!(
                text.parse::<ShortDuration>(),
                Ok(ShortDuration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "-5s",
            "5",
            "ms",
            "5 s",
            "1.5s",
            "99999999999999999999h",
            "5d",
            "5sx",
        ] {
            assert!(text.parse::<ShortDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        for text in ["800ms", "30s", "90s"] {
            assert_eq!(text.parse::<ShortDuration>().unwrap().to_string(), text);
        }
    }
}
