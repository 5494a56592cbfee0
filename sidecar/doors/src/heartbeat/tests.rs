//! The hub: sign-on, requests, filters, signals, messages within and between nodes.

use std::sync::Arc;
use std::time::Duration;

use super::frame::HEADER_BYTES;
use super::hub::{ClientId, Hub, Input, Moment, Output};
use super::message::Message;
use super::permission::{Credentials, Settings};
use crate::fixtures;
use crate::view::View;

const ROOT: Credentials = Credentials {
    uid: 0,
    gid: 0,
    can_be_signalled: true,
};
const USER: Credentials = Credentials {
    uid: 1000,
    gid: 1000,
    can_be_signalled: false,
};

/// A hub, and what it ordered in words: `1<t=... st=...` to client 1, `1 closed`, `office-1< ...` to a peer, `*<` to all.
struct Bench {
    hub: Hub,
    now: Moment,
}

impl Bench {
    fn of(view: View) -> Self {
        let now = Moment {
            wall: view.started_at,
            uptime: Duration::ZERO,
        };
        Self {
            hub: Hub::new(Settings::default(), Arc::new(view), now),
            now,
        }
    }

    fn step(&mut self, input: Input<'_>) -> Vec<String> {
        let mut outputs = Vec::new();
        self.hub.step(self.now, input, &mut outputs);
        outputs.iter().map(in_words).collect()
    }

    fn connect(&mut self, client: u64, peer: Credentials) {
        let client = ClientId(client);
        assert!(self.step(Input::Connected { client, peer }).is_empty());
    }

    fn say(&mut self, client: u64, message: &Message) -> Vec<String> {
        let body = message.encode();
        let client = ClientId(client);
        self.step(Input::Said {
            client,
            body: &body,
        })
    }

    fn ask(&mut self, client: u64, request: &str, fields: &[(&str, &str)]) -> Vec<String> {
        self.say(client, &request_of(request, fields))
    }

    /// A client that has signed on as root, and got its reply.
    fn signed_on(&mut self, client: u64, name: &str) {
        self.connect(client, ROOT);
        let said = self.say(client, &signon(name, ROOT));
        assert!(said[0].contains("result=OK"), "{said:?}");
    }
}

fn request_of(request: &str, fields: &[(&str, &str)]) -> Message {
    let empty = Message::of_type("hbapi-req").with("reqtype", request);
    let with = |message: Message, (name, value): &(&str, &str)| message.with(name, value);
    fields.iter().fold(empty, with)
}

fn signon(name: &str, peer: Credentials) -> Message {
    request_of(
        "signon",
        &[("dest", "office-0"), ("pid", "42"), ("from_id", name)],
    )
    .with("uid", &peer.uid.to_string())
    .with("gid", &peer.gid.to_string())
}

fn in_words(output: &Output) -> String {
    match output {
        Output::Send { client, frame } => {
            format!("{}<{}", client.0, fields(&frame[HEADER_BYTES..]))
        }
        Output::Signal { client, number } => format!("{} signal {number}", client.0),
        Output::Close { client, reason } => format!("{} closed: {reason}", client.0),
        Output::Peers { to, body } => format!("{}<{}", to.as_deref().unwrap_or("*"), fields(body)),
    }
}

fn fields(body: &[u8]) -> String {
    let message = Message::parse(body).unwrap();
    let fields = message.fields().iter().map(|field| {
        let value = String::from_utf8_lossy(&field.value);
        format!("{}={value}", String::from_utf8_lossy(&field.name))
    });
    fields.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_casual_client_is_greeted_with_the_timing_in_hex() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.connect(1, USER);
    let said = bench.say(1, &signon("42", USER));
    assert_eq!(
        said,
        [
            "1<t=hbapi-resp reqtype=signon deadtime=320 keepalive=64 node=office-0 \
          hbversion=3.0.6 (pbx-ha 0.1.0) pacemaker=off logfacility=-1 result=OK"
        ]
    );
}

