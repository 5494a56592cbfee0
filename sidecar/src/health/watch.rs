//! The tasks that read the sensors: one for each, with its own connection to Asterisk, so that none waits for another.
//!
//! What is well and was well is not told: a healthy node costs its readings and nothing more.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pbx_crds::health::{HealthSpec, SensorKind};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};

use super::plan::{self, Sensor};
use super::probe::Probe;
use super::score::{Reading, Scoreboard, Verdict};
use crate::alarm;
use crate::asterisk::Configured;
use crate::metrics::Metrics;
use crate::services::Done;

/// A standby is read at a slower pace: nobody waits for it. So is what does not apply, such as trunks where there are none: a change of
/// roles and of Asterisk's life is told, and a list may grow.
const SLOW_PACE: u32 = 4;
/// Times the interval, for a list that takes long.
const LONGEST_REST: u32 = 10;
/// A deadline is counted in so many pieces: a machine that stood still for a while has used up one.
const PIECES: u32 = 10;
/// A piece that ended later than by this part of it does not count: who asks had to wait for a processor, and so had Asterisk.
const LATE_PART: u32 = 4;
/// Asked again after silence, Asterisk has this part of the time: it has had the whole of it once.
const SECOND_PART: u32 = 4;

/// What the sensors stand on.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// This node serves.
    pub is_active: bool,
    /// The present life of Asterisk, once it is fully booted.
    pub asterisk: Option<Life>,
    /// Asterisk has been told to read its files again: it may be slow to answer.
    pub is_reloading: bool,
    /// Addresses that only the active can be reached at.
    pub floating: Arc<[IpAddr]>,
}

/// One life of Asterisk.
#[derive(Clone, Debug)]
pub struct Life {
    /// Tells lives apart.
    pub number: u64,
    /// How to connect to it.
    pub configured: Arc<Configured>,
}

/// The running sensors. They end when it is dropped.
pub struct Watch {
    ground: watch::Sender<Ground>,
    tasks: Vec<AbortHandle>,
}

impl Watch {
    /// Starts all sensors of `spec`; their readings go to `tell`, by name.
    pub fn start(
        spec: &HealthSpec,
        ground: Ground,
        metrics: &Metrics,
        tell: &mpsc::Sender<Done>,
    ) -> (Self, Scoreboard) {
        let sensors = plan::sensors(spec, DISK_PATH);
        let scoreboard = Scoreboard::new(spec, &sensors);
        let (ground, seen) = watch::channel(ground);
        let observe = |sensor: Sensor| {
            let task = observe(sensor, seen.clone(), metrics.clone(), tell.clone());
            spawn_local(task).abort_handle()
        };
        let tasks = sensors.into_iter().map(observe).collect();
        (Self { ground, tasks }, scoreboard)
    }

