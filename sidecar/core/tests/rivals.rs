//! R15: two that serve, and how soon one of them stops.

use pbx_core::{
    ApiAnswer, Body, Cause, Command, Effect, Epoch, GuardEvent, Holder, Incarnation, Input,
    LeaseContent, LeaseView, Notice, Occupant, OnQuorumLoss, Refusal, Role, Rule, Seat, drop_rule,
};
use pbx_model::desk::{Desk, seats};
use pbx_model::world::faults::Fault;
use pbx_model::world::{MS, SECOND, World};

fn own_epoch(desk: &Desk) -> Epoch {
    desk.view().epoch.expect("it bids")
}

#[test]
fn r15_a_beat_of_one_that_serves_under_a_higher_epoch_ends_it_at_once() {
    let mut desk = Desk::active();
    let epoch = own_epoch(&desk);
    desk.pass(5);
    desk.hear(1, epoch.next_of(Seat(1)), Body::Beat { is_active: true });
    assert_eq!(desk.effects[0], Effect::Stop);
    assert_eq!(desk.view().role, Role::Stopping);
    assert!(!desk.sent_to(2).contains(&Body::Release), "R4: not yet");
    desk.input(Input::Guard(GuardEvent::Stopped));
    assert_eq!(desk.sent_to(1), vec![Body::Release]);
    let cause = Cause::Contention;
    assert_eq!(desk.notices(), vec![Notice::Demoted { epoch, cause }]);
    desk.pass(1);
    desk.hear(1, epoch.next_of(Seat(1)), Body::Beat { is_active: true });
    assert!(desk.view().peers[1].is_granted, "its vote is the rival's");
}

#[test]
fn r15_one_that_serves_under_a_lower_epoch_is_told_and_nothing_else_happens() {
    let mut desk = Desk::active();
    let epoch = own_epoch(&desk);
    desk.pass(5);
    desk.hear(1, Epoch(0), Body::Beat { is_active: true });
    assert_eq!(desk.view().role, Role::Active);
    assert_eq!(desk.view().epoch, Some(epoch));
    let because = Refusal::Serving;
    assert_eq!(desk.sent_to(1), vec![Body::Nack { because }]);
}

#[test]
fn r15_votes_that_others_have_now_do_not_count_whatever_the_clock_says() {
    let mut desk = Desk::active();
    let epoch = own_epoch(&desk);
    desk.pass(5);
    let because = Refusal::Committed;
    desk.hear(1, epoch.next_of(Seat(1)), Body::Nack { because });
    assert_eq!(desk.view().role, Role::Active, "seat 2 is enough");
    assert_eq!(desk.view().epoch, Some(epoch), "a higher one helps nobody");
    desk.hear(2, epoch.next_of(Seat(1)), Body::Beat { is_active: false });
    assert_eq!(desk.view().role, Role::Stopping);
}

#[test]
fn r15_an_older_word_of_a_voter_takes_nothing_back() {
    let mut desk = Desk::active();
    let epoch = own_epoch(&desk);
    let mut late = desk.message(1, epoch.next_of(Seat(1)), Body::Beat { is_active: false });
    desk.pass(5);
    let beat_sent_at = desk.now;
    desk.hear(1, epoch, Body::Ack { beat_sent_at });
    let authority = desk.view().authority_until;
    late.sent_at = late.sent_at.before(std::time::Duration::from_millis(1));
    desk.input(Input::Message(late));
    assert_eq!(desk.view().authority_until, authority);
}

#[test]
fn r15_what_was_on_its_way_for_longer_than_any_vote_lasts_is_over() {
    let mut desk = Desk::active();
    let higher = own_epoch(&desk).next_of(Seat(1));
    desk.hear(1, Epoch(0), Body::Hello);
    let deadtime = std::time::Duration::from_millis(800);
    let mut late = desk.message(1, higher, Body::Beat { is_active: true });
    late.sent_at = late.sent_at.after(std::time::Duration::from_millis(1));
    for _ in 0..=deadtime.as_millis() / 100 {
        desk.pass(100);
        let beat_sent_at = desk.now;
        desk.hear(2, own_epoch(&desk), Body::Ack { beat_sent_at });
    }
    desk.input(Input::Message(late));
    assert_eq!(desk.view().role, Role::Active);
    // What is sent next comes as soon as ever.
    late.sent_at = late.sent_at.after(std::time::Duration::from_millis(5));
    desk.pass(5);
    desk.input(Input::Message(late));
    assert_eq!(desk.view().role, Role::Stopping);
}

#[test]
fn r15_the_first_word_of_another_life_ends_nobody_and_its_second_does() {
    let mut desk = Desk::active();
    let higher = own_epoch(&desk).next_of(Seat(1));
    let mut word = desk.message(1, higher, Body::Beat { is_active: true });
    word.incarnation = Incarnation(word.incarnation.0 + 1);
    desk.input(Input::Message(word));
    assert_eq!(desk.view().role, Role::Active);
    desk.pass(5);
    word.sent_at = desk.now;
    desk.input(Input::Message(word));
    assert_eq!(desk.view().role, Role::Stopping);
}

