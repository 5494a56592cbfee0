//! Heartbeat's door under its unmodified clients: Debian's `cl_status` and `api_test`, and a C program linked with libhbclient.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::time::{Duration, Instant};

use pbx_crds::status::LinkState;
use pbx_doors::fixtures;
use pbx_doors::heartbeat::{ApiAuth, Rule, Settings};
use pbx_doors::view::View;
use pbx_tests::linux_ha::API_TEST;
use support::Nodes;

fn lose_office_1(view: &mut View) {
    view.nodes[1].is_up = view.own == 1;
}

fn regain_office_1(view: &mut View) {
    view.nodes[1].is_up = true;
}

#[test]
fn cl_status_gets_an_answer_to_every_question() {
    let nodes = Nodes::start();
    nodes.change_on(0, |view| {
        fixtures::set_links(
            view,
            &[
                ("office-1/eth0", LinkState::Up),
                ("office-1/eth1", LinkState::Down),
            ],
        );
    });
    let running = "Heartbeat is running on this machine.";
    let cases: [(&[&str], i32, &str); 22] = [
        (&["hbstatus"], 0, running),
        (&["listnodes"], 0, "office-1\noffice-0"),
        (&["listnodes", "-n"], 0, "office-1\noffice-0"),
        (&["listnodes", "-p"], 0, ""),
        (&["nodestatus", "office-0"], 0, "active"),
        (&["nodestatus", "office-1"], 0, "active"),
        (&["nodestatus", "nobody"], 11, ""),
        (&["nodetype", "office-1"], 0, "normal"),
        (&["nodeweight", "office-1"], 0, "100"),
        (&["nodesite", "office-1"], 0, ""),
        (&["listhblinks", "office-1"], 0, "eth1\n\teth0"),
        (&["listhblinks", "nobody"], 13, ""),
        (&["hblinkstatus", "office-1", "eth0"], 0, "up"),
        (&["hblinkstatus", "office-1", "eth1"], 1, "dead"),
        (&["hblinkstatus", "office-1", "eth9"], 13, ""),
        (&["clientstatus", "office-0", "ipfail"], 1, "offline"),
        (
            &["clientstatus", "office-1", "ipfail", "2000"],
            1,
            "offline",
        ),
        (&["rscstatus"], 0, "all"),
        (
            &["rscstatus", "-m"],
            0,
            "This node is holding all resources.",
        ),
        (&["hbparameter", "-p", "keepalive"], 0, "100ms"),
        (
            &["hbparameter", "-p", "hbversion"],
            0,
            "3.0.6 (pbx-ha 0.1.0)",
        ),
        (&["hbparameter", "-p", "nope"], 1, ""),
    ];
    for (arguments, code, text) in cases {
        assert_eq!(
            nodes.cl_status(0, arguments),
            (code, text.to_owned()),
            "{arguments:?}"
        );
    }
    assert_eq!(nodes.cl_status(1, &["rscstatus"]), (0, "none".into()));
    let mut watching = nodes.client(0, "-");
    nodes.change(lose_office_1);
    watching.expect("node office-1 dead").unwrap();
    assert_eq!(
        nodes.cl_status(0, &["nodestatus", "office-1"]),
        (1, "dead".into())
    );
}

#[test]
fn api_test_runs_through() {
    let nodes = Nodes::start();
    let mut command = nodes.command(0, &[API_TEST]);
    // It never ends by itself.
    let mut child = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(8));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    child.wait().unwrap();
    for expected in [
        "Cluster node: office-0: status: active",
        "Cluster node: office-1: status: active",
        "Current resource status: all",
        "Waiting for messages",
    ] {
        assert!(said.contains(expected), "no {expected:?} in {said}");
    }
    assert!(!said.contains("ERROR"), "{said}");
}

#[test]
fn a_program_sees_nodes_links_and_their_changes_at_once() {
    let nodes = Nodes::start();
    let mut client = nodes.client(0, "-");
    for line in [
        "on office-0 deadtime 800 keepalive 100 resources all",
        "walk HA_OK",
        "found office-1 active normal weight 100 site ''",
        "over office-1/udp up",
        "nodes 2",
    ] {
        assert!(
            client.seen().iter().any(|seen| seen == line),
            "{line} in {:?}",
            client.seen()
        );
    }
    let began = Instant::now();
    nodes.change(lose_office_1);
    assert_eq!(client.expect("node").unwrap(), "node office-1 dead");
    let took = began.elapsed();
    assert_eq!(client.expect("link").unwrap(), "link office-1/udp dead");
    nodes.change(regain_office_1);
    assert_eq!(client.expect("node").unwrap(), "node office-1 active");
    // The view tells of a silence after warntime (400 ms), clients after deadtime (800 ms).
    assert!(
        (350..1000).contains(&took.as_millis()),
        "the death was told after {took:?}"
    );
    client.tell("quit").unwrap();
    client.expect("signoff HA_OK").unwrap();
}

