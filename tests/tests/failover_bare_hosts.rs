//! Three hosts without Kubernetes, each with a real Asterisk: the same sidecar, from a YAML file, fails over in the same way.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pbx_crds::cluster::{FailoverSpec, OnQuorumLoss};
use pbx_crds::report::{LINK_TOO_SLOW, WITHOUT_QUORUM};
use pbx_crds::status::LinkState;
use pbx_tests::bare_hosts::{BareHosts, BareSettings, check_file, replay};
use pbx_tests::cluster::wait_until;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn three_hosts_fail_over_when_asterisk_dies_and_when_a_cable_is_pulled() {
    let hosts = BareHosts::start("bare", 3).unwrap();
    let first = hosts.wait_whole(PATIENCE).unwrap();
    hosts.kill_asterisk(first).unwrap();
    wait_until("another active", Duration::from_secs(2), || {
        let actives = hosts.actives();
        Ok(actives.len() == 1 && actives[0] != first)
    })
    .unwrap();
    let second = hosts.wait_whole(PATIENCE).unwrap();
    assert_ne!(second, first);

    let old = hosts.asterisk(second).unwrap();
    hosts.host(second).cut().unwrap();
    wait_until("a third active", Duration::from_secs(3), || {
        Ok(hosts.actives().iter().any(|index| *index != second))
    })
    .unwrap();
    // Who is alone has lost its quorum, and its Asterisk with it, before another may serve.
    let present = hosts.asterisk(second).map(|process| process.pid).ok();
    assert_ne!(present, Some(old.pid));
    assert!(!hosts.actives().contains(&second));

    hosts.host(second).heal().unwrap();
    let third = hosts.wait_whole(PATIENCE).unwrap();
    assert_ne!(third, second);
    // What the lonely host alone knew is told after its return.
    wait_until("exact counts on every host", Duration::from_secs(5), || {
        Ok((0..hosts.count()).all(|index| {
            hosts.report(index).is_ok_and(|report| {
                let counts = report.ledger.cluster_counts();
                (counts.failovers, counts.switchovers) == (2, 0)
            })
        }))
    })
    .unwrap();
}

/// The file of a change of roles: right behind another one it is written with its aftermath only, three seconds later.
fn flight(hosts: &BareHosts, index: usize, ending: &str) -> PathBuf {
    let find = || {
        let mut files = hosts.flights(index).unwrap().into_iter();
        files.find(|path| path.to_string_lossy().ends_with(ending))
    };
    wait_until(
        "the flight to be written",
        PATIENCE,
        || Ok(find().is_some()),
    )
    .unwrap();
    find().unwrap()
}

#[test]
fn flight_of_the_survivor_tells_why_it_was_promoted() {
    let hosts = BareHosts::start("flight", 3).unwrap();
    let first = hosts.wait_whole(PATIENCE).unwrap();
    let epoch = hosts.report(first).unwrap().epoch;
    hosts.kill_asterisk(first).unwrap();
    wait_until("another active", Duration::from_secs(2), || {
        Ok(hosts.actives().iter().any(|index| *index != first))
    })
    .unwrap();
    let heir = hosts.wait_whole(PATIENCE).unwrap();
    let new_epoch = hosts.report(heir).unwrap().epoch;
    assert!(new_epoch > epoch);

    let ending = format!("epoch-{new_epoch}-promoted.pbxflight");
    let promotion = format!("PROMOTED under epoch {new_epoch}: AsteriskExited of pbx-{first}");
    let (code, told) = replay(&flight(&hosts, heir, &ending), &[]).unwrap();
    println!("{told}");
    assert_eq!(code, 0, "{told}");
    assert!(told.contains(&promotion), "{promotion} is not in\n{told}");
    assert!(
        told.contains(&format!(
            "from pbx-{first}: handover under epoch {new_epoch}: AsteriskExited"
        )),
        "{told}"
    );
    assert!(told.contains("the replay went as recorded"), "{told}");

    let ending = format!("epoch-{epoch}-demoted.pbxflight");
    let (code, told) = replay(&flight(&hosts, first, &ending), &["--json"]).unwrap();
    assert_eq!(code, 0, "{told}");
    for part in ["the guard saw Asterisk's end", "left the socket", "DEMOTED"] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }

    let (code, told) = replay(&hosts.take_flight(heir).unwrap(), &[]).unwrap();
    assert!(code == 0 && told.contains(&promotion), "{told}");
    hosts.sidecar(heir).unwrap().signal(Signal::USR1).unwrap();
    wait_until(
        "the flight that was asked for",
        Duration::from_secs(2),
        || {
            Ok(hosts
                .flights(heir)?
                .iter()
                .any(|path| path.to_string_lossy().ends_with("-asked.pbxflight")))
        },
    )
    .unwrap();
}

