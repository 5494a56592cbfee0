//! Three bare hosts with floating addresses: what a client of the address sees of each fault, and that never two nodes answer.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::time::Duration;

use pbx_crds::cluster::FailoverSpec;
use pbx_tests::bare_hosts::{VIP, check_file};
use pbx_tests::cluster::freeze::Freezer;
use pbx_tests::cluster::wait_until;
use pbx_tests::failover::ours::Ours;
use pbx_tests::failover::{Contender, Fault, Run, clients, measure};
use pbx_tests::images::Profile;
use pbx_tests::netns::HOST_LINK;
use pbx_tests::packages;
use pbx_tests::progress::output_of;

const PATIENCE: Duration = Duration::from_secs(30);
/// A busy machine adds to what the benchmark measures alone.
const KILL_MS: f64 = 300.0;
/// A node that hears nobody goes on being heard until it gives its bid up: the others' votes last one deadtime more.
const DEAF_MS: f64 = 2.0 * DETECTED_MS;
const LONG: Duration = Duration::from_secs(3);
const DETECTED_MS: f64 = 1200.0;

fn start(name: &str) -> Ours {
    Ours::start(name, FailoverSpec::default(), Profile::Local).unwrap()
}

fn suffer(ours: &mut Ours, fault: Fault) -> Run {
    let run = measure(ours, fault).unwrap();
    println!("{fault:?}: {run:?}");
    assert_eq!(run.by_two, 0, "two nodes answered under {fault:?}: {run:?}");
    run
}

#[test]
fn the_address_moves_when_its_node_fails_and_two_never_answer() {
    let mut ours = start("flMove");
    let kill = suffer(&mut ours, Fault::Kill);
    assert!(kill.has_moved && kill.gap_ms < KILL_MS, "{kill:?}");
    let crash = suffer(&mut ours, Fault::Crash);
    assert!(crash.has_moved && crash.gap_ms < DETECTED_MS, "{crash:?}");
    let partition = suffer(&mut ours, Fault::Partition);
    assert!(
        partition.has_moved && partition.gap_ms < DETECTED_MS,
        "{partition:?}"
    );
    let deaf = suffer(&mut ours, Fault::Deaf);
    assert!(deaf.has_moved && deaf.gap_ms < DEAF_MS, "{deaf:?}");
    let mute = suffer(&mut ours, Fault::Mute);
    assert!(mute.has_moved && mute.gap_ms < DETECTED_MS, "{mute:?}");
}

#[test]
fn a_node_that_stood_still_answers_nothing_once_its_authority_is_over() {
    let mut ours = start("flPause");
    let short = suffer(
        &mut ours,
        Fault::Pause(Freezer::Unified, Duration::from_millis(200)),
    );
    assert!(!short.has_moved, "{short:?}");
    for fault in [
        Fault::Pause(Freezer::Unified, LONG),
        Fault::Pause(Freezer::Old, LONG),
        Fault::Stop(LONG),
    ] {
        let long = suffer(&mut ours, fault);
        assert!(long.has_moved && long.gap_ms < DETECTED_MS, "{long:?}");
    }
}

#[test]
fn an_emptied_rule_set_is_mended_and_another_holder_of_the_address_is_told() {
    let mut ours = start("flOther");
    ours.wait_whole().unwrap();
    let hosts = ours.hosts();
    let active = hosts.actives()[0];
    output_of(hosts.host(active).command("nft").args(["flush", "ruleset"])).unwrap();
    wait_until("the rules to be back", Duration::from_secs(1), || {
        let rules = output_of(hosts.host(active).command("nft").args(["list", "ruleset"]))?;
        Ok(rules.contains(&format!("ip daddr {VIP} jump gate")))
    })
    .unwrap();
    // Whoever is asked for the address says so: the next announcement would find him, his own one is found at once.
    let (client, _) = clients(ours.lan());
    let floating = format!("{VIP}/32");
    output_of(
        client
            .command("ip")
            .args(["addr", "add", &floating, "dev", HOST_LINK]),
    )
    .unwrap();
    let asked = ours.lan().hosts()[active].address.to_string();
    packages::ensure(&[packages::ARPING]).unwrap();
    let mut arping = client.command("arping");
    arping.args([
        "-c",
        "1",
        "-w",
        "1",
        "-s",
        &VIP.to_string(),
        "-I",
        HOST_LINK,
        &asked,
    ]);
    output_of(&mut arping).ok();
    wait_until(
        "the other holder to be told",
        Duration::from_secs(2),
        || {
            let problem = hosts.report(active)?.problem;
            Ok(problem.is_some_and(|problem| problem.reason == "AddressConflict"))
        },
    )
    .unwrap();
}

#[test]
fn a_link_that_is_gone_makes_a_node_unready_and_the_role_is_given_up() {
    let mut ours = start("flLink");
    ours.wait_whole().unwrap();
    let hosts = ours.hosts();
    let standby = (0..hosts.count())
        .find(|index| !hosts.actives().contains(index))
        .unwrap();
    let own = format!("{}/24", hosts.host(standby).address);
    // Another address, so that heartbeats go on and the floating one is on no network of the host.
    output_of(hosts.host(standby).command("ip").args([
        "addr",
        "add",
        &own.replace("/24", "/32"),
        "dev",
        HOST_LINK,
    ]))
    .unwrap();
    output_of(hosts.host(standby).command("ip").args([
        "route",
        "replace",
        "198.18.65.0/24",
        "dev",
        HOST_LINK,
    ]))
    .unwrap();
    output_of(
        hosts
            .host(standby)
            .command("ip")
            .args(["addr", "del", &own, "dev", HOST_LINK]),
    )
    .unwrap();
    wait_until("the node to say why it cannot serve", PATIENCE, || {
        let report = hosts.report(standby)?;
        let reason = report.problem.map(|problem| problem.reason);
        Ok(!report.ready && reason.as_deref() == Some("AddressNotOnLink"))
    })
    .unwrap();
}

#[test]
fn broken_addresses_are_refused_with_every_problem_and_exit_code_2() {
    let (code, said) = check_file(
        "cluster: office\nnode: a\nnodes: [{name: a, address: '192.0.2.1:1'}, {name: b, address: '192.0.2.2:1'}, {name: c, address: '192.0.2.3:1'}]\n\
         heartbeat: {keyFile: /nonexistent}\nasterisk: {userDirs: []}\n\
         network: {vip: [{address: 192.0.2.1/24, interface: eth0}, {address: 192.0.2.50, interface: lo}]}\n",
    )
    .unwrap();
    assert_eq!(code, 2, "{said}");
    for path in [
        "network.vip[0].address: 192.0.2.1 is where heartbeats go",
        "network.vip[1].address",
        "network.vip[1].interface",
        "heartbeat.keyFile",
    ] {
        assert!(said.contains(path), "{path} is not in: {said}");
    }
}
