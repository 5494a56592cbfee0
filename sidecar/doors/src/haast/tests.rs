//! The answer to `getstatus`: its 51 keys, their order and their formats.

use std::collections::BTreeMap;

use pbx_crds::Cause;
use pbx_crds::report::ReportedRole;
use pbx_crds::status::{AsteriskState, LinkState};

use super::status::status;
use crate::fixtures::{self, at, change, change_report, set_links};
use crate::view::View;

/// The published keys in their order; `*`: it has a `formatted` twin.
const KEYS: [&str; 29] = [
    "cluster name",
    "cluster start time*",
    "cluster run duration*",
    "cluster fail over count",
    "local peer name",
    "local haast state*",
    "local peer health state*",
    "local asterisk state*",
    "local asterisk connection state*",
    "local start time*",
    "local haast run duration*",
    "local fail over count",
    "local previous fail over timestamp*",
    "local previous fail over cause*",
    "local previous haast state*",
    "local to remote peerlink connection state*",
    "remote data available",
    "remote peer name",
    "remote haast state*",
    "remote peer health state*",
    "remote asterisk state*",
    "remote asterisk connection state*",
    "remote start time*",
    "remote haast run duration*",
    "remote fail over count",
    "remote previous fail over timestamp*",
    "remote previous fail over cause*",
    "remote previous haast state*",
    "remote to local peerlink connection state*",
];

fn with_history() -> View {
    let mut view = fixtures::two_nodes();
    change_report(&mut view, 0, |report| {
        report
            .ledger
            .record(change(1, None, "office-0", Cause::Startup, false));
        report.ledger.record(change(
            2,
            Some("office-0"),
            "office-1",
            Cause::NodeSilent,
            false,
        ));
        report.ledger.record(change(
            3,
            Some("office-1"),
            "office-0",
            Cause::Preferred,
            true,
        ));
    });
    set_links(
        &mut view,
        &[
            ("office-1/a", LinkState::Down),
            ("office-1/b", LinkState::Up),
        ],
    );
    view
}

fn lines_of(view: &View, peer: Option<&str>) -> Vec<(String, String)> {
    let text = status(view, peer, at(view.started_at.as_second() + 6_183_771));
    let pair = |line: &str| {
        let (key, value) = line.split_once(": ").unwrap();
        (key.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

fn map_of(view: &View, peer: Option<&str>) -> BTreeMap<String, String> {
    lines_of(view, peer).into_iter().collect()
}

#[test]
fn all_51_keys_stand_in_the_published_order() {
    let expected = KEYS.iter().flat_map(|key| match key.strip_suffix('*') {
        Some(key) => vec![key.to_owned(), format!("{key} formatted")],
        None => vec![(*key).to_owned()],
    });
    let expected: Vec<String> = expected.collect();
    assert_eq!(expected.len(), 51);
    let with_data = lines_of(&with_history(), None);
    let keys: Vec<_> = with_data.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, expected);
    let mut alone = with_history();
    alone.nodes.truncate(1);
    let keys: Vec<_> = lines_of(&alone, None)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, expected, "without a remote node");
}

#[test]
fn values_and_their_words_go_together() {
    let view = with_history();
    let shown = map_of(&view, None);
    for (key, value) in [
        ("cluster name", "office"),
        ("cluster fail over count", "2"),
        ("local peer name", "office-0"),
        ("local haast state", "4"),
        ("local haast state formatted", "Active"),
        ("local peer health state formatted", "Normal"),
        ("local asterisk state formatted", "Started"),
        ("local asterisk connection state", "7"),
        ("local start time", "1700000000000"),
        ("local start time formatted", "Tue Nov 14 22:13:20 2023"),
        ("local haast run duration", "6183771"),
        (
            "local haast run duration formatted",
            "71 days, 13 hours, 42 minutes, 51 seconds",
        ),
        ("local fail over count", "1"),
        ("local previous fail over timestamp", "1459817001000"),
        (
            "local previous fail over timestamp formatted",
            "Tue Apr 5 00:43:21 2016",
        ),
        ("local previous fail over cause", "108"),
        ("local previous haast state formatted", "Standby"),
        ("local to remote peerlink connection state formatted", "Up"),
        ("remote data available", "1"),
        ("remote peer name", "office-1"),
        ("remote haast state", "3"),
        ("remote haast state formatted", "Standby"),
        ("remote start time", "1700000050000"),
        ("remote previous fail over cause", "23"),
        (
            "remote previous fail over cause formatted",
            "Local peer automatic demotion request",
        ),
        ("remote previous haast state", "4"),
        (
            "remote to local peerlink connection state formatted",
            "Unknown",
        ),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
}

#[test]
fn without_remote_data_the_keys_stay_and_say_so() {
    let mut view = with_history();
    view.nodes[1].is_up = false;
    let shown = map_of(&view, None);
    for (key, value) in [
        ("remote data available", "0"),
        ("remote peer name", "office-1"),
        ("remote haast state", "5"),
        ("remote haast state formatted", "Dead"),
        ("remote asterisk state formatted", "Unknown"),
        ("remote start time", "0"),
        ("remote start time formatted", "Never"),
        (
            "remote haast run duration formatted",
            "0 days, 0 hours, 0 minutes, 0 seconds",
        ),
        ("remote fail over count", "0"),
        ("remote previous fail over cause formatted", "None"),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    view.nodes[1].is_known = false;
    assert_eq!(
        map_of(&view, None)["remote haast state formatted"],
        "Unknown"
    );
}

#[test]
fn of_several_the_remote_one_is_the_active_or_the_first_that_tells() {
    let mut view = with_history();
    view.nodes
        .push(fixtures::node("office-2", ReportedRole::Standby));
    let remote = |view: &View, peer| map_of(view, peer)["remote peer name"].clone();
    assert_eq!(remote(&view, None), "office-1");
    view.nodes[1].is_up = false;
    assert_eq!(remote(&view, None), "office-2");
    view.active = Some(1);
    assert_eq!(remote(&view, None), "office-1");
    assert_eq!(remote(&view, Some("office-2")), "office-2");
}

#[test]
fn who_is_active_is_shown_before_the_reports_say_so() {
    let mut view = fixtures::two_nodes();
    view.active = Some(1);
    let shown = map_of(&view, None);
    assert_eq!(shown["local haast state formatted"], "Standby");
    assert_eq!(shown["remote haast state formatted"], "Active");
    view.active = None;
    let shown = map_of(&view, None);
    assert_eq!(shown["remote haast state formatted"], "Standby");
}

#[test]
fn a_sick_asterisk_shows() {
    let mut view = with_history();
    change_report(&mut view, 1, |report| {
        report.asterisk.state = AsteriskState::Stopped;
        report.ready = false;
    });
    let shown = map_of(&view, None);
    assert_eq!(shown["remote asterisk state"], "4");
    assert_eq!(shown["remote asterisk connection state"], "4");
    assert_eq!(shown["remote haast state formatted"], "Starting");
    assert_eq!(shown["remote peer health state formatted"], "Not ready");
}
