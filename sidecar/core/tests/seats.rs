//! R13: how seats change hands, and how a node leaves for good.

use std::time::Duration;

use pbx_core::{
    ApiAnswer, ApiCall, Body, Epoch, FoundAtStart, Holder, Incarnation, Input, LeaseContent,
    LeaseView, Occupant,
};
use pbx_model::desk::{Desk, OWN, seats};
use pbx_model::world::faults::Fault;
use pbx_model::world::{MS, SECOND, World};

fn free_lease() -> LeaseView {
    let (epoch, hold) = (Epoch(0), Duration::from_millis(800));
    let content = LeaseContent {
        holder: Holder::Nobody,
        epoch,
        hold,
        seats: seats(2),
    };
    LeaseView {
        uid: 1,
        version: 7,
        content,
    }
}

#[test]
fn r13_an_empty_seat_is_filled_during_quarantine() {
    let mut world = World::new(2, 1);
    world.run_for(500);
    let seats = world.api.lease.unwrap().content.seats;
    assert!(seats.occupants[0].is_some() && seats.occupants[1].is_some());
    assert_eq!(world.api.writes, 2);
}

#[test]
fn r13_an_orderly_replacement_keeps_the_service_and_ends_with_the_newcomer_seated() {
    for (nodes, seed) in [(2, 1), (2, 2), (3, 1), (3, 2)] {
        let mut world = World::new(nodes, seed);
        world.run_for(40_000);
        let old = world.active().unwrap();
        let seat = world.pods[old].seat.0;
        world.longest_gap = 0;
        world.roll(old);
        world.run_for(12_000);
        let new = world.pod_in(seat);
        assert_ne!(new, old, "nodes {nodes}");
        let lease = world.api.lease.unwrap();
        let occupant = lease.content.seats.occupants[usize::from(seat)];
        assert_eq!(
            occupant,
            Some(world.pods[new].occupant),
            "nodes {nodes} seed {seed}"
        );
        assert!(
            world.longest_gap < 20 * MS,
            "gap of {} ns",
            world.longest_gap
        );
        let (_, serving) = world.serving_since;
        assert!(serving.is_some_and(|serving| serving != new));
        assert_eq!(world.overlap, None);
    }
}

#[test]
fn r13_a_pod_deleted_by_force_is_struck_and_its_seat_filled_though_it_goes_on() {
    for seed in 1..=10 {
        let mut world = World::new(2, seed);
        world.run_for(40_000);
        world.inflict(Fault::ForceReplace {
            seat: 1,
            keeps_api: false,
            for_ns: 60 * SECOND,
        });
        world.run_for(25_000);
        let new = world.pod_in(1);
        let lease = world.api.lease.unwrap();
        assert_eq!(
            lease.content.seats.occupants[1],
            Some(world.pods[new].occupant),
            "seed {seed}"
        );
        assert_eq!(world.overlap, None);
        assert_eq!(world.serving().len(), 1, "seed {seed}");
    }
}

#[test]
fn r13_a_message_of_a_stranger_counts_nothing_and_has_the_map_read() {
    let mut desk = Desk::standby(2);
    desk.answer(ApiAnswer::Lease(free_lease()));
    let mut beat = desk.message(1, Epoch(5), Body::Beat { is_active: true });
    beat.occupant = Occupant(77);
    desk.input(Input::Message(beat));
    assert_eq!(desk.sent_to(1).len(), 0);
    assert!(!desk.view().peers[1].is_granted);
    assert_eq!(desk.calls(), vec![ApiCall::Read]);
}

#[test]
fn r13_who_is_named_by_its_seats_former_life_goes_above_it() {
    let mut desk = Desk::started(2, None, FoundAtStart::Nothing);
    let mut hello = desk.message(1, Epoch(0), Body::Hello);
    hello.to_incarnation = Incarnation(OWN.0 + 50);
    desk.input(Input::Message(hello));
    assert_eq!(desk.view().incarnation, Incarnation(OWN.0 + 51));
}

#[test]
fn a_leaver_is_dismissed_as_soon_as_the_active_rests_on_other_votes() {
    let mut desk = Desk::active();
    desk.hear(1, Epoch(0), Body::Leave);
    assert_eq!(desk.sent_to(1), vec![Body::Dismiss], "seat 2 suffices");
}

#[test]
fn with_every_other_seat_empty_the_witness_is_held_long_at_once() {
    let mut world = World::new(2, 4);
    world.run_for(40_000);
    let standby = 1 - world.active().unwrap();
    world.roll(standby);
    // Its seat is empty after Tq; its successor fills it a second later.
    world.run_for(1_500);
    let content = world.api.lease.unwrap().content;
    assert_eq!(content.seats.occupants[standby], None);
    assert_eq!(content.hold, Duration::from_secs(15));
}

#[test]
fn the_last_node_that_leaves_empties_its_seat_and_its_successor_serves() {
    let mut world = World::new(2, 3);
    world.run_for(40_000);
    let standby = 1 - world.active().unwrap();
    world.crash(standby);
    world.run_for(8_000);
    let last = world.active().unwrap();
    let seat = world.pods[last].seat.0;
    world.roll(last);
    world.run_for(30_000);
    assert_eq!(world.active(), Some(world.pod_in(seat)));
    assert_ne!(world.active(), Some(last));
}

