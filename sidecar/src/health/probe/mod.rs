//! How each kind of sensor is read. Every reading ends by its timeout.

mod command;
mod disk;
mod manager;
mod ping;
mod sip;

use pbx_crds::health::SensorKind;

pub use self::command::{Outcome, run_bounded};
use self::manager::Line;
use super::plan::Sensor;
use super::score::{Reading, Verdict};
use super::watch::{Ground, Patient};

/// A sensor with what it keeps between two readings.
pub struct Probe {
    sensor: Sensor,
    line: Line,
}

impl Probe {
    /// Nothing is connected yet.
    pub fn new(sensor: Sensor) -> Self {
        Self {
            sensor,
            line: Line::default(),
        }
    }

    /// Reads it once, within a part of its time.
    pub async fn read(&mut self, ground: &Ground, part: u32) -> Reading {
        let Self { sensor, line } = self;
        // A reload of thousands of objects keeps Asterisk from answering: known, and no trouble.
        let patience = if ground.is_reloading { 5 } else { 1 };
        let limit = sensor.timeout * patience / part;
        match sensor.kind {
            SensorKind::Disk => return disk::read(&sensor.target),
            SensorKind::Command => return command::read(&sensor.command, limit).await,
            _ => {}
        }
        let read = async {
            match sensor.kind {
                SensorKind::AmiPing => line.ping(ground).await,
                SensorKind::Channels => line.channels(ground).await,
                SensorKind::SipOptions => sip::read(line, ground, limit).await,
                SensorKind::Registrations => line.registrations(ground).await,
                SensorKind::Trunks => line.trunks(ground).await,
                SensorKind::TaskProcessors => line.task_processors(ground).await,
                SensorKind::TestCall => line.test_call(ground, &sensor.target, limit).await,
                SensorKind::Gateway => ping::read(&sensor.target).await,
                SensorKind::Disk | SensorKind::Command => unreachable!("read above"),
            }
        };
        let in_time = Patient::wait(limit, read).await;
        in_time.unwrap_or_else(|| {
            line.hang_up();
            let text = format!("no answer within {limit:?}");
            Reading::new(Verdict::Silent, text)
        })
    }
}
