//! SysAdm's events, Droonga's system.status, HTTP's events and actions, on three hosts with a real Asterisk each: unmodified
//! clients from `PyPI` and npm, through a switchover and a failover.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pbx_tests::bare_hosts::{BareHosts, TOKEN};
use pbx_tests::clients::{node, python, said};
use pbx_tests::cluster::wait_until;
use pbx_tests::doors::crowd::effects::failover_ms;
use pbx_tests::progress::output_of;
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn unmodified_clients_see_a_switchover_and_a_failover() {
    let hosts = BareHosts::start("doors", 3).unwrap();
    let first = hosts.wait_whole(PATIENCE).unwrap();
    let watcher = hosts_other_than(&hosts, first)[0];
    let sysadm = start_sysadm(&hosts, watcher, "sysadm", 40);
    let events = start_events(&hosts, watcher);
    reports_of_peers_are_known(&hosts, watcher);

    refused_without_the_token(&hosts, first);
    // Asked of a standby: it is done by the active.
    let (status, begun) = post(&hosts, watcher, "switchover", Some(TOKEN), "");
    assert_eq!(status, 202, "{begun}");
    wait_until("another active", Duration::from_secs(5), || {
        let actives = hosts.actives();
        Ok(actives.len() == 1 && actives[0] != first)
    })
    .unwrap();
    let second = hosts.wait_whole(PATIENCE).unwrap();
    droonga_tells(&hosts, second);

    let survivor = hosts_other_than(&hosts, second)[0];
    hosts.kill_asterisk(second).unwrap();
    wait_until("a third active", Duration::from_secs(3), || {
        Ok(hosts.actives().iter().any(|index| *index != second))
    })
    .unwrap();
    let third = hosts.wait_whole(PATIENCE).unwrap();
    droonga_tells(&hosts, third);
    fluentd_loggers_are_answered(&hosts, survivor);
    sysadm_was_told(&lines_of(sysadm));
    events_were_told(events, third);
    a_bridge_reaches_the_others(&hosts, watcher, survivor);
    a_fenced_host_is_kept_out(&hosts, third);
}

#[test]
fn a_crowd_that_never_reads_slows_no_failover_and_costs_little() {
    const CROWD: u32 = 100;
    let hosts = BareHosts::start("crowd", 3).unwrap();
    let quiet_ms = failover_ms(&hosts).unwrap();
    hosts.wait_whole(PATIENCE).unwrap();
    let memory_kib = |index: usize| hosts.sidecar(index).unwrap().memory_kib("VmRSS").unwrap();
    let before: Vec<f64> = (0..hosts.count()).map(memory_kib).collect();
    let crowds: Vec<Child> = (0..hosts.count())
        .map(|index| start_crowd(&hosts, index, CROWD))
        .collect();
    let crowded_ms = failover_ms(&hosts).unwrap();
    println!("failover in {quiet_ms:.1} ms without a crowd, {crowded_ms:.1} ms with one");
    assert!(crowded_ms < 800.0, "as long as silence takes");
    let third = hosts.wait_whole(PATIENCE).unwrap();
    for (index, before) in before.into_iter().enumerate() {
        let grown = memory_kib(index) - before;
        println!("{grown} KiB for {CROWD} stalled websockets and as many half requests");
        assert!(
            grown < f64::from(2 * CROWD * 64),
            "64 KiB for each stalled client"
        );
    }
    for mut crowd in crowds {
        drop(crowd.stdin.take());
        assert!(crowd.wait().unwrap().success());
    }
    assert_eq!(hosts.actives(), [third]);
}

fn start_crowd(hosts: &BareHosts, index: usize, count: u32) -> Child {
    let [interpreter, script] = python("crowd.py").unwrap();
    let address = hosts.host(index).address.to_string();
    let mut client = hosts.host(index).command(&interpreter.to_string_lossy());
    client
        .arg(script)
        .args([&address, "8081", TOKEN, &count.to_string()]);
    let mut crowd = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let output = crowd.stdout.as_mut().unwrap();
    BufReader::new(output).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    crowd
}