#[test]
fn r15_the_lease_that_another_took_is_held_no_more() {
    let mut desk = Desk::bidding(2);
    desk.pass(30);
    let lease = |version: u64, holder: Holder, epoch: Epoch| LeaseView {
        uid: 1,
        version,
        content: LeaseContent {
            holder,
            epoch,
            hold: std::time::Duration::from_millis(800),
            seats: seats(2),
        },
    };
    let node = |seat: u8, incarnation: Incarnation| Holder::Node {
        seat: Seat(seat),
        occupant: Occupant(seat.into()),
        incarnation,
    };
    desk.answer(ApiAnswer::Lease(lease(7, Holder::Nobody, Epoch(0))));
    let own = node(0, desk.view().incarnation);
    desk.answer(ApiAnswer::Lease(lease(8, own, own_epoch(&desk))));
    let deadline = desk.armed().expect("it has a quorum");
    desk.input(Input::Guard(GuardEvent::Armed { deadline }));
    assert_eq!(desk.view().role, Role::Active);
    desk.pass(300);
    desk.answer(ApiAnswer::Lease(lease(
        9,
        node(1, Incarnation(1)),
        Epoch(9),
    )));
    assert_eq!(desk.view().role, Role::Stopping);
    assert_eq!(desk.view().epoch, Some(Epoch(5)), "it claims nothing more");
}

/// How long two answer after a machine that stood still goes on.
fn contention_after_a_stop(nodes: u8, seed: u64, for_ns: u64) -> u64 {
    let mut world = World::new(nodes, seed);
    world.run_for(40_000);
    let old = world.active().expect("one serves");
    world.inflict(Fault::StopClockOfActive { for_ns });
    let thawed_at = world.now + for_ns;
    world.run_until(thawed_at);
    assert_eq!(world.serving().len(), 2, "its Asterisk was not killed");
    world.run_for(5_000);
    assert_eq!(world.serving().len(), 1);
    assert_ne!(world.active(), Some(old), "the later promotion stays");
    assert_eq!(world.overlap, None);
    world.contended_until - thawed_at
}

#[test]
fn r15_a_machine_that_stood_still_stops_with_the_first_packet() {
    for nodes in [2, 3, 4] {
        for seed in 1..=20 {
            let contention = contention_after_a_stop(nodes, seed, 3 * SECOND);
            // Its own beat, the refusal, the order to the guard.
            assert!(contention < 6 * MS, "{nodes} {seed}: {contention} ns");
        }
    }
}

#[test]
fn r15_dropped_two_serve_until_the_votes_seem_to_end() {
    drop_rule(Some(Rule::HeedRivals));
    let contention = contention_after_a_stop(2, 1, 3 * SECOND);
    drop_rule(None);
    assert!(contention > 300 * MS, "{contention} ns");
}

#[test]
fn r15_a_lone_active_that_stood_still_on_its_long_hold_stops_with_the_first_packet() {
    for seed in 1..=10 {
        let mut world = World::new(2, seed);
        world.run_for(40_000);
        let old = world.active().expect("one serves");
        let other = 1 - old;
        world.inflict(Fault::Crash {
            seat: world.pods[other].seat.0,
            for_ns: 10 * SECOND,
        });
        world.run_for(9_000);
        let for_ns = 30 * SECOND;
        world.inflict(Fault::StopClockOfActive { for_ns });
        let thawed_at = world.now + for_ns;
        world.run_until(thawed_at);
        assert_eq!(world.serving().len(), 2, "seed {seed}");
        world.run_for(3_000);
        assert_eq!(world.active(), Some(other));
        let contention = world.contended_until - thawed_at;
        // The other was booted in between, and knows whom it speaks to from the first beat only.
        assert!(contention < 110 * MS, "seed {seed}: {contention} ns");
    }
}

#[test]
fn r15_an_epoch_in_the_api_is_gone_above_only_when_its_writer_could_have_spoken() {
    let seen = Input::Command(Command::SeenEpoch(Epoch(40)));
    let mut alone = Desk::active();
    let epoch = own_epoch(&alone);
    alone.input(seen);
    alone.pass(150);
    assert_eq!(alone.view().epoch, Some(epoch));
    alone.pass(60);
    assert_eq!(alone.view().epoch, Some(Epoch(45)), "R10");
    let mut outranked = Desk::active();
    outranked.input(seen);
    outranked.pass(20);
    outranked.hear(1, Epoch(40), Body::Beat { is_active: true });
    assert_eq!(outranked.view().role, Role::Stopping);
}

#[test]
fn without_a_quorum_the_active_goes_on_if_it_was_told_to_and_gives_way_to_a_later_one() {
    for (choice, serves) in [
        (OnQuorumLoss::Continue, true),
        (OnQuorumLoss::Demote, false),
    ] {
        let mut world = World::new(2, 3);
        world.on_quorum_loss = choice;
        world.run_for(40_000);
        let old = world.active().expect("one serves");
        world.inflict(Fault::IsolateActive {
            for_ns: 10 * SECOND,
        });
        world.run_for(9_000);
        assert_eq!(world.serving().contains(&old), serves, "{choice:?}");
        assert!(world.serving().contains(&(1 - old)), "it has a quorum");
        world.run_for(1_200);
        assert_eq!(world.serving(), vec![1 - old], "{choice:?}");
        assert_eq!(world.overlap, None);
    }
}

#[test]
fn without_a_quorum_and_without_a_rival_nothing_ends() {
    let mut world = World::new(2, 3);
    world.on_quorum_loss = OnQuorumLoss::Continue;
    world.run_for(40_000);
    let active = world.active().expect("one serves");
    let since = world.serving_since;
    world.inflict(Fault::ApiDown {
        for_ns: 60 * SECOND,
    });
    world.crash(1 - active);
    world.run_for(50_000);
    assert_eq!(world.serving_since, since);
}
