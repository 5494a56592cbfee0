//! The AMI hub in front of a real Asterisk: clients that others wrote, everything that a manager's user does by hand, action files,
//! transactions. One Asterisk for all, since it takes longer to start than they take.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pbx_tests::ami::client::{Client, action_text};
use pbx_tests::ami::{Door, HUB, SECRET, Stand, TLS, crash, others};
use pbx_tests::bare_hosts::BareHosts;
use pbx_tests::cluster::wait_until;
use pbx_tests::netns::run_in;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_hub_does_all_that_asterisks_manager_does() {
    let mut stand = Stand::start("amidoor").unwrap();
    calls_are_made_moved_recorded_and_ended(&stand);
    states_lists_and_commands_are_told(&stand);
    an_originate_that_waits_blocks_nobody(&stand);
    an_agi_uses_the_hub(&stand);
    action_files_are_done_in_order_and_answered(&stand);
    a_transaction_knows_its_channel(&stand);
    tls_and_the_unix_socket_lead_to_the_same_hub(&stand);
    bad_input_is_answered_and_costs_nobody_else(&stand);
    clients_of_others_work_unmodified(&stand);
    queued_actions_survive_a_kill(&mut stand);
}

#[test]
fn clients_of_the_hub_stay_and_reach_the_new_active() {
    let hosts = BareHosts::start("amihub", 3).unwrap();
    let first = hosts.wait_whole(PATIENCE).unwrap();
    let standby = (0..hosts.count()).find(|host| *host != first).unwrap();
    let door = Door {
        address: std::net::SocketAddrV4::new(hosts.host(standby).address, 5038),
        ..HUB
    };
    let connect = || {
        run_in(&hosts.host(standby).path(), || {
            Client::connect_with(door, "system")
        })
    };
    let mut client = connect().unwrap().unwrap();
    // It is the active's Asterisk that answers on the standby's hub.
    ok(
        &mut client,
        "DBPut",
        &[("Family", "hub"), ("Key", "node"), ("Val", "first")],
    );
    hosts.kill_asterisk(first).unwrap();
    client
        .wait_event(&["Event: PbxHaAsterisk", "Status: Lost"])
        .unwrap();
    let asked = client
        .ask("DBGet", &[("Family", "hub"), ("Key", "node")])
        .unwrap();
    assert!(asked.contains("Database entry not found"), "{asked}");
    let second = hosts.wait_whole(PATIENCE).unwrap();
    assert_ne!(first, second);
    ok(&mut client, "Ping", &[]);
}

fn client(stand: &Stand, events: &str) -> Client {
    let client = stand.run(|| Client::connect_with(HUB, events));
    client.unwrap().unwrap()
}

fn ok(client: &mut Client, action: &str, headers: &[(&str, &str)]) -> String {
    let answer = client.ask(action, headers).unwrap();
    assert!(
        answer.starts_with("Response: Success"),
        "{action} {headers:?}: {answer}"
    );
    answer
}

/// The second half of a local call to this extension, in its dialplan.
fn call(client: &mut Client, listener: &mut Client, extension: &str) -> String {
    let channel = format!("Local/{extension}@default/n");
    let headers = [
        ("Channel", channel.as_str()),
        ("Application", "Wait"),
        ("Data", "600"),
        ("Async", "true"),
    ];
    ok(client, "Originate", &headers);
    let marks = [
        format!("Channel: Local/{extension}@default-"),
        ";2\r\n".to_owned(),
    ];
    let parts = ["Event: Newstate", "ChannelState: 6", &marks[0], &marks[1]];
    let event = listener.wait_event(&parts).unwrap();
    let channel = event
        .lines()
        .find_map(|line| line.strip_prefix("Channel: "));
    channel.unwrap().to_owned()
}

fn is_in(client: &mut Client, channel: &str, exten: &str) -> bool {
    let status = ok(client, "Status", &[("Channel", channel)]);
    status.contains(&format!("Exten: {exten}\r\n"))
}

fn redirect(client: &mut Client, channel: &str, exten: &str) {
    let to = [
        ("Channel", channel),
        ("Context", "default"),
        ("Exten", exten),
        ("Priority", "1"),
    ];
    ok(client, "Redirect", &to);
}