#[test]
fn two_links_bear_one_cut_and_a_slow_one_is_said() {
    let hosts = BareHosts::start_linked("links", 3).unwrap();
    let first = hosts.wait_whole(PATIENCE).unwrap();
    wait_for_all_links(&hosts, first);
    cut_one_link(&hosts, first);

    let began = Instant::now();
    hosts.cable(first).cut().unwrap();
    wait_until("another active", Duration::from_secs(3), || {
        Ok(hosts.actives().iter().any(|index| *index != first))
    })
    .unwrap();
    println!("both cut: another is active after {:?}", began.elapsed());
    hosts.host(first).heal().unwrap();
    hosts.cable(first).heal().unwrap();

    let second = hosts.wait_whole(PATIENCE).unwrap();
    wait_for_all_links(&hosts, second);
    slow_one_link(&hosts, second);
    let metrics = hosts.metrics(second).unwrap();
    assert!(
        metrics.contains("pbxha_heartbeat_copies_total"),
        "{metrics}"
    );
    assert!(
        !metrics.contains("reason=\"Replayed\""),
        "a copy is no attack: {metrics}"
    );
}

fn wait_for_all_links(hosts: &BareHosts, index: usize) {
    wait_until("all links", Duration::from_secs(5), || {
        Ok(hosts.links(index, LinkState::Up)?.len() == 4)
    })
    .unwrap();
}

/// It is told within a second, and nothing moves in three times deadtime.
fn cut_one_link(hosts: &BareHosts, active: usize) {
    let epoch = hosts.report(active).unwrap().epoch;
    let began = Instant::now();
    hosts.host(active).cut().unwrap();
    wait_until("the cut link to be told", Duration::from_secs(2), || {
        let down = hosts.links(active, LinkState::Down)?;
        Ok(down.len() == 2 && down.iter().all(|name| name.ends_with("/lan")))
    })
    .unwrap();
    println!("a cut link is told after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1));
    std::thread::sleep(Duration::from_millis(2400));
    assert_eq!(hosts.actives(), [active], "a path was left");
    assert_eq!(hosts.report(active).unwrap().epoch, epoch);
}

/// Its measured times are right, it is named in the problem, and nothing moves.
fn slow_one_link(hosts: &BareHosts, active: usize) {
    let _slow = hosts.slow_down(active, Duration::from_millis(175)).unwrap();
    wait_until("the warning", Duration::from_secs(20), || {
        let problem = hosts.report(active)?.problem;
        Ok(problem.is_some_and(|problem| {
            problem.reason == LINK_TOO_SLOW && problem.message.contains("/wan")
        }))
    })
    .unwrap();
    let measured = hosts.round_trips(active).unwrap();
    println!("{measured:?}");
    for (name, milliseconds) in &measured {
        let is_delayed = name.ends_with("/wan");
        assert!(
            (*milliseconds > 250.0) == is_delayed && *milliseconds < 450.0,
            "{measured:?}"
        );
    }
    assert_eq!(hosts.actives(), [active], "slow is not silent");
}

/// Service before safety: who is cut off serves on, the others choose anew, and when they meet the one that was promoted first stops.
#[test]
fn hosts_told_to_continue_serve_on_alone_and_agree_when_they_meet_again() {
    let hosts = BareHosts::start_with(BareSettings {
        failover: FailoverSpec {
            on_quorum_loss: OnQuorumLoss::Continue,
            ..FailoverSpec::default()
        },
        ..BareSettings::plain("goeson", 3)
    })
    .unwrap();
    let first = hosts.wait_whole(PATIENCE).unwrap();
    let alone = hosts.asterisk(first).unwrap().pid;
    hosts.host(first).cut().unwrap();
    wait_until("two actives", Duration::from_secs(3), || {
        Ok(hosts.actives().len() == 2)
    })
    .unwrap();
    let second = hosts.actives().into_iter().find(|index| *index != first);
    wait_until("the one alone to say so", Duration::from_secs(2), || {
        let problem = hosts.report(first)?.problem;
        Ok(problem.is_some_and(|problem| problem.reason == WITHOUT_QUORUM))
    })
    .unwrap();
    assert_eq!(hosts.asterisk(first).unwrap().pid, alone, "it serves on");

    hosts.host(first).heal().unwrap();
    wait_until("one to give way", Duration::from_secs(3), || {
        Ok(Some(hosts.actives()) == second.map(|second| vec![second]))
    })
    .unwrap();
    assert_eq!(Some(hosts.wait_whole(PATIENCE).unwrap()), second);
    assert_ne!(hosts.asterisk(first).unwrap().pid, alone);
}

#[test]
fn broken_file_is_refused_with_every_problem_and_exit_code_2() {
    let (code, said) = check_file(
        "cluster: office\nnode: c\nnodes: [{name: a}, {name: a}]\nheartbeat: {keyFile: /nonexistent}\n\
         asterisk: {userDirs: []}\nfailover: {keepalive: 1s, warntime: 400ms}\n",
    )
    .unwrap();
    assert_eq!(code, 2, "{said}");
    for path in [
        "node:",
        "nodes[1].name",
        "kubernetes",
        "heartbeat.keyFile",
        "failover.warntime",
    ] {
        assert!(said.contains(path), "{path} is not in: {said}");
    }
}
