//! How a link is: heard or silent, its round-trip time and jitter, and whether it is too slow for the timing rules. Pure.
//!
//! Each datagram carries the newest stamp that its sender heard from the receiver over this very link, and how long it kept it
//! ([`Probe`]). So both ends measure every link alone, whichever copy of a beat came first, and two standbys as well, that never
//! acknowledge each other. The time in queues and until a busy process reads is in it: that is what the timing rules have to bear.

use std::time::Duration;

use pbx_core::{BootTime, Timing};

/// What a datagram says of the other direction of its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The receiver's own stamp that was heard last over this link; zero: none.
    pub echo: BootTime,
    /// How long ago that was, when this left.
    pub held_us: u32,
}

/// The measurements of one link to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    heard_at: Option<BootTime>,
    /// The peer's newest stamp, and when it came.
    stamp: Option<(BootTime, BootTime)>,
    round_trip: Option<RoundTrip>,
    slow: Slow,
}

/// A smoothed round-trip time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Mean of the last measurements (the newest weighs an eighth).
    pub time: Duration,
    /// Their mean distance from it (the newest weighs a quarter).
    pub jitter: Duration,
}

/// Whether the link is too slow, with hysteresis.
#[derive(Clone, Copy, Debug, Default)]
struct Slow {
    is_slow: bool,
    /// Since when the measurements say otherwise.
    otherwise_since: Option<BootTime>,
}

/// A link that is too slow for so long is said to be: longer than the measurements after a pause of seconds need to recover.
const SLOW_AFTER: Duration = Duration::from_secs(5);
/// A link that has been fast enough for so long is fast enough.
const FAST_AFTER: Duration = Duration::from_secs(30);
/// A longer one is a stamp of another boot.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(30);

impl RoundTrip {
    /// What all but a few measurements stay below (as TCP has it, RFC 6298).
    pub fn bound(self) -> Duration {
        self.time + self.jitter * 4
    }

    fn first(sample: Duration) -> Self {
        Self {
            time: sample,
            jitter: sample / 2,
        }
    }

    fn with(self, sample: Duration) -> Self {
        let distance = self.time.abs_diff(sample);
        Self {
            time: (self.time * 7 + sample) / 8,
            jitter: (self.jitter * 3 + distance) / 4,
        }
    }
}

impl Meter {
    /// An authentic datagram came over the link.
    pub fn on_datagram(&mut self, now: BootTime) {
        self.heard_at = Some(now);
    }

    /// It carried the peer's stamp and a probe; `limit` is [`slowest`].
    pub fn on_probe(&mut self, now: BootTime, sent_at: BootTime, probe: Probe, limit: Duration) {
        if self.stamp.is_none_or(|(newest, _)| sent_at != newest) {
            self.stamp = Some((sent_at, now));
        }
        let held = Duration::from_micros(probe.held_us.into());
        let is_echo = probe.echo.0 > 0 && probe.echo <= now;
        let Some(sample) = now.since(probe.echo).checked_sub(held) else {
            return;
        };
        if !is_echo || sample > LONGEST_ROUND_TRIP {
            return;
        }
        let before = self.round_trip;
        let after = before.map_or(RoundTrip::first(sample), |known| known.with(sample));
        self.round_trip = Some(after);
        self.slow.note(now, after.bound() > limit);
    }

    /// What to send back over the link now.
    pub fn probe(&self, now: BootTime) -> Probe {
        self.stamp
            .map_or(Probe::default(), |(echo, came_at)| Probe {
                echo,
                held_us: u32::try_from(now.since(came_at).as_micros()).unwrap_or(u32::MAX),
            })
    }

    /// Whether it was heard less than `silence` ago.
    pub fn is_up(&self, now: BootTime, silence: Duration) -> bool {
        self.heard_at
            .is_some_and(|heard_at| now.since(heard_at) < silence)
    }

    /// Whether it has been too slow for a while.
    pub fn is_slow(&self) -> bool {
        self.slow.is_slow
    }

    /// Time and jitter, once measured.
    pub fn round_trip(&self) -> Option<RoundTrip> {
        self.round_trip
    }
}

impl Slow {
    fn note(&mut self, now: BootTime, is_slow: bool) {
        if is_slow == self.is_slow {
            self.otherwise_since = None;
            return;
        }
        let since = *self.otherwise_since.get_or_insert(now);
        let patience = if is_slow { SLOW_AFTER } else { FAST_AFTER };
        if now.since(since) >= patience {
            *self = Self {
                is_slow,
                otherwise_since: None,
            };
        }
    }
}

