//! The hub between clients and an Asterisk that says what the real one said.

use std::time::{Duration, Instant};

use super::*;
use crate::filter::Filters;
use crate::user::{Secret, User, md5_key};

mod joined;

/// A hub, its clock, and the other ends.
struct World {
    hub: Hub,
    now: Instant,
}

const COMMANDS: &str = "Ping: Keepalive command.  (Priv: <none>)\r\nCommand: x  (Priv: command,all)\r\nOriginate: x  (Priv: originate,all)\r\n\
    Status: x  (Priv: system,call,reporting,all)\r\nUserEvent: x  (Priv: user,all)\r\nIAXnetstats: x  (Priv: system,reporting,all)\r\n";

fn user(name: &str, read: &str, write: &str) -> User {
    User {
        name: name.into(),
        secret: Secret::new(format!("{name}-secret")),
        read: Classes::parse(read).unwrap(),
        write: Classes::parse(write).unwrap(),
        permit: Vec::new(),
        filters: Filters::default(),
    }
}

impl World {
    fn new() -> Self {
        let users = Users::new([
            user("all", "all", "all"),
            user("desk", "call,user", "call,originate"),
            user("deaf", "", "all"),
        ]);
        let now = Instant::now();
        Self {
            hub: Hub::new(users, "m", now),
            now,
        }
    }

    fn ready() -> Self {
        let mut world = Self::new();
        world.connect();
        world
    }

    fn connect(&mut self) {
        let account = Account {
            user: "hub".into(),
            secret: Secret::new("x".into()),
        };
        self.hub.upstream_connected(account, self.now);
        self.say("Asterisk Call Manager/11.0.0\r\n");
        let id = self.next_id("Challenge");
        self.say(&format!(
            "Response: Success\r\nActionID: {id}\r\nChallenge: 5\r\n\r\n"
        ));
        let login = self.heard();
        assert!(login.contains(&format!("Key: {}\r\n", md5_key("5", "x"))));
        let id = id_in(&login);
        self.say(&format!("Response: Success\r\nActionID: {id}\r\n\r\nEvent: FullyBooted\r\nPrivilege: system,all\r\n\r\n"));
        let id = self.next_id("ListCommands");
        assert!(!self.hub.is_ready());
        self.say(&format!(
            "Response: Success\r\nActionID: {id}\r\n{COMMANDS}\r\n"
        ));
        assert!(self.hub.is_ready());
    }

    fn say(&mut self, text: &str) {
        self.hub.upstream_bytes(text.as_bytes(), self.now);
    }

    /// What Asterisk has been sent.
    fn heard(&mut self) -> String {
        let text = String::from_utf8(self.hub.upstream_unsent().to_vec()).unwrap();
        self.hub.upstream_sent(text.len(), self.now);
        text
    }

    fn next_id(&mut self, action: &str) -> String {
        let text = self.heard();
        assert!(text.starts_with(&format!("Action: {action}\r\n")), "{text}");
        id_in(&text)
    }

    fn open(&mut self) -> SessionId {
        let id = self.hub.open(None, "42".into(), self.now).unwrap();
        assert_eq!(self.read(id), "Asterisk Call Manager/11.0.0\r\n");
        id
    }

    fn login(&mut self, name: &str) -> SessionId {
        let id = self.open();
        self.send(
            id,
            &format!("Action: Login\r\nUsername: {name}\r\nSecret: {name}-secret"),
        );
        assert!(self.read(id).contains("Authentication accepted"));
        id
    }

    fn send(&mut self, id: SessionId, headers: &str) {
        let text = format!("{headers}\r\n\r\n");
        self.hub.client_bytes(id, text.as_bytes(), self.now);
    }

    fn read(&mut self, id: SessionId) -> String {
        let text = String::from_utf8(self.hub.unsent(id).to_vec()).unwrap();
        self.hub.sent(id, text.len());
        text
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            self.hub.tick(self.now);
        }
    }
}

fn id_in(text: &str) -> String {
    let mut lines = text.lines();
    let id = lines.find_map(|line| line.strip_prefix("ActionID: "));
    id.unwrap().to_owned()
}