fn calls_are_made_moved_recorded_and_ended(stand: &Stand) {
    let (mut client, mut listener) = (client(stand, "off"), client(stand, "call"));
    let caller = call(&mut client, &mut listener, "hold");
    let on = ("Channel", caller.as_str());
    // To any destination, into a conference, to music, and out to another channel.
    for exten in ["music", "away", "meet"] {
        redirect(&mut client, &caller, exten);
        wait_until(exten, PATIENCE, || Ok(is_in(&mut client, &caller, exten))).unwrap();
    }
    let listed = || ("Conference", "room");
    wait_until("the conference", PATIENCE, || {
        Ok(client.ask("ConfbridgeList", &[listed()])?.contains(&caller))
    })
    .unwrap();
    let second = call(&mut client, &mut listener, "meet");
    wait_until("two in the conference", PATIENCE, || {
        let list = client.ask("ConfbridgeList", &[listed()])?;
        Ok(list.contains(&caller) && list.contains(&second))
    })
    .unwrap();
    // One member alone is kicked; MeetMe is no part of Asterisk 22, ConfBridge has taken its place.
    ok(
        &mut client,
        "ConfbridgeKick",
        &[listed(), ("Channel", &second)],
    );
    wait_until("one in the conference", PATIENCE, || {
        let list = client.ask("ConfbridgeList", &[listed()])?;
        Ok(list.contains(&caller) && !list.contains(&second))
    })
    .unwrap();
    // A live call out to another channel, by way of the dialplan, and back.
    redirect(&mut client, &caller, "out");
    listener
        .wait_event(&["Event: DialEnd", "DestChannel: Local/away@default-"])
        .unwrap();
    redirect(&mut client, &caller, "hold");
    wait_until("back", PATIENCE, || Ok(is_in(&mut client, &caller, "hold"))).unwrap();
    let file = "/tmp/own-name.wav";
    ok(&mut client, "MixMonitor", &[on, ("File", file)]);
    let recording = stand.root().join(&file[1..]);
    wait_until("a recording", PATIENCE, || Ok(recording.exists())).unwrap();
    ok(&mut client, "StopMixMonitor", &[on]);
    ok(&mut client, "Hangup", &[on]);
    listener
        .wait_event(&["Event: Hangup", &format!("Channel: {caller}\r\n")])
        .unwrap();
}

fn states_lists_and_commands_are_told(stand: &Stand) {
    let mut client = client(stand, "off");
    let mailbox = ok(&mut client, "MailboxStatus", &[("Mailbox", "100@default")]);
    assert!(mailbox.contains("Waiting: 0"), "{mailbox}");
    let count = ok(&mut client, "MailboxCount", &[("Mailbox", "100@default")]);
    assert!(count.contains("NewMessages: 0"), "{count}");
    let extension = ok(
        &mut client,
        "ExtensionState",
        &[("Context", "default"), ("Exten", "100")],
    );
    assert!(extension.contains("Hint: Custom:lamp"), "{extension}");
    let queue = ok(&mut client, "QueueStatus", &[("Queue", "support")]);
    assert!(queue.contains("Event: QueueMember"), "{queue}");
    let peers = ok(&mut client, "IAXpeerlist", &[]);
    assert!(peers.contains("ObjectName: branch"), "{peers}");
    let command = ok(&mut client, "Command", &[("Command", "core show channels")]);
    assert!(command.contains("active channels"), "{command}");
    let (calls, hold) = (
        100,
        [
            ("Channel", "Local/hold@default"),
            ("Application", "Wait"),
            ("Data", "600"),
            ("Async", "true"),
        ],
    );
    for _ in 0..calls {
        ok(&mut client, "Originate", &hold);
    }
    wait_until("a hundred calls", PATIENCE, || {
        let status = client.ask("Status", &[])?;
        Ok(status.matches("Event: Status\r\n").count() >= 2 * calls
            && status.lines().count() > 2000)
    })
    .unwrap();
    ok(&mut client, "Hangup", &[("Channel", "/^Local/")]);
}

fn an_originate_that_waits_blocks_nobody(stand: &Stand) {
    let (mut waiting, mut other) = (client(stand, "off"), client(stand, "off"));
    let slow = action_text(
        "Originate",
        &[
            ("Channel", "Local/ring@default"),
            ("Application", "Wait"),
            ("Data", "1"),
            ("Timeout", "3000"),
        ],
    );
    waiting.write(slow.as_bytes()).unwrap();
    let started_at = Instant::now();
    for _ in 0..10 {
        ok(&mut other, "Ping", &[]);
        ok(&mut waiting_peer(stand), "Ping", &[]);
    }
    assert!(
        started_at.elapsed() < Duration::from_secs(2),
        "{:?}",
        started_at.elapsed()
    );
    let answer = waiting.message().unwrap();
    assert_eq!(
        answer,
        "Response: Error\r\nActionID: own\r\nMessage: Originate failed\r\n\r\n"
    );
}

fn waiting_peer(stand: &Stand) -> Client {
    client(stand, "off")
}

fn an_agi_uses_the_hub(stand: &Stand) {
    let (mut client, mut listener) = (client(stand, "off"), client(stand, "user"));
    let headers = [
        ("Channel", "Local/agi@default"),
        ("Application", "Wait"),
        ("Data", "600"),
        ("Async", "true"),
    ];
    ok(&mut client, "Originate", &headers);
    let event = listener.wait_event(&["UserEvent: FromAgi"]).unwrap();
    let channel = event
        .lines()
        .find_map(|line| line.strip_prefix("Channel: "))
        .unwrap();
    wait_until("the AGI's variable", PATIENCE, || {
        let answer = client.ask(
            "Getvar",
            &[("Channel", channel), ("Variable", "HUB_ANSWERED")],
        )?;
        Ok(answer.contains("Value: yes"))
    })
    .unwrap();
}