/// The longest round trip (with four times its jitter, D) that `timing` bears.
///
/// An acknowledgement comes back D after its beat, and counts from when the beat *left* (R2); the next one comes a keepalive
/// later. So the newest vote is up to D + keepalive old. It must be younger than warntime, or the active takes its peer for silent
/// and reaches for the witness; and with one beat lost (D + 2 keepalives) it must still carry the authority to the orderly stop:
///
///     D + keepalive ≤ warntime,    D + 2 · keepalive ≤ Tc − stop margin
pub fn slowest(timing: &Timing) -> Duration {
    let by_warntime = timing.warntime.saturating_sub(timing.keepalive);
    let served = timing.counted_grant().saturating_sub(timing.stop_margin);
    by_warntime.min(served.saturating_sub(timing.keepalive * 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_millis(300);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn at(milliseconds: u64) -> BootTime {
        BootTime(10_000_000_000).after(ms(milliseconds))
    }

    /// Beats every 100 ms, each answered over a path of `round_trip`.
    fn measure(meter: &mut Meter, begin: u64, beats: u64, round_trip: impl Fn(u64) -> u64) {
        for beat in 0..beats {
            let probe = Probe {
                echo: at(begin + beat * 100),
                held_us: 7_000,
            };
            let now = at(begin + beat * 100 + 7 + round_trip(beat));
            meter.on_datagram(now);
            meter.on_probe(now, BootTime(beat + 1), probe, LIMIT);
        }
    }

    #[test]
    fn a_round_trip_is_the_echo_less_what_it_was_held() {
        let mut meter = Meter::default();
        measure(&mut meter, 0, 50, |_| 20);
        let round_trip = meter.round_trip().unwrap();
        assert!(round_trip.time.abs_diff(ms(20)) < ms(1), "{round_trip:?}");
        assert!(round_trip.jitter < ms(1), "{round_trip:?}");
    }

    #[test]
    fn jitter_is_the_mean_distance() {
        let mut meter = Meter::default();
        measure(
            &mut meter,
            0,
            200,
            |beat| if beat % 2 == 0 { 10 } else { 50 },
        );
        let round_trip = meter.round_trip().unwrap();
        assert!(round_trip.jitter.abs_diff(ms(20)) < ms(8), "{round_trip:?}");
        assert!(round_trip.bound() > ms(80), "{round_trip:?}");
    }

    #[test]
    fn the_probe_echoes_what_was_heard_and_how_long_ago() {
        let mut meter = Meter::default();
        assert_eq!(meter.probe(at(0)), Probe::default());
        meter.on_probe(at(0), BootTime(5), Probe::default(), LIMIT);
        let probe = meter.probe(at(30));
        assert_eq!((probe.echo, probe.held_us), (BootTime(5), 30_000));
        assert_eq!(meter.round_trip(), None);
    }

    #[test]
    fn an_echo_of_another_boot_measures_nothing() {
        let mut meter = Meter::default();
        let now = at(0).after(SECOND * 60);
        for echo in [now.after(SECOND), now.before(SECOND * 40)] {
            meter.on_probe(now, BootTime(5), Probe { echo, held_us: 0 }, LIMIT);
        }
        assert_eq!(meter.round_trip(), None);
    }

    #[test]
    fn a_link_is_slow_after_five_seconds_and_fast_after_thirty() {
        let mut meter = Meter::default();
        measure(&mut meter, 0, 45, |_| 350);
        assert!(!meter.is_slow());
        measure(&mut meter, 4_500, 20, |_| 350);
        assert!(meter.is_slow());
        measure(&mut meter, 6_500, 280, |_| 5);
        assert!(meter.is_slow());
        measure(&mut meter, 34_500, 60, |_| 5);
        assert!(!meter.is_slow());
    }

    #[test]
    fn a_single_stall_makes_no_link_slow() {
        let mut meter = Meter::default();
        measure(
            &mut meter,
            0,
            300,
            |beat| if beat == 100 { 2_000 } else { 1 },
        );
        assert!(!meter.is_slow());
    }

    #[test]
    fn a_link_is_up_until_it_is_silent() {
        let mut meter = Meter::default();
        assert!(!meter.is_up(at(0), ms(400)));
        meter.on_datagram(at(0));
        assert!(meter.is_up(at(399), ms(400)) && !meter.is_up(at(400), ms(400)));
    }

    #[test]
    fn the_defaults_bear_three_hundred_milliseconds_and_the_tightest_rules_one_keepalive() {
        assert_eq!(slowest(&Timing::default()), ms(300));
        let tight = Timing::from_detection(ms(20), ms(40), ms(80));
        let slowest = slowest(&tight);
        assert!(slowest > ms(10) && slowest <= ms(20), "{slowest:?}");
    }
}
