//! Asterisk under care, on real parts without Kubernetes: hung, sick, drained, reloaded, told of.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use pbx_crds::Cause;
use pbx_crds::cluster::StandbyMode;
use pbx_crds::health::{HealthLevel, HealthSpec};
use pbx_crds::status::AsteriskState;
use pbx_crds::switchover::{HookSpec, SwitchoverState};
use pbx_tests::bare_hosts::{BareHosts, BareSettings};
use pbx_tests::care::slowed::Slowed;
use pbx_tests::care::{
    Hang, begin_calls, drain, end_calls, hang, last_cause, reload, settings, wait_files,
    wait_for_other, wait_state, write_dialplan,
};
use pbx_tests::cluster::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
/// At defaults.
const HUNG_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_hung_asterisk_is_replaced_within_two_seconds() {
    let hosts = BareHosts::start_with(settings("hung")).unwrap();
    for how in [Hang::Stopped, Hang::Blocked] {
        let (took, cause) = hang(&hosts, how).unwrap();
        println!("{how:?}: another is active after {took:?}");
        assert_eq!(cause, Cause::AsteriskHung);
        assert!(took < HUNG_LIMIT, "took {took:?}");
    }
}

#[test]
fn a_drain_moves_the_role_at_once_and_cuts_no_call() {
    let hosts = BareHosts::start_with(settings("drain")).unwrap();
    let drained = drain(&hosts, 20).unwrap();
    println!("{drained:?}");
    assert_eq!((drained.cut, drained.refusal), (0, 503));
    // The old active comes back as a standby.
    hosts.wait_whole(PATIENCE).unwrap();
}

#[test]
fn when_idle_waits_for_the_last_call_and_can_be_called_off() {
    let hosts = BareHosts::start_with(settings("idle")).unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let calls = begin_calls(&hosts, active, 2).unwrap();
    hosts.ask_for(active, "any WhenIdle").unwrap();
    wait_state(&hosts, active, SwitchoverState::Waiting).unwrap();
    wait_until("the calls to be told", Duration::from_secs(10), || {
        let told = hosts
            .report(active)?
            .switchover
            .and_then(|one| one.calls_left);
        Ok(told == Some(2))
    })
    .unwrap();
    hosts.ask_for(active, "cancel").unwrap();
    wait_state(&hosts, active, SwitchoverState::Cancelled).unwrap();

    hosts.ask_for(active, "any WhenIdle").unwrap();
    wait_state(&hosts, active, SwitchoverState::Waiting).unwrap();
    assert_eq!(end_calls(calls), 0);
    let heir = wait_for_other(&hosts, active, Duration::from_secs(5)).unwrap();
    assert_eq!(
        last_cause(&hosts.report(heir).unwrap()),
        Some(Cause::Switchover)
    );
}

#[test]
fn a_drill_is_counted_as_one_and_a_pause_forbids_it() {
    let hosts = BareHosts::start_with(settings("drill")).unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    hosts.ask_for(active, "pause").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    hosts.ask_for(active, "drill").unwrap();
    wait_until("the refusal to be counted", Duration::from_secs(5), || {
        Ok(hosts
            .metrics(active)?
            .contains("moves_suppressed_total{reason=\"Paused\"} 1"))
    })
    .unwrap();
    assert_eq!(hosts.actives(), [active]);
    hosts.ask_for(active, "resume").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    hosts.ask_for(active, "drill").unwrap();
    let heir = wait_for_other(&hosts, active, Duration::from_secs(5)).unwrap();
    let report = hosts.report(heir).unwrap();
    assert_eq!(last_cause(&report), Some(Cause::Drill));
    let counts = report.ledger.cluster_counts();
    assert_eq!(
        (counts.drills, counts.switchovers, counts.failovers),
        (1, 1, 0)
    );
}

#[test]
fn a_new_dialplan_is_tried_by_a_standby_and_reloaded_under_calls() {
    let hosts = BareHosts::start_with(settings("reload")).unwrap();
    let (lost, took) = reload(&hosts, 20, "first").unwrap();
    println!("the active has the new files after {took:?}");
    assert_eq!(lost, 0);
    hosts.wait_whole(PATIENCE).unwrap();
}