fn action_files_are_done_in_order_and_answered(stand: &Stand) {
    let move_in = |name: &str, text: &str| {
        let half = stand.spool().join(format!("{name}.half"));
        fs::write(&half, text).unwrap();
        fs::rename(half, stand.spool().join(name)).unwrap();
    };
    move_in(
        "sample.action",
        "Action: Originate\nChannel: Local/hold@default\nApplication: Wait\nData: 1\n\nAction: DBPut\nFamily: f\nKey: k\nVal: v\n\nAction: DBGet\nFamily: f\nKey: k\n",
    );
    move_in("bad.action", "Action: Ping\nno header\n");
    let out = |name: &str| fs::read_to_string(stand.spool().join(name));
    wait_until("the answers", PATIENCE, || {
        Ok(out("sampleaction.out").is_ok() && out("badaction.out").is_ok())
    })
    .unwrap();
    let answer = out("sampleaction.out").unwrap();
    let at = |part: &str| {
        answer
            .find(part)
            .unwrap_or_else(|| panic!("no {part} in {answer}"))
    };
    assert!(
        at("Event: OriginateResponse") < at("Updated database")
            && at("Updated database") < at("Val: v")
    );
    assert!(
        out("badaction.out")
            .unwrap()
            .contains("Line 2 is no header")
    );
    assert!(
        !stand.spool().join("sample.action").exists() && !stand.spool().join("bad.action").exists()
    );
}

fn a_transaction_knows_its_channel(stand: &Stand) {
    let body = r#"{"action": "Originate", "headers": {"Channel": "Local/hold@default", "Application": "Wait", "Data": 1}}"#;
    let record = crash::transact(stand, body).unwrap();
    assert_eq!(record["state"], "done", "{record}");
    assert!(
        record["channel"]
            .as_str()
            .unwrap()
            .starts_with("Local/hold@default-")
    );
    assert!(!record["uniqueid"].as_str().unwrap().is_empty());
    let failed = crash::transact(
        stand,
        r#"{"action": "Hangup", "headers": {"Channel": "none"}}"#,
    )
    .unwrap();
    assert_eq!(
        (failed["state"].as_str(), failed["error"].as_str()),
        (Some("failed"), Some("No such channel"))
    );
}

fn tls_and_the_unix_socket_lead_to_the_same_hub(stand: &Stand) {
    let dialogue = format!(
        "Action: Login\r\nUsername: {}\r\nSecret: {SECRET}\r\nEvents: off\r\n\r\nAction: Ping\r\n\r\n",
        HUB.user
    );
    let mut tls = stand.command("openssl");
    tls.args(["s_client", "-quiet", "-connect", &TLS.to_string()]);
    tls.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut tls = tls.spawn().unwrap();
    tls.stdin
        .as_mut()
        .unwrap()
        .write_all(dialogue.as_bytes())
        .unwrap();
    read_pong(tls.stdout.take().unwrap());
    tls.kill().unwrap();
    tls.wait().unwrap();
    let mut socket = UnixStream::connect(stand.socket()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(dialogue.as_bytes()).unwrap();
    read_pong(socket);
}

/// Fails at the end of the stream.
fn read_pong(stream: impl Read) {
    let lines = BufReader::new(stream).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "Ping: Pong"));
}

fn bad_input_is_answered_and_costs_nobody_else(stand: &Stand) {
    let mut client = client(stand, "off");
    let long = "x".repeat(1_000_000);
    for (headers, why) in [
        (format!("X: {long}"), "longer than 1000 bytes"),
        (["A: b"; 128].join("\r\n"), "more than 127 headers"),
        (
            "Command: core show uptime\rAction: Logoff".to_owned(),
            "carriage return",
        ),
    ] {
        client
            .write(format!("Action: Ping\r\nActionID: own\r\n{headers}\r\n\r\n").as_bytes())
            .unwrap();
        let answer = client.message().unwrap();
        assert!(
            answer.starts_with("Response: Error\r\nActionID: own\r\n") && answer.contains(why),
            "{answer}"
        );
        ok(&mut client, "Ping", &[]);
    }
}

fn clients_of_others_work_unmodified(stand: &Stand) {
    let said = others::run(stand).unwrap();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|line| line.ends_with(": ok\n")), "{said:?}");
}

fn queued_actions_survive_a_kill(stand: &mut Stand) {
    let seen = crash::measure(stand, 200, 3).unwrap();
    assert_eq!((seen.wrong, seen.failed), (0, 0), "{seen:?}");
    assert!(seen.done > 0 && seen.unknown > 0, "{seen:?}");
}
