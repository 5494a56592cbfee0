//! Pings that share an answer.

use super::*;

#[test]
fn pings_that_wait_in_a_row_are_asked_once_and_each_is_answered() {
    let mut world = World::ready();
    let (one, two) = (world.login("all"), world.login("desk"));
    world.send(one, "Action: Ping\r\nActionID: a\r\n\r\nAction: Ping");
    world.send(two, "action: ping\r\nActionID: b");
    let id = world.next_id("Ping");
    world.send(two, "Action: Ping\r\nActionID: c");
    let later = world.next_id("Ping");
    world.say(&format!(
        "Response: Success\r\nActionID: {id}\r\nPing: Pong\r\n\r\n"
    ));
    assert_eq!(
        world.read(one),
        "Response: Success\r\nActionID: a\r\nPing: Pong\r\n\r\nResponse: Success\r\nPing: Pong\r\n\r\n"
    );
    assert_eq!(
        world.read(two),
        "Response: Success\r\nActionID: b\r\nPing: Pong\r\n\r\n"
    );
    world.hub.upstream_lost(world.now);
    assert!(later.contains(".c"), "what was sent is joined by none");
    assert!(
        world
            .read(two)
            .starts_with("Response: Error\r\nActionID: c")
    );
    let counters = world.hub.counters();
    assert_eq!(counters.actions.load(Ordering::Relaxed), 2);
    assert_eq!(counters.joined.load(Ordering::Relaxed), 2);
}

#[test]
fn a_ping_behind_another_action_or_of_more_headers_is_asked_for_itself() {
    let mut world = World::ready();
    let (one, two) = (world.login("all"), world.login("all"));
    world.send(one, "Action: Ping\r\n\r\nAction: Status");
    world.send(two, "Action: Ping\r\n\r\nAction: Ping\r\nNote: x");
    assert_eq!(world.heard().matches("Action: ").count(), 4);
    world.send(one, "Action: Ping");
    let half = world.hub.upstream_unsent().len() / 2;
    world.hub.upstream_sent(half, world.now);
    world.send(two, "Action: Ping");
    assert_eq!(world.heard().matches("Action: Ping").count(), 1);
}

#[test]
fn joined_pings_share_the_fate_of_the_one_that_was_sent() {
    let mut world = World::ready();
    let (one, two) = (world.login("deaf"), world.login("deaf"));
    world.send(one, "Action: Ping\r\nActionID: a");
    world.send(two, "Action: Ping\r\nActionID: b");
    world.hub.close(one);
    world.heard();
    world.hub.upstream_lost(world.now);
    let told = world.read(two);
    assert!(
        told.starts_with("Response: Error\r\nActionID: b\r\nMessage: Outcome unknown"),
        "{told}"
    );
}