#[test]
fn an_answer_goes_to_its_asker_under_its_own_identifier() {
    let mut world = World::ready();
    let (one, two) = (world.login("all"), world.login("all"));
    world.send(one, "Action: Ping\r\nActionID: a.b");
    world.send(two, "Action: status");
    let heard = world.heard();
    let ids: Vec<_> = heard
        .lines()
        .filter_map(|line| line.strip_prefix("ActionID: "))
        .collect();
    assert!(ids.len() == 2 && ids[0].ends_with(".a.b"), "{heard}");
    for id in [ids[1], ids[0]] {
        world.say(&format!(
            "Response: Success\r\nActionID: {id}\r\nPing: Pong\r\n\r\n"
        ));
    }
    assert_eq!(
        world.read(one),
        "Response: Success\r\nActionID: a.b\r\nPing: Pong\r\n\r\n"
    );
    assert_eq!(world.read(two), "Response: Success\r\nPing: Pong\r\n\r\n");
}

#[test]
fn a_challenge_is_answered_and_works_once_asked_for() {
    let mut world = World::ready();
    let key = md5_key("42", "desk-secret");
    let login = format!("Action: Login\r\nAuthType: MD5\r\nUsername: desk\r\nKey: {key}");
    let guess = world.open();
    world.send(guess, &login);
    let client = world.open();
    world.send(client, "Action: Challenge\r\nAuthType: md5");
    assert_eq!(
        world.read(client),
        "Response: Success\r\nChallenge: 42\r\n\r\n"
    );
    world.send(client, &login);
    assert!(world.read(client).contains("accepted"));
    assert_eq!(world.read(guess), "");
    world.pass(Duration::from_secs(2));
    assert!(world.read(guess).contains("Authentication failed") && world.hub.is_over(guess));
}

#[test]
fn nothing_is_done_before_the_login_or_without_the_class() {
    let mut world = World::ready();
    let client = world.open();
    world.send(client, "Action: Ping\r\nActionID: 1");
    assert_eq!(
        world.read(client),
        "Response: Error\r\nActionID: 1\r\nMessage: Permission denied\r\n\r\n"
    );
    let desk = world.login("desk");
    for action in ["Command\r\nCommand: x", "Originate\r\nApplication: System"] {
        world.send(desk, &format!("Action: {action}"));
        assert!(world.read(desk).contains("Permission denied"));
    }
    world.send(desk, "Action: Nope");
    assert!(world.read(desk).contains("Invalid/unknown command: Nope."));
    world.send(desk, "Action: Ping\r\nhalf");
    assert!(world.read(desk).contains("Line 2 is no header"));
    assert_eq!(world.heard(), "");
}

#[test]
fn an_event_is_heard_by_those_who_may_and_want_to() {
    let mut world = World::ready();
    let [all, desk, deaf, off] = ["all", "desk", "deaf", "all"].map(|name| world.login(name));
    world.send(off, "Action: Events\r\nEventMask: off");
    assert_eq!(world.read(off), "Response: Success\r\nEvents: Off\r\n\r\n");
    world.send(
        all,
        "Action: Filter\r\nOperation: Add\r\nFilter: !Channel: Secret",
    );
    world.read(all);
    world.say("Event: Hangup\r\nPrivilege: call,all\r\nChannel: x\r\n\r\nEvent: Hangup\r\nPrivilege: call,all\r\nChannel: Secret\r\n\r\nEvent: Reload\r\nPrivilege: system,all\r\n\r\n");
    let heard = world.read(all);
    assert!(heard.contains("Channel: x") && heard.contains("Reload") && !heard.contains("Secret"));
    let heard = world.read(desk);
    assert!(heard.contains("Channel: Secret") && !heard.contains("Reload"));
    assert_eq!(world.read(deaf) + &world.read(off), "");
}

#[test]
fn a_list_is_its_askers_alone_and_an_event_of_an_action_is_everybodys() {
    let mut world = World::ready();
    let (one, two) = (world.login("all"), world.login("all"));
    world.send(one, "Action: Status\r\nActionID: 7");
    let id = world.next_id("Status");
    world.say(&format!("Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\nEvent: Status\r\nPrivilege: Call\r\nActionID: {id}\r\n\r\n"));
    world.say(&format!(
        "Event: StatusComplete\r\nActionID: {id}\r\nEventList: Complete\r\n\r\n"
    ));
    assert_eq!(world.read(one).matches("ActionID: 7\r\n").count(), 3);
    assert_eq!(world.read(two), "");
    world.send(one, "Action: UserEvent\r\nUserEvent: x\r\nActionID: 8");
    let id = world.next_id("UserEvent");
    world.say(&format!("Response: Success\r\nActionID: {id}\r\n\r\nEvent: UserEvent\r\nPrivilege: user,all\r\nActionID: {id}\r\n\r\n"));
    assert_eq!(
        world.read(two),
        "Event: UserEvent\r\nPrivilege: user,all\r\nActionID: 8\r\n\r\n"
    );
}