#[test]
fn false_credentials_and_missing_rights_are_refused_with_the_timing() {
    let mut bench = Bench::of(fixtures::two_nodes());
    for (client, message, reason) in [
        (1, signon("42", ROOT), "incorrect/false credentials"),
        (2, signon("ipfail", USER), "client failed authorization"),
        (3, signon("", USER), "EINVAL"),
        (4, signon("#1", USER), "EINVAL"),
        (5, signon(&"x".repeat(32), USER), "EINVAL"),
    ] {
        bench.connect(client, USER);
        let said = bench.say(client, &message);
        assert!(
            said[0].ends_with(&format!("result=badreq info={reason}")),
            "{said:?}"
        );
        assert!(said[0].contains("deadtime=320 keepalive=64 node=office-0"));
        assert_eq!(said[1], format!("{client} closed: {reason}"));
    }
}

#[test]
fn a_name_is_held_by_one_client_at_a_time() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "ipfail");
    bench.connect(2, ROOT);
    let said = bench.say(2, &signon("ipfail", ROOT));
    assert!(said[0].ends_with("info=duplicate add request"), "{said:?}");
    bench.step(Input::Gone {
        client: ClientId(1),
    });
    bench.signed_on(3, "ipfail");
}

#[test]
fn whoever_does_not_begin_with_signon_is_closed() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.connect(1, ROOT);
    assert_eq!(bench.ask(1, "nodelist", &[]), ["1 closed: no signon"]);
    bench.connect(2, ROOT);
    let client = ClientId(2);
    let said = bench.step(Input::Said {
        client,
        body: b"GET /",
    });
    assert_eq!(said, ["2 closed: not a message"]);
    assert!(bench.ask(2, "nodelist", &[]).is_empty());
}

#[test]
fn coming_and_going_is_told_to_the_same_name_everywhere() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.connect(1, ROOT);
    let said = bench.say(1, &signon("ipfail", ROOT));
    let join = "t=hbapi-clstat st=join from_id=ipfail to_id=ipfail src=office-0 info=signon";
    assert_eq!(said[1..], [format!("1<{join}"), format!("*<{join}")]);
    let leave = "t=hbapi-clstat st=leave from_id=ipfail to_id=ipfail src=office-0 info=signoff";
    let said = bench.ask(1, "signoff", &[]);
    assert_eq!(said, [format!("*<{leave}"), "1 closed: signoff".into()]);
}

#[test]
fn an_unknown_request_has_a_reply_too() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "42");
    let badreq = "1<t=hbapi-resp reqtype=dance result=badreq info=EINVAL";
    assert_eq!(bench.ask(1, "dance", &[]), [badreq]);
    assert_eq!(bench.ask(1, "signon", &[]).len(), 1);
    assert!(
        bench
            .ask(1, "set_sendqlen", &[("sendqlen", "5")])
            .is_empty()
    );
}

#[test]
fn a_death_is_told_to_all_that_signed_on() {
    let mut view = fixtures::two_nodes();
    let mut bench = Bench::of(view.clone());
    bench.signed_on(1, "42");
    bench.signed_on(2, "ipfail");
    bench.connect(3, USER);
    view.nodes[1].is_up = false;
    let said = bench.step(Input::View(Arc::new(view)));
    assert!(
        said.iter().all(|line| line.contains("t=ifstat")),
        "{said:?}"
    );
    assert_eq!(
        bench.hub.until_time(bench.now),
        Some(Duration::from_millis(400))
    );
    bench.now.uptime += Duration::from_millis(400);
    let said = bench.step(Input::Time);
    let dead = "t=status st=dead src=office-1 ts=6553f100";
    assert_eq!(said[..2], [format!("1<{dead}"), format!("2<{dead}")]);
    assert!(
        said[2..].iter().all(|line| line.contains("t=ifstat")),
        "{said:?}"
    );
}