/// Seat 2 of three, or none of two, as the Lease has it now.
fn lease_with(version: u64, seats: pbx_core::Seats) -> ApiAnswer {
    let mut lease = free_lease();
    lease.version = version;
    lease.content.seats = seats;
    ApiAnswer::Lease(lease)
}

#[test]
fn r13_a_stranger_from_a_seat_that_does_not_exist_yet_has_the_map_read() {
    let mut desk = Desk::standby(2);
    desk.answer(ApiAnswer::Lease(free_lease()));
    let mut hello = desk.message(2, Epoch(0), Body::Hello);
    hello.occupant = Occupant(2);
    desk.input(Input::Message(hello));
    assert_eq!(desk.calls(), vec![ApiCall::Read]);
    desk.answer(lease_with(8, seats(3)));
    assert_eq!(desk.view().seats, Some(seats(3)));
    desk.pass(5);
    desk.hear(2, Epoch(3), Body::Beat { is_active: true });
    assert!(desk.view().peers[2].is_granted, "it votes for the newcomer");
}

#[test]
fn r13_the_last_seat_is_given_up_when_it_is_empty_and_not_before() {
    let mut desk = Desk::standby(3);
    desk.input(Input::Command(pbx_core::Command::LookAtSeats));
    let mut early = seats(3);
    early.count = 2;
    desk.answer(lease_with(8, early));
    assert_eq!(desk.view().seats.unwrap().count, 3, "somebody sits there");
    desk.input(Input::Command(pbx_core::Command::LookAtSeats));
    desk.answer(lease_with(9, seats(2)));
    assert_eq!(desk.view().seats, Some(seats(2)));
}

#[test]
fn r13_a_number_with_another_quorum_is_not_followed() {
    let mut desk = Desk::standby(2);
    desk.answer(lease_with(7, seats(4)));
    assert_eq!(desk.view().seats, Some(seats(2)));
    assert!(desk.view().is_count_mismatched);
}

/// Resizes a quiet world; how long nobody served, and how often the role moved.
fn resized(from: u8, to: u8, seed: u64) -> World {
    let mut world = World::new(from, seed);
    world.run_for(20_000);
    world.longest_gap = 0;
    world.notices.clear();
    world.inflict(Fault::Resize { nodes: to });
    world.run_for(25_000);
    let seats = world.api.lease.expect("it stands").content.seats;
    assert_eq!(seats.count, to, "{from} to {to}, seed {seed}");
    assert!((0..to).all(|seat| seats.occupants[usize::from(seat)].is_some()));
    assert_eq!(world.overlap, None);
    world
}

fn moves(world: &World) -> usize {
    let is_move = |notice: &pbx_core::Notice| matches!(notice, pbx_core::Notice::Promoted { .. });
    let notices = world.notices.iter();
    notices.filter(|(.., notice)| is_move(notice)).count()
}

#[test]
fn r13_a_third_and_a_fifth_node_cost_no_move() {
    for (from, to) in [(2, 3), (4, 5)] {
        for seed in 1..=5 {
            let world = resized(from, to, seed);
            assert_eq!((moves(&world), world.longest_gap), (0, 0), "{from} {seed}");
        }
    }
}

#[test]
fn r13_the_last_node_goes_by_a_planned_move_at_most() {
    for (from, to) in [(3, 2), (5, 4)] {
        for seed in 1..=5 {
            let world = resized(from, to, seed);
            assert!(moves(&world) <= 1 && world.longest_gap < 20 * MS);
        }
    }
}

#[test]
fn r13_after_two_became_three_either_standby_may_die_with_the_api_down() {
    for seed in 1..=5 {
        let mut world = resized(2, 3, seed);
        let active = world.active().unwrap();
        world.inflict(Fault::ApiDown {
            for_ns: 60 * SECOND,
        });
        world.crash((active + 1) % 3);
        world.run_for(5_000);
        assert_eq!(world.active(), Some(active), "seed {seed}");
    }
}

#[test]
fn r13_a_lease_made_anew_in_the_midst_of_growing_lets_nobody_new_vote_at_once() {
    let mut world = World::new(2, 5);
    world.run_for(20_000);
    world.inflict(Fault::Resize { nodes: 3 });
    world
        .run_until_that(5_000, |world| world.status.count == 3)
        .expect("remembered first");
    world.api.lease = None;
    world.new_lease();
    world.run_for(10_000);
    let seats = world.api.lease.unwrap().content.seats;
    assert_eq!((seats.count, seats.occupants[2]), (3, None));
    world.run_for(10_000);
    assert!(world.api.lease.unwrap().content.seats.occupants[2].is_some());
}

#[test]
fn i2_who_empties_its_seat_leaves_the_epochs_behind_that_it_voted_for() {
    let mut desk = Desk::standby(3);
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    desk.input(Input::Command(pbx_core::Command::Leave));
    desk.hear(1, Epoch(5), Body::Dismiss);
    for _ in 0..40 {
        desk.pass(50);
        match desk.calls().first() {
            Some(ApiCall::Write(write)) => {
                assert_eq!(write.content.seats.occupants[0], None, "its own seat");
                assert_eq!(write.content.epoch, Epoch(5));
                return;
            }
            Some(ApiCall::Read) => desk.answer(lease_with(8, seats(3))),
            None => {}
        }
    }
    panic!("it never emptied its seat");
}
