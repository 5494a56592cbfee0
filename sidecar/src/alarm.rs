//! What waits in a thread, on one timer of the kernel's: an alarm clock for all tasks of the thread.
//!
//! On an idle machine a wake-up costs more than what is done in it, and one into cold caches twice as much as one a moment after
//! another thread was awake. So who comes again and again only [rests](rest): it names about when, is woken a moment after a beat of
//! the core if one is near, and up to a tenth early if the thread is awake anyway. Tokio's own timers write to a descriptor and look
//! at it again for each moment that is earlier than all others: with five of them in a wake-up that is a tenth of its cost.
//!
//! For runtimes of one thread, as all of this program are: the clock is the thread's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pbx_core::BootTime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::boot_timer::BootTimer;

/// Who rests is woken this part of its pause early, or a beat if that is more, when the thread is awake then.
const EARLY_PART: u32 = 10;
/// A beat and its ack are over by then, and the caches still warm. Beats come a little later than planned, each by a tenth of a
/// millisecond or two: a rest of some seconds still ends after one.
const AFTER_BEAT: Duration = Duration::from_millis(2);

/// A pause of fewer beats is kept as it is.
const FEWEST_BEATS: u32 = 3;

/// When the core's thread sent last, and how often it does while all is well: zero before it is known.
static SENT_AT_NS: AtomicU64 = AtomicU64::new(0);
static BEAT_NS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CLOCK: RefCell<AlarmClock> = RefCell::default();
}

/// Told by the core's thread, once: how often it beats while all is well.
pub fn set_beat(interval: Duration) {
    BEAT_NS.store(interval.as_nanos() as u64, Ordering::Relaxed);
}

/// Told by the core's thread whenever it sends.
pub fn note_sent(now: BootTime) {
    SENT_AT_NS.store(now.0, Ordering::Relaxed);
}

/// Resolves after `pause`. Cancel-safe.
pub async fn sleep(pause: Duration) {
    let due_at = now().after(pause);
    sleep_between(due_at, due_at).await;
}

/// Resolves between two moments: whenever the thread is awake, at the second one at the latest. Cancel-safe.
pub async fn sleep_between(from: BootTime, due_at: BootTime) {
    Waiting::new(from, due_at).await;
}

/// What comes of `future` within `limit`, if it comes.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = sleep(limit) => None,
    }
}

/// Rests for `pause` or a little less: see above. Cancel-safe.
pub async fn rest(pause: Duration) {
    let now = now();
    let sent_at = BootTime(SENT_AT_NS.load(Ordering::Relaxed));
    let beat = Duration::from_nanos(BEAT_NS.load(Ordering::Relaxed));
    if pause < beat * FEWEST_BEATS {
        return sleep(pause).await;
    }
    let due_at = after_a_beat(now.after(pause), sent_at, beat);
    // Two who rest as long, each after a beat of its own, meet after the earlier one.
    let early = (pause / EARLY_PART).max(beat + AFTER_BEAT);
    let from = BootTime(due_at.0.saturating_sub(early.as_nanos() as u64));
    sleep_between(from, due_at).await;
}

/// The last moment after a beat that is not later than `moment`; `moment` itself while no beats are known.
fn after_a_beat(moment: BootTime, sent_at: BootTime, beat: Duration) -> BootTime {
    let after_beat = sent_at.after(AFTER_BEAT);
    if beat.is_zero() || sent_at == BootTime::default() || moment < after_beat {
        return moment;
    }
    let since_beat_ns = moment.since(after_beat).as_nanos() % beat.as_nanos();
    BootTime(moment.0 - since_beat_ns as u64)
}

/// All who wait in this thread, by when they are due.
#[derive(Default)]
struct AlarmClock {
    waiting: BTreeMap<(BootTime, u64), Alarm>,
    last_number: u64,
    /// The earliest moment has changed.
    changed: Arc<Notify>,
    keeper: Option<JoinHandle<()>>,
}

struct Alarm {
    /// It may be woken from then on.
    from: BootTime,
    waker: Waker,
}

impl AlarmClock {
    fn earliest(&self) -> Option<BootTime> {
        self.waiting.keys().next().map(|(due_at, _)| *due_at)
    }

    /// Who waits, by a key that is given back when it does no longer.
    fn add(&mut self, due_at: BootTime, alarm: Alarm) -> (BootTime, u64) {
        if self.earliest().is_none_or(|earliest| due_at < earliest) {
            self.changed.notify_one();
        }
        self.last_number += 1;
        let key = (due_at, self.last_number);
        self.waiting.insert(key, alarm);
        self.keep();
        key
    }

    fn remove(&mut self, key: (BootTime, u64)) -> Option<Alarm> {
        let was_earliest = self.earliest() == Some(key.0);
        let removed = self.waiting.remove(&key)?;
        if was_earliest {
            self.changed.notify_one();
        }
        Some(removed)
    }

