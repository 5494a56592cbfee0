//! When the fence may be opened, and until when: two phases, and a look at the clock between them. Pure.
//!
//! nftables knows timeouts, not deadlines: an element that is added late lives too long. So it is added to the slot that `cur`
//! does *not* point to, where it lets nothing pass. Then the clock is read. Only if the element certainly ends before the
//! deadline, `cur` is pointed at that slot: a message that carries no time, and may come as late as it likes.
//!
//! ```text
//!           arm: fill the idle slot          in time: point            the kernel does
//!   Resting ───────────────────────► Filling ──────────────► Pointing ─────────────────► Resting (the other slot stands)
//!      ▲                                │                        │
//!      └──────────── late ──────────────┴──────── refused ───────┘  (the element ends unseen)
//! ```

use std::time::Duration;

use pbx_core::BootTime;

/// Room for adding the element; what takes longer is late, and tried again. Adding took 58 µs (p50) and 0.5 ms at most here.
const ROOM: Duration = Duration::from_millis(1);
/// Less is not worth opening for: the kernel's timeouts tick in steps of up to 10 ms.
const LEAST: Duration = Duration::from_millis(2);

/// One of the two places of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `slot_a`.
    A,
    /// `slot_b`.
    B,
}

/// An element to add to the slot that lets nothing pass yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Where.
    pub slot: Slot,
    /// How long the kernel keeps it.
    pub timeout: Duration,
}

/// The machine.
#[derive(Debug)]
pub struct Lease {
    standing: Slot,
    filling: Option<(Fill, BootTime)>,
}

impl Lease {
    /// Nothing is known of the slots; either may be standing, so the first fill goes to the one that `standing` is not.
    pub fn new(standing: Slot) -> Self {
        Self {
            standing,
            filling: None,
        }
    }

    /// First phase. Nothing is worth doing when the deadline is near or past.
    pub fn fill(&mut self, now: BootTime, deadline: BootTime) -> Option<Fill> {
        let left = deadline.since(now).saturating_sub(ROOM);
        // Whole milliseconds, rounded down: what the kernel counts in.
        let timeout = Duration::from_millis(left.as_millis() as u64);
        if timeout < LEAST {
            return None;
        }
        let fill = Fill {
            slot: self.standing.other(),
            timeout,
        };
        self.filling = Some((fill, deadline));
        Some(fill)
    }

    /// Second phase, with a clock read after the kernel confirmed the first: the slot to point at, or nothing if it was late.
    pub fn point(&mut self, now: BootTime) -> Option<Slot> {
        let (fill, deadline) = self.filling.take()?;
        (now.after(fill.timeout) <= deadline).then_some(fill.slot)
    }

    /// The kernel points at it. Until it has said so the other one stands, and must not be filled.
    pub fn on_pointed(&mut self, slot: Slot) {
        self.standing = slot;
    }
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: BootTime = BootTime(1_000_000_000_000);

    fn after_us(microseconds: u64) -> BootTime {
        NOW.after(Duration::from_micros(microseconds))
    }

    #[test]
    fn slots_alternate_while_all_is_in_time() {
        let mut lease = Lease::new(Slot::A);
        let first = lease.fill(NOW, after_us(300_000)).unwrap();
        assert_eq!(first.slot, Slot::B);
        assert_eq!(first.timeout, Duration::from_millis(299));
        assert_eq!(lease.point(after_us(100)), Some(Slot::B));
        lease.on_pointed(Slot::B);
        assert_eq!(lease.fill(NOW, after_us(400_000)).unwrap().slot, Slot::A);
    }

    #[test]
    fn what_the_kernel_refused_to_point_at_is_filled_again() {
        let mut lease = Lease::new(Slot::A);
        lease.fill(NOW, after_us(300_000)).unwrap();
        assert_eq!(lease.point(after_us(100)), Some(Slot::B));
        assert_eq!(lease.fill(NOW, after_us(400_000)).unwrap().slot, Slot::B);
    }

    #[test]
    fn a_stall_between_the_phases_opens_nothing() {
        let mut lease = Lease::new(Slot::A);
        lease.fill(NOW, after_us(300_000)).unwrap();
        assert_eq!(lease.point(after_us(3_000_000)), None);
        // What stands is left standing, and the same idle slot is filled again.
        assert_eq!(
            lease
                .fill(after_us(3_000_000), after_us(3_300_000))
                .unwrap()
                .slot,
            Slot::B
        );
    }

    #[test]
    fn a_deadline_that_is_past_or_near_opens_nothing() {
        let mut lease = Lease::new(Slot::A);
        assert_eq!(lease.fill(after_us(10), NOW), None);
        assert_eq!(lease.fill(NOW, after_us(2_900)), None);
        assert_eq!(lease.point(NOW), None);
    }

    proptest! {
        /// The element is added no later than the clock that is read after it: it ends at the deadline at the latest.
        #[test]
        fn what_is_pointed_at_ends_before_its_deadline(left_us in 0u64..2_000_000, took_us in 0u64..2_000_000) {
            let mut lease = Lease::new(Slot::A);
            let deadline = after_us(left_us);
            if let Some(fill) = lease.fill(NOW, deadline) && lease.point(after_us(took_us)).is_some() {
                prop_assert!(after_us(took_us).after(fill.timeout) <= deadline);
            }
        }
    }
}