/// A large dialplan on a slow machine takes Asterisk far longer than any other question.
#[test]
fn a_reload_that_takes_long_is_waited_for() {
    let hosts = BareHosts::start_with(settings("slow")).unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let before = hosts.report(active).unwrap();
    let slowed = Slowed::begin(hosts.asterisk(active).unwrap(), 10);
    let (lost, took) = reload(&hosts, 5, &large()).unwrap();
    println!("the active has the new files after {took:?}");
    assert_eq!(lost, 0);
    drop(slowed);
    assert_eq!(hosts.wait_whole(PATIENCE).unwrap(), active);
    let after = hosts.report(active).unwrap();
    assert_eq!(after.problem, None);
    assert_ne!(after.config_hash, before.config_hash);
}

/// A standby lives with them: whoever starts next reads them.
#[test]
fn an_asterisk_that_ends_in_the_middle_of_a_reload_says_nothing_of_the_files() {
    let hosts = BareHosts::start_with(settings("ended")).unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let before = hosts.report(active).unwrap();
    let slowed = Slowed::begin(hosts.asterisk(active).unwrap(), 10);
    write_dialplan(&hosts, &large()).unwrap();
    wait_files(&hosts, active, &before).unwrap();
    hosts.kill_asterisk(active).unwrap();
    drop(slowed);
    let heir = wait_for_other(&hosts, active, PATIENCE).unwrap();
    hosts.wait_whole(PATIENCE).unwrap();
    let given = hosts.report(heir).unwrap().config_hash;
    assert_ne!(given, before.config_hash);
    for index in 0..hosts.count() {
        let report = hosts.report(index).unwrap();
        assert_eq!((report.problem, &report.config_hash), (None, &given));
    }
}

/// A dialplan that takes Asterisk a while.
fn large() -> String {
    let mut large = String::from("large");
    for context in 0..500 {
        write!(large, "\n[large-{context}]").unwrap();
        for extension in 0..100 {
            write!(large, "\nexten => {extension},1,Hangup()").unwrap();
        }
    }
    large
}

#[test]
fn a_configuration_that_asterisk_does_not_live_with_never_reaches_the_active() {
    let hosts = BareHosts::start_with(settings("badconf")).unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let (before, asterisk) = (
        hosts.report(active).unwrap(),
        hosts.asterisk(active).unwrap().pid,
    );
    for index in 0..hosts.count() {
        let text = "[modules]\nautoload = yes\nrequire = no_such_module.so\n";
        hosts.write_file(index, "modules.conf", text).unwrap();
    }
    let standbys: Vec<usize> = (0..hosts.count())
        .filter(|index| *index != active)
        .collect();
    wait_until("the standbys to refuse it", Duration::from_secs(90), || {
        Ok(standbys.iter().all(|index| {
            let problem = hosts.report(*index).ok().and_then(|report| report.problem);
            problem.is_some_and(|problem| problem.reason == "ConfigRejected")
        }))
    })
    .unwrap();
    assert_eq!(hosts.wait_whole(PATIENCE).unwrap(), active);
    let after = hosts.report(active).unwrap();
    assert_eq!(
        (after.epoch, after.config_hash),
        (before.epoch, before.config_hash)
    );
    assert_eq!(hosts.asterisk(active).unwrap().pid, asterisk);
}

/// A host is sick when its address stands in the file `sick`.
fn with_sensor(name: &str) -> BareSettings {
    let health = format!(
        "sensors: [{{name: mine, kind: Command, interval: 200ms, points: 100, command: [sh, -c, 'ip -4 addr show | grep -qf /tmp/pbxha-{name}/sick && exit 2; exit 0']}}]"
    );
    let health: HealthSpec = serde_yaml::from_str(&health).unwrap();
    BareSettings {
        health,
        ..settings(name)
    }
}

/// Makes the hosts with these places sick, and all others well. A host knows itself by its address.
fn make_sick(hosts: &BareHosts, name: &str, sick: &[usize]) {
    let addresses: Vec<String> = sick
        .iter()
        .map(|index| format!("{}/", hosts.host(*index).address))
        .collect();
    let pattern = if addresses.is_empty() {
        "nothing is sick".to_owned()
    } else {
        addresses.join("\n")
    };
    fs::write(format!("/tmp/pbxha-{name}/sick"), pattern + "\n").unwrap();
}