#[test]
fn filters_are_for_the_privileged() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.connect(1, USER);
    bench.say(1, &signon("42", USER));
    let said = bench.ask(1, "setfilter", &[("fmask", "f")]);
    assert!(said[0].ends_with("result=badreq info=EPERM"), "{said:?}");
    for mask in ["", "xyz", "40", "0"] {
        let said = bench.ask(1, "setfilter", &[("fmask", mask)]);
        assert!(said[0].ends_with("info=EINVAL"), "{mask} {said:?}");
    }
    assert!(bench.ask(1, "setfilter", &[("fmask", "1")])[0].ends_with("result=OK"));
}

#[test]
fn beats_and_requests_are_shown_to_those_who_asked() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "42");
    bench.signed_on(2, "42");
    assert!(!bench.hub.wants_beats());
    bench.ask(1, "setfilter", &[("fmask", "f")]);
    assert!(bench.hub.wants_beats());
    let said = bench.step(Input::Beat);
    assert_eq!(said.len(), 2);
    assert!(
        said.iter()
            .all(|line| line.starts_with("1<t=status st=active"))
    );
    assert_eq!(bench.ask(2, "getrsc", &[]).len(), 1);
    bench.ask(1, "setfilter", &[("fmask", "3f")]);
    let said = bench.ask(2, "getrsc", &[]);
    assert_eq!(said[0], "1<t=hbapi-req reqtype=getrsc");
    assert!(said[1].starts_with("2<t=hbapi-resp"));
}

#[test]
fn signals_only_go_where_they_can() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "42");
    let said = bench.ask(1, "setsignal", &[("signal", "10")]);
    assert_eq!(
        said,
        ["1 signal 10", "1<t=hbapi-resp reqtype=setsignal result=OK"]
    );
    for signal in ["9", "19", "32", "-1", "x"] {
        let said = bench.ask(1, "setsignal", &[("signal", signal)]);
        assert!(said[0].ends_with("info=EINVAL"), "{signal} {said:?}");
    }
    bench.connect(2, USER);
    bench.say(2, &signon("42", USER));
    let said = bench.ask(2, "setsignal", &[("signal", "10")]);
    assert!(said[0].ends_with("info=EPERM"), "{said:?}");
    assert_eq!(bench.ask(2, "setsignal", &[("signal", "0")]).len(), 2);
}

#[test]
fn a_message_goes_to_its_own_name_and_cannot_lie_about_its_sender() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "ipfail");
    bench.signed_on(2, "other");
    let message = Message::of_type("hello")
        .with("from_id", "other")
        .with("to_id", "other")
        .with("src", "office-9")
        .with("seq", "1");
    let expected = "t=hello from_id=ipfail to_id=ipfail src=office-0";
    let said = bench.say(1, &message);
    assert_eq!(said, [format!("1<{expected}"), format!("*<{expected}")]);
    let said = bench.say(1, &message.clone().with("dest", "OFFICE-1"));
    assert_eq!(said, [format!("office-1<{expected} dest=OFFICE-1")]);
    let said = bench.say(1, &message.clone().with("dest", "office-0"));
    assert_eq!(said, [format!("1<{expected} dest=office-0")]);
    assert!(bench.say(1, &message.with("dest", "nobody")).is_empty());
}

#[test]
fn a_casual_client_that_sends_is_closed() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "42");
    let said = bench.say(1, &Message::of_type("hello"));
    assert_eq!(said, ["1 closed: a casual client sends no messages"]);
}

#[test]
fn a_peers_message_comes_from_where_the_channel_says() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "ipfail");
    let body = Message::of_type("hello")
        .with("src", "office-0")
        .with("to_id", "ipfail")
        .encode();
    let said = bench.step(Input::Peer {
        from: "office-1",
        body: &body,
    });
    assert_eq!(said, ["1<t=hello src=office-1 to_id=ipfail"]);
    assert!(
        bench
            .step(Input::Peer {
                from: "stranger",
                body: &body
            })
            .is_empty()
    );
    assert!(
        bench
            .step(Input::Peer {
                from: "office-1",
                body: b"x"
            })
            .is_empty()
    );
}