    /// A keeper lives as long as its runtime; a thread may have another one later.
    fn keep(&mut self) {
        if self.keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            self.keeper = Some(tokio::spawn(keep(self.changed.clone())));
        }
    }

    /// Takes out all who may be woken now.
    fn ring(&mut self, now: BootTime) -> Vec<Waker> {
        let due = self.waiting.extract_if(.., |_, alarm| alarm.from <= now);
        due.map(|(_, alarm)| alarm.waker).collect()
    }
}

/// Waits for the earliest moment, and wakes all who may be woken then.
async fn keep(changed: Arc<Notify>) {
    let mut timer = match BootTimer::new() {
        Ok(timer) => timer,
        Err(error) => {
            tracing::error!(%error, "no timer can be made: no descriptor is left");
            std::process::exit(1);
        }
    };
    loop {
        let earliest = CLOCK.with_borrow(AlarmClock::earliest);
        tokio::select! {
            () = timer.until(earliest.unwrap_or(BootTime::FAR_FUTURE)) => {
                let due = CLOCK.with_borrow_mut(|clock| clock.ring(now()));
                due.into_iter().for_each(Waker::wake);
                let_others_run().await;
            }
            () = changed.notified() => {}
        }
    }
}

/// Those who were woken say what they wait for next before the timer is set again. Not tokio's yield: that looks at the sockets first.
async fn let_others_run() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One who waits.
struct Waiting {
    from: BootTime,
    due_at: BootTime,
    key: Option<(BootTime, u64)>,
}

impl Waiting {
    fn new(from: BootTime, due_at: BootTime) -> Self {
        Self {
            from,
            due_at,
            key: None,
        }
    }

    fn forget(&mut self) {
        if let Some(key) = self.key.take() {
            // Dropped after the borrow: a waker may be the last that holds a task.
            let removed = CLOCK.with_borrow_mut(|clock| clock.remove(key));
            drop(removed);
        }
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Who was not added yet is not early: it has only begun.
        let ready_at = if self.key.is_some() {
            self.from
        } else {
            self.due_at
        };
        self.forget();
        if now() >= ready_at {
            return Poll::Ready(());
        }
        let alarm = Alarm {
            from: self.from,
            waker: context.waker().clone(),
        };
        let due_at = self.due_at;
        self.key = Some(CLOCK.with_borrow_mut(|clock| clock.add(due_at, alarm)));
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.forget();
    }
}

fn now() -> BootTime {
    BootTime(pbx_guard::boot_now_ns())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn in_ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn all_are_woken_in_their_order() {
        let began = Instant::now();
        let after = async |pause| {
            sleep(in_ms(pause)).await;
            began.elapsed()
        };
        let (late, early, soon) = tokio::join!(after(60), after(20), after(0));
        assert!(soon < in_ms(15), "{soon:?}");
        assert!(early >= in_ms(20) && early < in_ms(55), "{early:?}");
        assert!(late >= in_ms(60), "{late:?}");
    }

    #[tokio::test]
    async fn who_may_be_early_comes_along() {
        let began = now();
        let (from, due_at) = (began.after(in_ms(20)), began.after(Duration::from_mins(1)));
        tokio::join!(sleep_between(from, due_at), sleep(in_ms(40)));
        let took = now().since(began);
        assert!(
            took >= in_ms(40) && took < Duration::from_secs(5),
            "{took:?}"
        );
    }

    #[tokio::test]
    async fn who_is_given_up_wakes_nobody() {
        let began = Instant::now();
        assert_eq!(timeout(in_ms(10), std::future::pending::<()>()).await, None);
        assert!(began.elapsed() >= in_ms(10));
        assert_eq!(timeout(in_ms(1000), async { 7 }).await, Some(7));
        assert_eq!(CLOCK.with_borrow(AlarmClock::earliest), None);
    }

    #[test]
    fn a_thread_may_have_one_runtime_after_the_other() {
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(sleep(in_ms(5)));
        }
    }

    #[test]
    fn a_rest_ends_a_moment_after_a_beat_and_never_late() {
        let (sent_at, beat) = (BootTime(1_000_000_000), in_ms(300));
        let at = |pause| {
            let asked_at = sent_at.after(in_ms(9) + in_ms(pause));
            after_a_beat(asked_at, sent_at, beat).since(sent_at)
        };
        assert_eq!(at(1_000), in_ms(902));
        assert_eq!(at(4_000), in_ms(3_902));
        let moment = BootTime(5_000_000_000);
        assert_eq!(after_a_beat(moment, BootTime::default(), beat), moment);
        assert_eq!(after_a_beat(moment, sent_at, Duration::ZERO), moment);
    }
}