#[test]
fn a_program_hears_of_a_move_of_the_role() {
    let nodes = Nodes::start();
    let mut client = nodes.client(1, "-");
    nodes.change(|view| view.active = Some(1));
    for told in [
        "resource office-0 none stable 1",
        "resource office-1 all stable 1",
    ] {
        assert_eq!(client.expect("resource").unwrap(), told);
    }
}

#[test]
fn messages_cross_nodes_in_order_and_reach_their_sender() {
    let nodes = Nodes::start();
    let mut here = nodes.client(0, "phones");
    assert_eq!(
        here.expect("client").unwrap(),
        "client office-0/phones join"
    );
    let mut there = nodes.client(1, "phones");
    assert_eq!(
        here.expect("client").unwrap(),
        "client office-1/phones join"
    );
    for number in 0..50 {
        here.tell(&format!("cluster {number}")).unwrap();
    }
    for number in 0..50 {
        let text = format!("text office-0 phones: {number}");
        assert_eq!(here.expect("text").unwrap(), text);
        assert_eq!(there.expect("text").unwrap(), text);
    }
    there.tell("node office-0 only for you").unwrap();
    assert_eq!(
        here.expect("text").unwrap(),
        "text office-1 phones: only for you"
    );
    there.tell("cluster nested").unwrap();
    assert_eq!(
        here.expect("text").unwrap(),
        "text office-1 phones: nested (a=b,c)"
    );
    assert_eq!(
        there.expect("text").unwrap(),
        "text office-1 phones: nested (a=b,c)"
    );
    there.tell("ordered numbered").unwrap();
    assert_eq!(
        here.expect("text").unwrap(),
        "text office-1 phones: numbered"
    );
    drop(there);
    assert_eq!(
        here.expect("client").unwrap(),
        "client office-1/phones leave"
    );
}

#[test]
fn a_program_learns_whether_another_is_there() {
    let nodes = Nodes::start();
    let mut asking = nodes.client(0, "asking");
    let _there = nodes.client(1, "phones");
    for (question, answer) in [
        ("client office-0 asking", "there online"),
        ("client office-0 phones", "there offline"),
        ("client office-1 phones", "there online"),
        ("client office-1 nobody", "there offline"),
    ] {
        asking.tell(question).unwrap();
        assert_eq!(asking.expect("there").unwrap(), answer, "{question}");
    }
    asking.tell("ask phones").unwrap();
    assert_eq!(
        asking.expect("client office-0/phones").unwrap(),
        "client office-0/phones offline"
    );
    assert_eq!(
        asking.expect("client office-1/phones").unwrap(),
        "client office-1/phones online"
    );
    asking.tell("uuid office-1").unwrap();
    assert_eq!(
        asking.expect("uuid").unwrap(),
        "uuid of office-1 names office-1 HA_OK"
    );
}

#[test]
fn casual_clients_cannot_send_and_names_are_held_once() {
    let nodes = Nodes::start();
    let mut casual = nodes.client(0, "-");
    casual.tell("cluster hello").unwrap();
    assert_eq!(casual.expect("sent").unwrap(), "sent HA_FAIL");
    let _first = nodes.client(0, "phones");
    let second = nodes.client(0, "phones");
    assert!(
        second.seen()[0].starts_with("refused"),
        "{:?}",
        second.seen()
    );
}

#[test]
fn without_rules_other_users_look_but_have_no_names() {
    let nodes = Nodes::start();
    let other = (65534, 65534);
    assert!(is_let_in(&nodes, "-", other), "who only looks");
    assert!(!is_let_in(&nodes, "phones", other));
    assert!(is_let_in(&nodes, "phones", (0, 0)));
}