#[test]
fn an_originate_without_async_is_made_in_the_background_and_answered_by_its_outcome() {
    let mut world = World::ready();
    let desk = world.login("desk");
    world.send(
        desk,
        "Action: Originate\r\nChannel: x\r\nAsync: no\r\nActionID: 5",
    );
    world.send(desk, "Action: Ping\r\nActionID: 6");
    let heard = world.heard();
    assert_eq!(heard.matches("Async").count(), 1);
    assert!(heard.contains("Async: true\r\n") && heard.contains("Action: Ping"));
    let id = id_in(&heard);
    world.say(&format!(
        "Response: Success\r\nActionID: {id}\r\nMessage: Originate successfully queued\r\n\r\n"
    ));
    assert_eq!(world.read(desk), "");
    world.say(&format!("Event: OriginateResponse\r\nPrivilege: call,all\r\nActionID: {id}\r\nResponse: Failure\r\nReason: 3\r\n\r\n"));
    assert_eq!(
        world.read(desk),
        "Response: Error\r\nActionID: 5\r\nMessage: Originate failed\r\n\r\n"
    );
}

#[test]
fn a_lost_connection_makes_outcomes_unknown_and_repeats_nothing() {
    let mut world = World::ready();
    let one = world.login("all");
    world.send(one, "Action: Ping\r\nActionID: 1");
    world.heard();
    world.hub.upstream_lost(world.now);
    let told = world.read(one);
    assert!(
        told.starts_with("Response: Error\r\nActionID: 1\r\nMessage: Outcome unknown"),
        "{told}"
    );
    assert!(told.contains("Event: PbxHaAsterisk") && told.contains("Status: Lost"));
    world.send(one, "Action: Ping\r\nActionID: 2");
    assert_eq!(world.read(one), "");
    world.connect();
    assert!(world.heard().ends_with(".2\r\n\r\n"));
    assert!(world.read(one).contains("Status: Connected"));
}

#[test]
fn without_an_asterisk_actions_are_held_and_then_refused() {
    let mut world = World::new();
    let one = world.login("all");
    world.send(
        one,
        "Action: Ping\r\nActionID: 1\r\n\r\nAction: Ping\r\nActionID: 2",
    );
    let number = 9;
    let action = b"Action: Ping\r\n\r\n".to_vec();
    world.hub.submit(
        Submission {
            number,
            action,
            write: Classes::ALL,
        },
        world.now,
    );
    world.pass(HOLD + TICK + TICK);
    assert_eq!(
        world.read(one).matches("No Asterisk is connected").count(),
        2
    );
    // The queue's action waits on.
    assert_eq!(world.hub.take_outcomes(), []);
    world.connect();
    assert_eq!(world.heard().matches("Action: Ping").count(), 1);
}

#[test]
fn a_submission_keeps_its_whole_answer() {
    let mut world = World::ready();
    let submit = |world: &mut World, number, text: &str| {
        let action = format!("{text}\r\n\r\n").into_bytes();
        world.hub.submit(
            Submission {
                number,
                action,
                write: Classes::ALL,
            },
            world.now,
        );
    };
    submit(&mut world, 1, "Action: Originate\r\nChannel: Local/x");
    let id = world.next_id("Originate");
    world.say(&format!("Response: Success\r\nActionID: {id}\r\n\r\nEvent: OriginateResponse\r\nPrivilege: call,all\r\nActionID: {id}\r\nResponse: Success\r\nUniqueid: 1.2\r\n\r\n"));
    let outcome = world.hub.take_outcomes().remove(0);
    assert_eq!(
        (outcome.number, outcome.end),
        (1, End::Answered { is_success: true })
    );
    assert_eq!(first_in(&outcome.answer, "Uniqueid"), Some(&b"1.2"[..]));
    submit(&mut world, 2, "Action: Logoff");
    submit(&mut world, 3, "Action: Ping");
    world.heard();
    world.hub.upstream_lost(world.now);
    let ends: Vec<_> = world
        .hub
        .take_outcomes()
        .into_iter()
        .map(|outcome| outcome.end)
        .collect();
    assert!(matches!(ends[0], End::Refused(_)) && matches!(ends[1], End::Unknown(_)));
}