/// The active hands over, and takes nothing over until it is unfenced, whatever becomes of its sidecar.
fn a_fenced_host_is_kept_out(hosts: &BareHosts, fenced: usize) {
    hosts.wait_whole(PATIENCE).unwrap();
    let (status, begun) = post(hosts, fenced, "fence", Some(TOKEN), "");
    assert_eq!(status, 202, "{begun}");
    let is_out = || {
        let report = hosts.report(fenced)?;
        let reason = report.problem.map(|problem| problem.reason);
        Ok(!report.ready && reason.as_deref() == Some("Fenced"))
    };
    wait_until("the fenced host to be out", PATIENCE, is_out).unwrap();
    hosts.sidecar(fenced).unwrap().signal(Signal::KILL).unwrap();
    let is_back = || Ok(hosts.report(fenced).is_ok());
    wait_until("its sidecar", PATIENCE, is_back).unwrap();
    wait_until("the fenced host to be out", PATIENCE, is_out).unwrap();
    let (status, refused) = post(hosts, fenced, "start", Some(TOKEN), "");
    assert_eq!(status, 409, "{refused}");

    let active = hosts.actives()[0];
    hosts.kill_asterisk(active).unwrap();
    let heir = hosts_other_than(hosts, fenced).into_iter();
    let heir: Vec<usize> = heir.filter(|index| *index != active).collect();
    wait_until("the other one", PATIENCE, || Ok(hosts.actives() == heir)).unwrap();
    let (status, begun) = post(hosts, fenced, "unfence", Some(TOKEN), "");
    assert_eq!(status, 202, "{begun}");
    hosts.wait_whole(PATIENCE).unwrap();
    assert_eq!(hosts.actives(), heir);
}

fn hosts_other_than(hosts: &BareHosts, index: usize) -> Vec<usize> {
    (0..hosts.count()).filter(|other| *other != index).collect()
}

fn reports_of_peers_are_known(hosts: &BareHosts, index: usize) {
    wait_until("reports of all peers", Duration::from_secs(5), || {
        let cluster = cluster_event(hosts, index);
        let nodes = cluster["nodes"].as_array().unwrap();
        Ok(nodes.len() == 3 && nodes.iter().all(|node| node["ready"] == true))
    })
    .unwrap();
}

/// The first event of the stream: the cluster as the host knows it.
fn cluster_event(hosts: &BareHosts, index: usize) -> Value {
    let mut curl = hosts.host(index).command("curl");
    curl.args(["-sN", "--max-time", "0.5", &url(hosts, index, "/v1/events")]);
    let text = String::from_utf8(curl.output().unwrap().stdout).unwrap();
    data_of(&text, "cluster").first().cloned().unwrap()
}

fn data_of(stream: &str, name: &str) -> Vec<Value> {
    let blocks = stream.split("\n\n");
    let named = blocks.filter(|block| block.starts_with(&format!("event: {name}\n")));
    let data = named.filter_map(|block| block.split_once("data: "));
    data.filter_map(|(_, json)| serde_json::from_str(json).ok())
        .collect()
}

fn url(hosts: &BareHosts, index: usize, path: &str) -> String {
    format!("http://{}:8081{path}", hosts.host(index).address)
}

