//! No step of a steady state allocates: neither the active's nor a standby's, when the buffer of effects is reused.

use allocation_counter::measure;
use pbx_core::{Body, Epoch, GuardEvent, Input};
use pbx_model::desk::Desk;

const BEATS: u64 = 10_000;

fn allocations_of(work: impl FnOnce()) -> u64 {
    measure(work).count_total
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
