//! Heartbeat's client interface and HAAst's socket on three hosts with a real Asterisk each: unmodified clients, through a
//! switchover and the death of a host.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pbx_crds::cluster::FailoverSpec;
use pbx_tests::bare_hosts::{BareHosts, BareSettings};
use pbx_tests::cluster::wait_until;
use pbx_tests::linux_ha::{self, API_TEST, Client, answer_of, ask_haast, compiled, with_socket};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn clients_of_heartbeat_and_haast_see_a_switchover_and_a_death() {
    linux_ha::ensure().unwrap();
    let failover = "{keepalive: 50ms, warntime: 150ms, deadtime: 300ms}";
    let failover: FailoverSpec = serde_yaml::from_str(failover).unwrap();
    let mut hosts = BareHosts::start_with(BareSettings {
        failover,
        ..BareSettings::plain("linuxha", 3)
    })
    .unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let standby = (active + 1) % 3;
    cl_status_tells_the_roles(&hosts, active, standby);
    haast_tells_both_sides(&hosts, active, standby);

    let mut clients: Vec<Client> = (0..3).map(|host| client(&hosts, host, "phones")).collect();
    messages_reach_every_host(&mut clients);

    // Asked of the standby that becomes active.
    let answer = ask_haast(&hosts.haast_socket(standby), &["promote"]).unwrap();
    assert_eq!(answer["result"], "ok", "{answer}");
    wait_until("the switchover", Duration::from_secs(5), || {
        Ok(hosts.actives() == [standby])
    })
    .unwrap();
    hosts.wait_whole(PATIENCE).unwrap();
    cl_status_tells_the_roles(&hosts, standby, active);
    let shown = status(&hosts, standby);
    assert_eq!(
        shown["local previous fail over cause formatted"],
        "Switchover requested"
    );
    assert_eq!(shown["local previous haast state formatted"], "Standby");

    let watching = active;
    let api_test = start_api_test(&hosts, watching);
    let died_at = Instant::now();
    hosts.crash(standby).unwrap();
    let dead = format!("node pbx-{standby} dead");
    let (seen_at, _) = clients[watching].expect_at(&dead).unwrap();
    let took = seen_at.duration_since(died_at);
    println!("a death was told after {took:?}, deadtime 300 ms");
    assert!(
        (250..1000).contains(&took.as_millis()),
        "told after {took:?}"
    );
    let status_of_dead = ["nodestatus", &format!("pbx-{standby}")];
    assert_eq!(
        cl_status(&hosts, watching, &status_of_dead),
        (1, "dead".into())
    );
    hosts.boot(standby).unwrap();
    let back = format!("node pbx-{standby} active");
    clients[watching].expect(&back).unwrap();
    api_test_was_told(api_test, standby);
}

/// Debian's own test program; it never ends by itself.
fn start_api_test(hosts: &BareHosts, index: usize) -> Child {
    let mut command = hosts.host(index).command("unshare");
    with_socket(&mut command, &hosts.heartbeat_folder(index), &[API_TEST]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // It walks through everything once; the lines of that are read with the others.
    let waiting = said_by(&mut child, "Waiting for messages");
    assert!(
        waiting.contains("Current resource status: none"),
        "{waiting}"
    );
    child
}

fn api_test_was_told(mut api_test: Child, dead: usize) {
    for state in ["dead", "active"] {
        let told = format!("Status update: Node pbx-{dead} now has status {state}");
        let said = said_by(&mut api_test, &told);
        assert!(!said.contains("ERROR"), "{said}");
    }
    // `timeout` passes it on.
    kill_process(Pid::from_child(&api_test), Signal::TERM).unwrap();
    api_test.wait().unwrap();
}

/// What a program says on its standard error up to `end`; its lifetime bounds the wait.
fn said_by(child: &mut Child, end: &str) -> String {
    let output = child.stderr.as_mut().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(end.as_bytes()) {
        let read = output.read(&mut byte).unwrap();
        assert!(read > 0, "no {end:?} in {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

fn cl_status(hosts: &BareHosts, index: usize, arguments: &[&str]) -> (i32, String) {
    let mut command = hosts.host(index).command("unshare");
    let client = [&["cl_status"], arguments].concat();
    with_socket(&mut command, &hosts.heartbeat_folder(index), &client);
    answer_of(&mut command).unwrap()
}

fn client(hosts: &BareHosts, index: usize, name: &str) -> Client {
    let mut command = hosts.host(index).command("unshare");
    let program = compiled().unwrap();
    let client = [program.to_str().unwrap(), name];
    with_socket(&mut command, &hosts.heartbeat_folder(index), &client);
    Client::start(&mut command).unwrap()
}

fn cl_status_tells_the_roles(hosts: &BareHosts, active: usize, standby: usize) {
    for index in 0..3 {
        let name = format!("pbx-{index}");
        let status = cl_status(hosts, standby, &["nodestatus", &name]);
        assert_eq!(status, (0, "active".into()), "{name} lives");
    }
    assert_eq!(cl_status(hosts, active, &["rscstatus"]), (0, "all".into()));
    assert_eq!(
        cl_status(hosts, standby, &["rscstatus"]),
        (0, "none".into())
    );
    let parameter = cl_status(hosts, active, &["hbparameter", "-p", "deadtime"]);
    assert_eq!(parameter, (0, "300ms".into()));
}

fn status(hosts: &BareHosts, index: usize) -> Value {
    let answer = ask_haast(&hosts.haast_socket(index), &[]).unwrap();
    assert_eq!(answer["result"], "ok", "{answer}");
    answer["values"].clone()
}

fn haast_tells_both_sides(hosts: &BareHosts, active: usize, standby: usize) {
    // A peer's own report comes over a stream that may still be opening.
    wait_until("remote data", Duration::from_secs(10), || {
        Ok(status(hosts, standby)["remote data available"] == "1")
    })
    .unwrap();
    let shown = status(hosts, standby);
    assert_eq!(shown.as_object().unwrap().len(), 51);
    for (key, value) in [
        ("local haast state formatted", "Standby"),
        ("local asterisk state formatted", "Started"),
        ("remote haast state formatted", "Active"),
        ("remote asterisk connection state formatted", "Logged in"),
        ("local to remote peerlink connection state formatted", "Up"),
        ("remote to local peerlink connection state formatted", "Up"),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    assert_eq!(shown["remote peer name"], format!("pbx-{active}"));
}

fn messages_reach_every_host(clients: &mut [Client]) {
    for number in 0..20 {
        clients[0].tell(&format!("cluster {number}")).unwrap();
    }
    clients[2].tell("node pbx-1 only for you").unwrap();
    for client in &mut *clients {
        for number in 0..20 {
            let text = format!("text pbx-0 phones: {number}");
            client.expect(&text).unwrap();
        }
    }
    clients[1].tell("client pbx-2 phones").unwrap();
    assert_eq!(clients[1].expect("there").unwrap(), "there online");
    let only = "text pbx-2 phones: only for you";
    if !clients[1].seen().iter().any(|line| line == only) {
        clients[1].expect(only).unwrap();
    }
}