#[test]
fn a_client_with_thousands_waiting_delays_another_by_its_share() {
    let mut world = World::ready();
    let (greedy, modest) = (world.login("all"), world.login("all"));
    let burst = "Action: Status\r\nActionID: greedy\r\n\r\n".repeat(1000);
    world.hub.client_bytes(greedy, burst.as_bytes(), world.now);
    world.send(modest, "Action: Status\r\nActionID: modest");
    let heard = world.heard();
    assert_eq!(
        heard.matches(".greedy").count(),
        turn::CLIENT_UNANSWERED_LIMIT
    );
    assert_eq!(heard.matches(".modest").count(), 1);
    let mut answered = 0;
    let mut waiting = heard;
    while !waiting.is_empty() {
        let ids: Vec<_> = waiting
            .lines()
            .filter_map(|line| line.strip_prefix("ActionID: "))
            .collect();
        for id in ids {
            world.say(&format!("Response: Success\r\nActionID: {id}\r\n\r\n"));
        }
        answered += world.read(greedy).matches("Success").count();
        waiting = world.heard();
    }
    assert_eq!(answered, 1000);
}

#[test]
fn a_client_with_many_waiting_goes_on_after_a_lost_connection() {
    let mut world = World::ready();
    let client = world.login("all");
    let burst = "Action: Status\r\n\r\n".repeat(100);
    world.hub.client_bytes(client, burst.as_bytes(), world.now);
    world.heard();
    world.hub.upstream_lost(world.now);
    world.connect();
    assert_eq!(
        world.heard().matches("Action: Status").count(),
        100 - turn::CLIENT_UNANSWERED_LIMIT
    );
}

#[test]
fn a_client_that_does_not_read_is_dropped_at_a_bounded_cost() {
    let mut world = World::ready();
    let (stalled, reading) = (world.login("all"), world.login("all"));
    let event = format!(
        "Event: X\r\nPrivilege: call,all\r\nY: {}\r\n\r\n",
        "y".repeat(400)
    );
    let mut most = 0;
    for _ in 0..2000 {
        world.say(&event);
        most = most.max(world.hub.unsent(stalled).len());
        world.read(reading);
    }
    assert!(world.hub.is_over(stalled) && !world.hub.is_over(reading));
    assert!(most <= OUTPUT_LIMIT_BYTES + event.len());
    assert_eq!(world.hub.unsent(stalled).len(), 0);
}

#[test]
fn a_client_that_takes_nothing_for_long_is_dropped_and_an_idle_one_is_kept() {
    let mut world = World::ready();
    let (stuck, idle, silent) = (world.login("all"), world.login("all"), world.open());
    world.send(idle, "Action: Events\r\nEventMask: off");
    world.read(idle);
    world.say("Event: X\r\nPrivilege: call,all\r\n\r\n");
    world.pass(STUCK_LIMIT + TICK + TICK + TICK);
    assert!(world.hub.is_over(stuck) && !world.hub.is_over(silent));
    for _ in 0..100 {
        world.pass(Duration::from_mins(1));
        // The hub's own signs of life are answered.
        let ping = world.heard();
        if !ping.is_empty() {
            let id = id_in(&ping);
            world.say(&format!("Response: Success\r\nActionID: {id}\r\n\r\n"));
        }
    }
    assert!(!world.hub.is_over(idle) && world.hub.is_over(silent));
}

#[test]
fn bare_text_is_asked_for_as_a_command() {
    let mut world = World::ready();
    let one = world.login("all");
    world.send(one, "Action: IAXnetstats\r\nActionID: 1");
    let heard = world.heard();
    assert!(heard.starts_with("Action: Command\r\nCommand: iax2 show netstats\r\n"));
    let id = id_in(&heard);
    world.say(&format!(
        "Response: Success\r\nActionID: {id}\r\nOutput: a\r\nOutput:  b\r\n\r\n"
    ));
    assert_eq!(world.read(one), "a\r\n b\r\n\r\n");
}

#[test]
fn events_wait_for_their_pace_and_answers_do_not() {
    let mut world = World::ready();
    let one = world.login("all");
    let mut dirty = Vec::new();
    world.now += Duration::from_secs(1);
    world.hub.take_dirty(world.now, &mut dirty);
    let event = "Event: X\r\nPrivilege: call,all\r\n\r\n";
    let dirty_after = |world: &mut World, text: &str| {
        let mut dirty = Vec::new();
        world.say(text);
        world.hub.take_dirty(world.now, &mut dirty);
        dirty
    };
    assert_eq!(dirty_after(&mut world, event), [one]);
    assert_eq!(dirty_after(&mut world, event), []);
    world.hub.tick(world.now);
    assert_eq!(world.hub.next_deadline(), world.now + EVENTS_PACE);
    world.send(one, "Action: Ping");
    let id = world.next_id("Ping");
    assert_eq!(
        dirty_after(
            &mut world,
            &format!("Response: Success\r\nActionID: {id}\r\n\r\n")
        ),
        [one]
    );
}
