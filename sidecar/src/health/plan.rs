//! Which sensors a node has: the built-in ones, each as the user left or changed it, and the user's own. Pure.

use std::time::Duration;

use pbx_crds::health::{HealthSpec, SensorKind, SensorSpec};

/// A sensor with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// Unique.
    pub name: String,
    /// What it looks at.
    pub kind: SensorKind,
    /// From the end of a reading to the next.
    pub interval: Duration,
    /// After this an answer is missing.
    pub timeout: Duration,
    /// While it is critical.
    pub points: u16,
    /// Before it counts.
    pub failures: u8,
    /// The kind's own parameter: an address, a path, an extension.
    pub target: String,
    /// Program and arguments of a command.
    pub command: Vec<String>,
}

/// The sensors of every node, unless the user replaces them by one of the same kind.
const BUILT_IN: [SensorKind; 7] = [
    SensorKind::AmiPing,
    SensorKind::Channels,
    SensorKind::SipOptions,
    SensorKind::Registrations,
    SensorKind::Trunks,
    SensorKind::TaskProcessors,
    SensorKind::Disk,
];

/// What a kind has unless the user says otherwise. Two answers that are missing mean a hung Asterisk: with channels and SIP asked for
/// every second, in one go, one that answers nothing for 0.7 s is noticed within 1.7 s, and within 1.9 s by the channels alone. AMI
/// that lists channels answers a Ping too: that one is asked seldom, to tell a deadlock of the channels from one of AMI.
struct Defaults {
    interval_ms: u64,
    timeout_ms: u64,
    points: u16,
    failures: u8,
}

/// All sensors of `spec`, those without points left out. `disk_path` is looked at where the user names no path.
pub fn sensors(spec: &HealthSpec, disk_path: &str) -> Vec<Sensor> {
    let is_replaced = |kind: &SensorKind| spec.sensors.iter().any(|one| one.kind == *kind);
    let built_in = BUILT_IN
        .into_iter()
        .filter(|kind| !is_replaced(kind))
        .map(|kind| sensor(&bare(kind), disk_path));
    let own = spec.sensors.iter().map(|spec| sensor(spec, disk_path));
    built_in
        .chain(own)
        .filter(|sensor| sensor.points > 0)
        .collect()
}

/// Whether silence of this sensor is silence of Asterisk itself.
pub fn is_vital(kind: SensorKind) -> bool {
    matches!(
        kind,
        SensorKind::AmiPing | SensorKind::Channels | SensorKind::SipOptions
    )
}

/// Whether its reading is a list, which costs more the more there is.
pub fn is_list(kind: SensorKind) -> bool {
    matches!(
        kind,
        SensorKind::Channels
            | SensorKind::Registrations
            | SensorKind::Trunks
            | SensorKind::TaskProcessors
    )
}

/// Whether it asks Asterisk, and rests while that does not run.
pub fn asks_asterisk(kind: SensorKind) -> bool {
    !matches!(
        kind,
        SensorKind::Disk | SensorKind::Gateway | SensorKind::Command
    )
}

fn sensor(spec: &SensorSpec, disk_path: &str) -> Sensor {
    let defaults = defaults(spec.kind);
    let target = match spec.kind {
        SensorKind::Disk => spec.path.clone().unwrap_or_else(|| disk_path.to_owned()),
        SensorKind::Gateway => spec.address.clone().unwrap_or_default(),
        SensorKind::TestCall => spec.extension.clone().unwrap_or_default(),
        _ => String::new(),
    };
    Sensor {
        name: spec.name.clone(),
        kind: spec.kind,
        interval: spec
            .interval
            .map_or(Duration::from_millis(defaults.interval_ms), Duration::from)
            .max(SHORTEST_INTERVAL),
        timeout: spec
            .timeout
            .map_or(Duration::from_millis(defaults.timeout_ms), Duration::from)
            .max(SHORTEST_TIMEOUT),
        points: spec.points.unwrap_or(defaults.points),
        failures: spec.failures.unwrap_or(defaults.failures),
        target,
        command: spec.command.clone(),
    }
}

/// More often, a sensor would be a load.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Less, and a busy machine looks like a dead one.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

fn bare(kind: SensorKind) -> SensorSpec {
    SensorSpec {
        name: kind.as_str().to_owned(),
        kind,
        interval: None,
        timeout: None,
        points: None,
        failures: None,
        address: None,
        path: None,
        extension: None,
        command: Vec::new(),
    }
}

fn defaults(kind: SensorKind) -> Defaults {
    let (interval_ms, timeout_ms, points, failures) = match kind {
        SensorKind::AmiPing => (5_000, 1_000, 100, 2),
        // Interval, deadline and a quarter of it, the second time: within 2 s with the move itself.
        SensorKind::Channels => (1_000, 700, 100, 2),
        SensorKind::SipOptions => (1_000, 650, 100, 2),
        SensorKind::Registrations | SensorKind::Trunks => (5_000, 3_000, 30, 2),
        SensorKind::TaskProcessors => (10_000, 3_000, 50, 2),
        SensorKind::Disk => (10_000, 3_000, 50, 1),
        SensorKind::Gateway => (1_000, 1_000, 50, 3),
        SensorKind::TestCall => (60_000, 10_000, 100, 1),
        SensorKind::Command => (10_000, 5_000, 50, 1),
    };
    Defaults {
        interval_ms,
        timeout_ms,
        points,
        failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spec: &str) -> Vec<String> {
        let spec: HealthSpec = serde_yaml::from_str(spec).unwrap();
        sensors(&spec, "/run")
            .into_iter()
            .map(|sensor| sensor.name)
            .collect()
    }

    #[test]
    fn built_in_sensors_need_no_word() {
        assert_eq!(names("{}").len(), BUILT_IN.len());
    }

    #[test]
    fn an_entry_of_a_built_in_kind_replaces_it_and_no_points_switch_it_off() {
        let spec = "sensors: [{name: log, kind: Disk, path: /var/log}, {name: off, kind: Trunks, points: 0}]";
        let names = names(spec);
        assert_eq!(names.len(), BUILT_IN.len() - 1);
        assert!(names.contains(&"log".to_owned()) && !names.contains(&"Disk".to_owned()));
    }

    #[test]
    fn what_the_user_sets_counts_within_reason() {
        let text = "sensors: [{name: a, kind: AmiPing, timeout: 10ms, interval: 2s, points: 7}]";
        let spec: HealthSpec = serde_yaml::from_str(text).unwrap();
        let all = sensors(&spec, "/run");
        let ping = all.iter().find(|sensor| sensor.name == "a").unwrap();
        assert_eq!(
            (ping.timeout, ping.interval, ping.points),
            (SHORTEST_TIMEOUT, Duration::from_secs(2), 7)
        );
    }
}