#[test]
fn a_sick_active_gives_way_to_a_healthier_node_and_never_to_a_sicker_one() {
    let name = "sick";
    let hosts = BareHosts::start_with(with_sensor(name)).unwrap();
    make_sick(&hosts, name, &[]);
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let others: Vec<usize> = (0..hosts.count())
        .filter(|index| *index != active)
        .collect();
    let level = |index: usize| hosts.report(index).map(|report| report.health.level);

    make_sick(&hosts, name, &others);
    wait_until("the standbys to be sick", PATIENCE, || {
        Ok(others
            .iter()
            .all(|index| level(*index).is_ok_and(|level| level == HealthLevel::Failure)))
    })
    .unwrap();
    make_sick(&hosts, name, &[0, 1, 2]);
    wait_until("the refusal to be counted", Duration::from_secs(10), || {
        Ok(hosts
            .metrics(active)?
            .contains("moves_suppressed_total{reason=\"HeirSicker\"}"))
    })
    .unwrap();
    assert_eq!(hosts.actives(), [active], "a sicker one never takes over");

    make_sick(&hosts, name, &[active]);
    let heir = wait_for_other(&hosts, active, Duration::from_secs(20)).unwrap();
    let report = hosts.report(heir).unwrap();
    assert_eq!(last_cause(&report), Some(Cause::HealthFailed));
    assert_eq!(report.ledger.cluster_counts().suppressed, 1);
}

#[test]
fn hooks_are_told_of_a_failover_and_a_slow_one_holds_nothing_up() {
    let folder = std::env::temp_dir().join("pbxha-hooks-told");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    let hook = |text: String| serde_yaml::from_str::<HookSpec>(&text).unwrap();
    let told = folder.display();
    let hooks = vec![
        hook(format!(
            "{{name: note, events: [Promote, Failover], command: [sh, -c, 'cat > {told}/$PBXHA_EVENT.$$']}}"
        )),
        hook("{name: slow, events: [Demote, Promote], command: [sleep, '60'], timeout: 2s}".into()),
    ];
    let hosts = BareHosts::start_with(BareSettings {
        hooks,
        ..settings("hooks")
    })
    .unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    hosts.kill_asterisk(active).unwrap();
    wait_for_other(&hosts, active, Duration::from_millis(900)).unwrap();
    wait_until("the hook to be told", Duration::from_secs(15), || {
        let files = fs::read_dir(&folder)?.flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        Ok(texts
            .into_iter()
            .any(|text| text.contains("\"event\":\"Failover\"") && text.contains("AsteriskExited")))
    })
    .unwrap();
    wait_until(
        "the slow one to be given up",
        Duration::from_secs(15),
        || {
            Ok((0..hosts.count()).any(|index| {
                let metrics = hosts.metrics(index).unwrap_or_default();
                metrics.contains("hooks_total{reason=\"TimedOut\"}")
            }))
        },
    )
    .unwrap();
}

#[test]
fn a_cold_standby_runs_nothing_and_takes_over() {
    let hosts = BareHosts::start_with(BareSettings {
        standby: StandbyMode::Cold,
        ..settings("cold")
    })
    .unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    wait_until("the active's Asterisk to run", PATIENCE, || {
        Ok(hosts.report(active)?.asterisk.state == AsteriskState::Running)
    })
    .unwrap();
    for index in (0..hosts.count()).filter(|index| *index != active) {
        let report = hosts.report(index).unwrap();
        assert_eq!(
            (report.detail.as_str(), report.asterisk.state),
            ("Cold", AsteriskState::Stopped)
        );
        assert!(hosts.asterisk(index).is_err());
    }
    hosts.kill_asterisk(active).unwrap();
    let heir = wait_for_other(&hosts, active, Duration::from_secs(3)).unwrap();
    wait_until("its Asterisk to answer", PATIENCE, || {
        Ok(begin_calls(&hosts, heir, 1).is_ok_and(|calls| end_calls(calls) == 0))
    })
    .unwrap();
    wait_until("the old one to be cold", Duration::from_secs(20), || {
        Ok(hosts.report(active)?.detail == "Cold" && hosts.asterisk(active).is_err())
    })
    .unwrap();
}
