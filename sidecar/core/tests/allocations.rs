//! No step of a steady state allocates: neither the active's nor a standby's, when the buffer of effects is reused.

#![allow(unsafe_code, reason = "a counting allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pbx_core::{Body, Epoch, GuardEvent, Input};
use pbx_model::desk::Desk;

thread_local!(static ALLOCATIONS: Cell<u64> = const { Cell::new(0) });

struct Counting;

// SAFETY: every call is passed on to the system's allocator, unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BEATS: u64 = 10_000;

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn counter_counts() {
    assert!(allocations_of(|| drop(std::hint::black_box(vec![1_u8]))) > 0);
}

#[test]
fn a_standby_grants_beats_without_allocating() {
    let mut desk = Desk::hot_standby(3);
    let allocated = allocations_of(|| {
        for _ in 0..BEATS {
            desk.now.0 += 100_000_000;
            desk.hear(1, Epoch(5), Body::Beat { is_active: true });
            assert_eq!(desk.effects.len(), 1, "the ack");
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn an_active_beats_counts_acks_and_moves_its_deadline_without_allocating() {
    let mut desk = Desk::active();
    let epoch = desk.view().epoch.expect("serves");
    let allocated = allocations_of(|| {
        for _ in 0..BEATS {
            desk.now.0 += 100_000_000;
            desk.input(Input::Tick);
            let beat_sent_at = desk.now;
            for peer in [1, 2] {
                desk.hear(peer, epoch, Body::Ack { beat_sent_at });
                if let Some(deadline) = desk.armed() {
                    desk.input(Input::Guard(GuardEvent::Armed { deadline }));
                }
            }
        }
    });
    assert_eq!(allocated, 0);
    assert_eq!(desk.view().epoch, Some(epoch), "it served all the time");
}