    /// What the sensors stand on has changed.
    pub fn set_ground(&self, change: impl FnOnce(&mut Ground)) {
        self.ground.send_modify(change);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Waits for `what` for `limit`, counted in pieces: a pause of the whole machine, in which Asterisk could not answer either,
/// uses up one piece and no more. On a machine that is too busy to count, it waits up to twice as many pieces.
pub struct Patient;

impl Patient {
    /// `None`: it did not come in time.
    pub async fn wait<T>(limit: Duration, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        let piece = limit / PIECES;
        let mut counted = 0;
        for _ in 0..PIECES * 2 {
            let began = tokio::time::Instant::now();
            let done = alarm::timeout(piece, &mut what).await;
            if done.is_some() {
                return done;
            }
            counted += u32::from(began.elapsed() <= piece + lateness(piece));
            if counted == PIECES {
                break;
            }
        }
        None
    }
}

/// How late a piece may end and count. Timers go by whole milliseconds.
fn lateness(piece: Duration) -> Duration {
    (piece / LATE_PART).max(Duration::from_millis(5))
}

/// Voicemail, recordings and call files: what fills a disk.
const DISK_PATH: &str = "/var/spool/asterisk";

async fn observe(
    sensor: Sensor,
    mut ground: watch::Receiver<Ground>,
    metrics: Metrics,
    tell: mpsc::Sender<Done>,
) {
    let mut probe = Probe::new(sensor.clone());
    let is_vital = plan::is_vital(sensor.kind);
    let mut before = Verdict::Skipped;
    let mut noted = None;
    loop {
        let now = ground.borrow_and_update().clone();
        let began = tokio::time::Instant::now();
        let is_second = is_vital && before == Verdict::Silent;
        let part = if is_second { SECOND_PART } else { 1 };
        let reading = read(&mut probe, &sensor, &now, part).await;
        let cost = began.elapsed();
        let shown = (reading.verdict, reading.value);
        if noted != Some(shown) {
            metrics.note_sensor(&sensor.name, &reading);
            noted = Some(shown);
        }
        let verdict = reading.verdict;
        let is_news = verdict != before || !matches!(verdict, Verdict::Good | Verdict::Skipped);
        let told = Done::Sensor(sensor.name.clone(), reading);
        if is_news && tell.send(told).await.is_err() {
            return;
        }
        before = verdict;
        // What nobody answered is asked again at once: two are a hang.
        let is_first_silence = is_vital && verdict == Verdict::Silent && !is_second;
        if !is_first_silence {
            let rest = rest_of(&sensor, &now, verdict, cost);
            tokio::select! {
                () = alarm::rest(rest) => {}
                // A sender that is gone takes this task with it.
                _ = ground.changed() => alarm::sleep(sensor.interval / PIECES).await,
            }
        }
    }
}

async fn read(probe: &mut Probe, sensor: &Sensor, ground: &Ground, part: u32) -> Reading {
    if plan::asks_asterisk(sensor.kind) && ground.asterisk.is_none() {
        return Reading::new(Verdict::Skipped, "Asterisk is not fully booted");
    }
    let is_for_other_role = match sensor.kind {
        SensorKind::Registrations | SensorKind::Trunks => !ground.is_active,
        SensorKind::TestCall => ground.is_active,
        _ => false,
    };
    if is_for_other_role {
        return Reading::new(Verdict::Skipped, "it is for the other role");
    }
    probe.read(ground, part).await
}

/// A list of thousands of things is work for Asterisk: it is asked for a hundredth of the time at most, but not much more seldom than
/// was asked for.
fn rest_of(sensor: &Sensor, ground: &Ground, verdict: Verdict, cost: Duration) -> Duration {
    let is_idle = verdict == Verdict::Skipped && !plan::is_vital(sensor.kind);
    let is_slow = !ground.is_active || is_idle;
    let interval = sensor.interval * if is_slow { SLOW_PACE } else { 1 };
    if plan::is_list(sensor.kind) {
        interval.max((cost * 100).min(interval * LONGEST_REST))
    } else {
        interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who could not even count the time has not waited: the answer came while this very thread was held up.
    #[tokio::test]
    async fn pieces_of_a_busy_machine_do_not_count() {
        let limit = Duration::from_millis(100);
        let busy = async {
            for _ in 0..15 {
                std::thread::sleep(Duration::from_millis(30));
                tokio::task::yield_now().await;
            }
            7
        };
        assert_eq!(Patient::wait(limit, busy).await, Some(7));
        let endless = async {
            loop {
                std::thread::sleep(Duration::from_millis(30));
                tokio::task::yield_now().await;
            }
        };
        let began = tokio::time::Instant::now();
        let never: Option<()> = Patient::wait(limit, endless).await;
        assert!(never.is_none() && began.elapsed() < limit * 20);
    }

    #[tokio::test]
    async fn patience_ends_after_its_limit() {
        let limit = Duration::from_millis(100);
        let began = tokio::time::Instant::now();
        assert_eq!(
            Patient::wait(limit, std::future::pending::<()>()).await,
            None
        );
        assert!(began.elapsed() >= limit);
        assert_eq!(Patient::wait(limit, async { 7 }).await, Some(7));
    }
}
