//! Asterisk under care on Kubernetes: planned moves by annotation, changed files, an upgraded image. What becomes of calls is measured
//! by `cargo xtask bench asterisk`.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::time::Duration;

use pbx_crds::Cause;
use pbx_crds::switchover::{SwitchoverState, SwitchoverStrategy};
use pbx_tests::care::kubernetes::{Exchange, ask, upgrade, wait_state, write_files};
use pbx_tests::clock::Moment;
use pbx_tests::office::apply;
use pbx_tests::scenario::moves::{Steps, observe};
use pbx_tests::scenario::pods::lives;
use pbx_tests::watcher::Change;
use serde_json::json;
use support::office;

mod support;

/// kubelet brings the files, both try them, and the operator tells.
const REJECTED_WITHIN: Duration = Duration::from_mins(3);
const BROKEN: &str = "[modules]\nautoload = yes\nrequire = no_such_module.so\n";

fn reason(view: &pbx_tests::watcher::View) -> Option<(String, String)> {
    let conditions = view.status.conditions.iter();
    let mut found = conditions.filter(|condition| condition.type_ == "Progressing");
    found
        .next()
        .map(|condition| (condition.reason.clone(), condition.message.clone()))
}

#[test]
fn the_annotation_moves_the_role_and_the_status_tells_how() {
    for strategy in [SwitchoverStrategy::Immediate, SwitchoverStrategy::Drain] {
        let asked = std::cell::RefCell::new(String::new());
        let cause = |office: &pbx_tests::office::Office| {
            let (text, at) = ask(office, &format!("any {strategy:?}"))?;
            *asked.borrow_mut() = text;
            Ok(at)
        };
        let nothing = |_: &pbx_tests::office::Office| Ok(());
        let steps = Steps {
            cause: &cause,
            repair: &nothing,
        };
        let before = office().watcher.view().status;
        let found = observe(office(), &steps).unwrap();
        println!("{strategy:?}: {found:?}");
        let told = wait_state(office(), &asked.borrow(), SwitchoverState::Done).unwrap();
        assert_eq!(told.strategy, strategy);
        let after = office().watcher.view().status;
        assert_eq!(after.last_cause, Some(Cause::Switchover));
        assert_eq!(after.counts.switchovers, before.counts.switchovers + 1);
        assert_eq!(after.counts.failovers, before.counts.failovers);
    }
}

#[test]
fn changed_files_reach_the_active_by_a_reload_and_no_pod_is_replaced() {
    let exchange = Exchange::open(office(), false).unwrap();
    let (carried, took) = exchange.reload(10).unwrap();
    println!("the active answers by the new files after {took:?}: {carried:?}");
    assert_eq!((carried.held.failed, carried.fresh.failed), (0, 0));
}

#[test]
fn broken_files_never_reach_the_active_and_the_condition_says_why() {
    let office = office();
    let before = office.watcher.view().status;
    let (old, active) = (lives(office), office.active_pod().unwrap());
    let asterisk = office.asterisk_of(&active).unwrap().pid;
    let begun_at = Moment::now();
    write_files(office, &json!({ "modules.conf": BROKEN })).unwrap();
    let told =
        office
            .watcher
            .wait_until("the refusal in the conditions", REJECTED_WITHIN, |view| {
                reason(view).is_some_and(|(reason, _)| reason == "ConfigRejected")
            });
    // Whatever was told, the next test needs sound files.
    write_files(office, &json!({ "modules.conf": null })).unwrap();
    apply(&office.cluster).unwrap();
    let (_, message) = reason(&told.unwrap()).unwrap();
    println!("{message}");
    assert!(message.contains("is not applied"), "{message}");
    let after = office.wait_whole().unwrap().status;
    assert_eq!((after.active, after.epoch), (before.active, before.epoch));
    assert_eq!(lives(office), old, "a pod was replaced");
    assert_eq!(office.asterisk_of(&active).unwrap().pid, asterisk);
    let seen = office.watcher.seen_since(begun_at);
    let is_down =
        |change: &Change| matches!(change, Change::Status(status) if status.active.is_none());
    assert!(!seen.iter().any(|seen| is_down(&seen.change)));
}

#[test]
fn an_upgraded_image_rolls_the_standby_first_and_moves_the_role_once() {
    let (active, standby) = (office().active_pod().unwrap(), office().standbys().unwrap());
    let standby = office().pod(&standby[0]).unwrap();
    let found = upgrade(office()).unwrap();
    println!("{found:?}");
    assert_eq!((&found.from, &found.to), (&active.name, &standby.name));
    let new = office().pod(&found.to).unwrap();
    assert_ne!(
        new.uid, standby.uid,
        "the role moved to a pod of the old image"
    );
    // Back to the image of before.
    upgrade(office()).unwrap();
}