fn post(
    hosts: &BareHosts,
    index: usize,
    action: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, Value) {
    let mut curl = hosts.host(index).command("curl");
    curl.args(["-s", "-X", "POST", "-w", "\n%{http_code}", "-d", body]);
    if let Some(token) = token {
        curl.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    curl.arg(url(hosts, index, &format!("/v1/actions/{action}")));
    let text = output_of(&mut curl).unwrap();
    let (body, status) = text.trim().rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn refused_without_the_token(hosts: &BareHosts, active: usize) {
    let epoch = hosts.report(active).unwrap().epoch;
    for (token, action, body, expected) in [
        (None, "demote", "", (401, "Unauthorized")),
        (Some("wrong"), "demote", "", (401, "Unauthorized")),
        (Some(TOKEN), "explode", "", (404, "NoSuchAction")),
        (Some(TOKEN), "switchover", "{", (400, "BadBody")),
        (
            Some(TOKEN),
            "demote",
            "{\"to\": \"pbx-0\"}",
            (400, "BadBody"),
        ),
        (
            Some(TOKEN),
            "switchover",
            "{\"to\": \"nobody\"}",
            (404, "NoSuchNode"),
        ),
        (Some(TOKEN), "promote", "", (409, "NotPossible")),
    ] {
        let (status, problem) = post(hosts, active, action, token, body);
        assert_eq!((status, problem["reason"].as_str().unwrap()), expected);
    }
    assert_eq!(hosts.report(active).unwrap().epoch, epoch, "nothing moved");
}

fn start_sysadm(hosts: &BareHosts, index: usize, path: &str, seconds: u32) -> Child {
    let [interpreter, script] = python("sysadm.py").unwrap();
    let url = format!("ws://{}:8081/{path}", hosts.host(index).address);
    let mut client = hosts.host(index).command(&interpreter.to_string_lossy());
    client.arg(script).args([&url, TOKEN, &seconds.to_string()]);
    client.stdout(Stdio::piped()).spawn().unwrap()
}

fn start_events(hosts: &BareHosts, index: usize) -> Child {
    let mut curl = hosts.host(index).command("curl");
    curl.args(["-sN", &url(hosts, index, "/v1/events")]);
    curl.stdout(Stdio::piped()).spawn().unwrap()
}

fn lines_of(client: Child) -> Vec<Value> {
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "the client failed");
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn sysadm_was_told(texts: &[Value]) {
    let error = |text: &Value| text["args"]["code"].as_u64();
    assert_eq!(
        (error(&texts[0]), &texts[0]["id"]),
        (Some(401), &json!("before"))
    );
    assert_eq!(error(&texts[1]), Some(400));
    assert_eq!(
        (&texts[2]["name"], &texts[2]["id"]),
        (&json!("response"), &json!("auth"))
    );
    assert_eq!(texts[3]["id"], "sampleID");
    assert_eq!(texts.last().unwrap()["id"], "last");
    let events = &texts[4..texts.len() - 1];
    let of = |name: &str| -> Vec<&Value> {
        let named = events.iter().filter(|event| event["name"] == name);
        named.map(|event| &event["args"]).collect()
    };
    assert!(events.iter().all(|event| event["id"] == "none"));
    assert!(!of("life_preserver").is_empty(), "the last event at once");
    let state = of("system_state");
    let pools = state[0]["zpools"].as_object().unwrap();
    assert!(
        pools
            .values()
            .all(|pool| pool.as_object().unwrap().len() == 10)
    );
    let dispatched: Vec<_> = of("dispatcher");
    let plain = dispatched
        .iter()
        .filter(|args| args["event_system"].is_null());
    let plain: Vec<_> = plain.collect();
    let states: Vec<_> = plain
        .iter()
        .map(|args| args["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["pending", "running", "finished"]);
    assert_eq!(plain[2]["return_codes/switchover"], "0", "{}", plain[2]);
    let class = dispatched
        .iter()
        .find(|args| args["event_system"] == "pbxha/switchover");
    assert_eq!(
        class.unwrap()["process_details"]["cmd_list"],
        json!(["switchover"])
    );
}

fn events_were_told(mut events: Child, active: usize) {
    events.kill().unwrap();
    let output = events.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let clusters = data_of(&text, "cluster");
    assert_eq!(clusters.last().unwrap()["active"], format!("pbx-{active}"));
    assert!(data_of(&text, "job").len() >= 3, "{text}");
}

/// Every host tells the same of who is in service.
fn droonga_tells(hosts: &BareHosts, active: usize) {
    for index in 0..hosts.count() {
        let mut curl = hosts.host(index).command("curl");
        curl.args(["-s", &url(hosts, index, "/droonga/system/status")]);
        let body: Value = serde_json::from_str(&output_of(&mut curl).unwrap()).unwrap();
        check_status(hosts, &body, index, active);
    }
}

fn check_status(hosts: &BareHosts, body: &Value, reporter: usize, active: usize) {
    let identifier = |index: usize| format!("{}:10031/droonga", hosts.host(index).address);
    for index in 0..hosts.count() {
        let expected = if index == active {
            "active"
        } else {
            "inactive"
        };
        assert_eq!(
            body["nodes"][identifier(index)]["status"],
            expected,
            "{body}"
        );
    }
    let told = body["reporter"].as_str().unwrap();
    assert!(
        told.ends_with(&format!(" @ {}", identifier(reporter))),
        "{told}"
    );
}

fn fluentd_loggers_are_answered(hosts: &BareHosts, index: usize) {
    let active = hosts.actives()[0];
    let address = hosts.host(index).address.to_string();
    let [interpreter, script] = python("ask_droonga.py").unwrap();
    let mut client = hosts.host(index).command(&interpreter.to_string_lossy());
    let lines = said(client.arg(script).args([&address, "10031", &address])).unwrap();
    let told: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(told["tag"], "client.message");
    assert_eq!(told["record"]["type"], "system.status.result");
    assert_eq!(told["record"]["inReplyTo"], "request-1");
    check_status(hosts, &told["record"]["body"], index, active);

    let [script, packages] = node("ask_droonga.js").unwrap();
    let mut client = hosts.host(index).command("node");
    client.env("NODE_PATH", packages).arg(script);
    let lines = said(client.args([&address, "10031", &address])).unwrap();
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(last["seen"], json!(["Message", "Forward", "PackedForward"]));
}

fn a_bridge_reaches_the_others(hosts: &BareHosts, bridge: usize, far: usize) {
    let [interpreter, script] = python("bridge.py").unwrap();
    let url = format!("ws://{}:8081/sysadm/bridge", hosts.host(bridge).address);
    let name = format!("pbx-{far}");
    let mut client: Command = hosts.host(bridge).command(&interpreter.to_string_lossy());
    let lines = said(client.arg(script).args([&*url, TOKEN, &*name, "2"])).unwrap();
    let connections: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(connections["id"], "");
    let known = &connections["args"]["available_connections"];
    assert_eq!(known, &json!(["pbx-0", "pbx-1", "pbx-2"]));
    let relayed: Vec<&String> = lines[1..].iter().collect();
    let prefix = format!("{name}|");
    assert!(
        relayed.iter().all(|line| line.starts_with(&prefix)),
        "{lines:?}"
    );
    assert!(
        relayed.iter().any(|line| line.contains("\"system_state\"")),
        "{lines:?}"
    );
}