#[test]
fn whether_a_client_is_there_is_asked_of_its_node() {
    let (mut here, mut there) = (
        Bench::of(fixtures::two_nodes()),
        Bench::of(seen_from_the_other()),
    );
    here.signed_on(1, "42");
    there.signed_on(7, "ipfail");
    let local = here.ask(1, "clientstatus", &[("node", "office-0"), ("cn", "ipfail")]);
    assert_eq!(
        local,
        ["1<t=hbapi-resp reqtype=clientstatus subt=respond-cstatus cs=offline result=OK"]
    );
    for (client, status) in [("ipfail", "online"), ("nobody", "offline")] {
        let asked = here.ask(1, "clientstatus", &[("node", "office-1"), ("cn", client)]);
        assert_eq!(
            asked,
            [format!("office-1<t=query-cstatus cn={client} from_id=#1")]
        );
        let question = Message::of_type("query-cstatus")
            .with("cn", client)
            .with("from_id", "#1");
        let answered = there.step(Input::Peer {
            from: "office-0",
            body: &question.encode(),
        });
        let answer =
            format!("t=respond-cstatus cn={client} cs={status} src=office-1 to_id=#1 result=OK");
        assert_eq!(answered, [format!("office-0<{answer}")]);
        let body = Message::of_type("respond-cstatus")
            .with("cs", status)
            .with("to_id", "#1")
            .encode();
        let told = here.step(Input::Peer {
            from: "office-1",
            body: &body,
        });
        assert_eq!(
            told,
            [format!(
                "1<t=respond-cstatus cs={status} to_id=#1 src=office-1"
            )]
        );
    }
}

#[test]
fn clients_of_a_dead_node_are_offline_at_once() {
    let mut view = fixtures::two_nodes();
    view.nodes[1].is_up = false;
    let mut bench = Bench::of(view);
    bench.signed_on(1, "42");
    let said = bench.ask(1, "clientstatus", &[("node", "office-1"), ("cn", "ipfail")]);
    assert!(said[0].contains("cs=offline result=OK"), "{said:?}");
    let said = bench.ask(1, "clientstatus", &[("node", "nobody"), ("cn", "ipfail")]);
    assert!(
        said[0].contains("subt=respond-cstatus result=badreq"),
        "{said:?}"
    );
}

#[test]
fn a_question_to_all_is_answered_by_each_node() {
    let mut bench = Bench::of(fixtures::two_nodes());
    bench.signed_on(1, "ipfail");
    let said = bench.say(1, &Message::of_type("query-cstatus").with("cn", "other"));
    assert_eq!(
        said,
        [
            "1<t=respond-cstatus cn=other cs=offline src=office-0 to_id=ipfail result=OK",
            "*<t=query-cstatus cn=other from_id=#1 to_id=ipfail src=office-0"
        ]
    );
}

#[test]
fn who_was_never_heard_dies_with_time() {
    let mut view = fixtures::two_nodes();
    view.nodes[1].is_up = false;
    view.nodes[1].is_known = false;
    let mut bench = Bench::of(view);
    bench.signed_on(1, "42");
    assert_eq!(
        bench.hub.until_time(bench.now),
        Some(Duration::from_secs(30))
    );
    assert!(bench.step(Input::Time).is_empty());
    bench.now.wall = fixtures::at(bench.now.wall.as_second() + 30);
    let said = bench.step(Input::Time);
    assert!(
        said[0].starts_with("1<t=status st=dead src=office-1"),
        "{said:?}"
    );
    assert_eq!(bench.hub.until_time(bench.now), None);
}

fn seen_from_the_other() -> View {
    let mut view = fixtures::two_nodes();
    view.own = 1;
    view
}