#[test]
fn rules_say_who_has_which_name() {
    let rule = |client: &str, uids: &[u32], gids: &[u32]| Rule {
        client: client.into(),
        uids: uids.into(),
        gids: gids.into(),
    };
    let nodes = Nodes::start_with(Settings {
        auth: ApiAuth {
            rules: vec![
                rule("phones", &[1001], &[]),
                rule("default", &[], &[1002]),
                rule("anon", &[], &[1003]),
            ],
            own_uid: 0,
        },
        ..Settings::default()
    });
    for (name, of, expected) in [
        ("phones", (1001, 7), true),
        ("phones", (7, 1002), false),
        ("desk", (7, 1002), true),
        ("desk", (1001, 7), false),
        ("-", (7, 1003), true),
        ("-", (1001, 1002), false),
        ("-", (0, 0), true),
    ] {
        assert_eq!(is_let_in(&nodes, name, of), expected, "{name} as {of:?}");
    }
}

fn is_let_in(nodes: &Nodes, name: &str, (uid, gid): (u32, u32)) -> bool {
    let client = nodes.client_of(0, name, (uid, gid));
    client.seen().last().unwrap() == "ready"
}

#[test]
fn filters_and_signals_do_what_they_say() {
    let nodes = Nodes::start();
    let mut client = nodes.client(0, "-");
    client.tell("filter 0").unwrap();
    assert_eq!(client.expect("filter").unwrap(), "filter HA_OK");
    client.tell("filter 2").unwrap();
    assert_eq!(client.expect("filter").unwrap(), "filter HA_OK");
    assert_eq!(
        client.expect("node").unwrap(),
        "node office-0 active",
        "a beat that tells nothing new"
    );
    client.tell("filter 3").unwrap();
    client.expect("filter HA_OK").unwrap();
    let mut other = nodes.client(0, "-");
    assert_eq!(
        client.expect("other").unwrap(),
        "other hbapi-req",
        "a request of another client"
    );
    other.tell("signal 9").unwrap();
    assert_eq!(other.expect("signal").unwrap(), "signal HA_FAIL");
    other
        .tell(&format!(
            "signal {}",
            rustix::process::Signal::USR1.as_raw()
        ))
        .unwrap();
    assert_eq!(other.expect("signal").unwrap(), "signal HA_OK");
    nodes.change(lose_office_1);
    other.expect("node office-1 dead").unwrap();
    other.tell("signals").unwrap();
    assert_eq!(other.expect("signals").unwrap(), "signals came");
}

#[test]
fn hundreds_of_clients_are_told_and_stalled_ones_hold_nobody_up() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::Ordering;

    let nodes = Nodes::start();
    let states = [LinkState::Up, LinkState::Down].map(|state| {
        let names = (0..50).map(|number| format!("office-1/eth{number}"));
        names.map(|name| (name, state)).collect::<Vec<_>>()
    });
    let flap = |view: &mut View, state: usize| {
        let links = states[state]
            .iter()
            .map(|(name, state)| (name.as_str(), *state));
        fixtures::set_links(view, &links.collect::<Vec<_>>());
    };
    nodes.change_on(0, |view| flap(view, 0));
    let signon = format!(
        ">>>\nt=hbapi-req\nreqtype=signon\npid={0}\nfrom_id={0}\nuid=0\ngid=0\n<<<\n\0",
        std::process::id()
    );
    let mut frame = Vec::new();
    frame.extend_from_slice(&i32::try_from(signon.len()).unwrap().to_ne_bytes());
    frame.extend_from_slice(&0xabcd_u32.to_ne_bytes());
    frame.extend_from_slice(signon.as_bytes());
    let connect = |_: usize| {
        let mut stream = UnixStream::connect(nodes.socket(0)).unwrap();
        stream.write_all(&frame).unwrap();
        let mut reply = [0; 1024];
        assert!(stream.read(&mut reply).unwrap() > 8);
        // Two changes may reach the door as one that tells nothing.
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        stream
    };
    let mut clients: Vec<UnixStream> = (0..300).map(connect).collect();
    let stalled = clients.split_off(200);
    let mut bytes = vec![0; 65536];
    let mut changes = 0;
    while nodes.dropped.load(Ordering::Relaxed) < 100 {
        nodes.change_on(0, |view| flap(view, (changes + 1) % 2));
        changes += 1;
        for client in &mut clients {
            assert_ne!(client.read(&mut bytes).ok(), Some(0), "a reader is cut off");
        }
        assert!(changes < 20_000, "stalled clients are never cut off");
    }
    assert_eq!(nodes.dropped.load(Ordering::Relaxed), 100);
    drop(stalled);
}
