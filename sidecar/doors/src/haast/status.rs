//! The answer to `getstatus`: 51 keys in the published order. Times are milliseconds since 1970, durations seconds, formatted
//! times UTC.

use std::fmt::{Display, Write};

use jiff::Timestamp;
use pbx_crds::ledger::Ledger;
use pbx_crds::report::Report;
use pbx_crds::status::{FailoverRecord, LinkState};

use super::codes::{self, Code, UNKNOWN};
use crate::view::{NodeView, View};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The keys and values, a line each. `peer`: the node to show as the remote one; a name that does not exist shows none.
pub fn status(view: &View, peer: Option<&str>, now: Timestamp) -> String {
    let remote = remote_of(view, peer);
    let mut lines = Lines::default();
    let ledger = &view.own_report().ledger;
    let counts = ledger.cluster_counts();
    lines.add("cluster name", &view.cluster);
    lines.time("cluster start time", Some(view.cluster_started_at));
    lines.duration("cluster run duration", Some(view.cluster_started_at), now);
    lines.add(
        "cluster fail over count",
        counts.failovers + counts.switchovers,
    );
    lines.add("local peer name", &view.own().name);
    let local = Told {
        report: view.own().report.as_deref(),
        is_active: view.active == Some(view.own),
        started_at: Some(view.started_at),
        otherwise: UNKNOWN,
    };
    node(&mut lines, "local", &view.own().name, &local, ledger, now);
    let to_remote = remote.map_or(UNKNOWN, |remote| {
        link(Some(view.own_report()), &remote.name)
    });
    lines.code("local to remote peerlink connection state", to_remote);
    let remote_name = remote.map_or("", |remote| &remote.name);
    let told = Told::by(remote, view);
    lines.add("remote data available", u8::from(told.report.is_some()));
    lines.add("remote peer name", remote_name);
    node(&mut lines, "remote", remote_name, &told, ledger, now);
    let to_local = link(told.report, &view.own().name);
    lines.code("remote to local peerlink connection state", to_local);
    lines.0
}

/// The remote node: the one asked for; else the active; else the first that is heard and has told its state; else the first.
fn remote_of<'v>(view: &'v View, peer: Option<&str>) -> Option<&'v NodeView> {
    let others = || {
        let nodes = view.nodes.iter().enumerate();
        nodes.filter(|(place, _)| *place != view.own)
    };
    if let Some(name) = peer {
        return others()
            .map(|(_, node)| node)
            .find(|node| node.name == name);
    }
    others()
        .find(|(place, _)| view.active == Some(*place))
        .or_else(|| others().find(|(_, node)| node.is_up && node.report.is_some()))
        .or_else(|| others().next())
        .map(|(_, node)| node)
}

/// What a node has told, if that holds now.
struct Told<'v> {
    report: Option<&'v Report>,
    is_active: bool,
    started_at: Option<Timestamp>,
    /// Its state while it tells nothing.
    otherwise: Code,
}

impl<'v> Told<'v> {
    fn by(remote: Option<&'v NodeView>, view: &View) -> Self {
        let active = view.active.map(|place| &view.nodes[place].name);
        let is_dead = remote.is_some_and(|node| node.is_known && !node.is_up);
        let report = remote
            .filter(|node| node.is_up)
            .and_then(|node| node.report.as_deref());
        let started_at = report.and_then(|report| report.started_at.as_ref());
        Self {
            report,
            is_active: remote
                .map(|node| &node.name)
                .is_some_and(|name| active == Some(name)),
            started_at: started_at.map(|time| time.0),
            otherwise: if is_dead { codes::DEAD } else { UNKNOWN },
        }
    }
}

/// The keys that both sides have.
fn node(
    lines: &mut Lines,
    side: &str,
    name: &str,
    told: &Told<'_>,
    ledger: &Ledger,
    now: Timestamp,
) {
    let asterisk = told.report.map(|report| report.asterisk.state);
    let last = told.report.and_then(|_| ledger.last_of(name));
    let has_lost = last.is_some_and(|record| record.from.as_deref() == Some(name));
    let counts = ledger.node_counts(name);
    let count = told
        .report
        .map_or(0, |_| counts.failovers + counts.switchovers);
    let state = told.report.map_or(told.otherwise, |report| {
        codes::haast_state(report, told.is_active)
    });
    let cause = last.map_or(codes::NO_CAUSE, |record| {
        codes::cause(record.cause, has_lost)
    });
    let key = |key: &str| format!("{side} {key}");
    lines.code(&key("haast state"), state);
    lines.code(
        &key("peer health state"),
        told.report.map_or(UNKNOWN, codes::health),
    );
    lines.code(
        &key("asterisk state"),
        asterisk.map_or(UNKNOWN, codes::asterisk),
    );
    lines.code(
        &key("asterisk connection state"),
        asterisk.map_or(UNKNOWN, codes::connection),
    );
    lines.time(&key("start time"), told.started_at);
    lines.duration(&key("haast run duration"), told.started_at, now);
    lines.add(&key("fail over count"), count);
    lines.time(
        &key("previous fail over timestamp"),
        last.map(|record| record.time.0),
    );
    lines.code(&key("previous fail over cause"), cause);
    lines.code(&key("previous haast state"), before(last, has_lost));
}

/// What a node was before the last change of roles that it took part in.
fn before(last: Option<&FailoverRecord>, has_lost: bool) -> Code {
    match last {
        None => UNKNOWN,
        Some(_) if has_lost => codes::ACTIVE,
        Some(_) => codes::STANDBY,
    }
}

/// The paths of a node to a peer: up, if one is.
fn link(report: Option<&Report>, peer: &str) -> Code {
    let links = report.map_or(&[][..], |report| &report.links);
    let states = links
        .iter()
        .filter(|link| link.name.split('/').next() == Some(peer))
        .map(|link| link.state);
    states.fold(UNKNOWN, |known, state| match state {
        LinkState::Up => codes::LINK_UP,
        LinkState::Down if known == codes::LINK_UP => known,
        LinkState::Down => codes::LINK_DOWN,
    })
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key}: {value}").expect("a String takes everything");
    }

    fn twin(&mut self, key: &str, value: impl Display, formatted: impl Display) {
        self.add(key, value);
        self.add(&format!("{key} formatted"), formatted);
    }

    fn code(&mut self, key: &str, Code(number, words): Code) {
        self.twin(key, number, words);
    }

    fn time(&mut self, key: &str, time: Option<Timestamp>) {
        match time {
            Some(time) => self.twin(
                key,
                time.as_millisecond(),
                time.strftime("%a %b %-d %H:%M:%S %Y"),
            ),
            None => self.twin(key, 0, "Never"),
        }
    }

    fn duration(&mut self, key: &str, since: Option<Timestamp>, now: Timestamp) {
        let seconds = since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
        self.twin(key, seconds, in_words(seconds));
    }
}

fn in_words(seconds: i64) -> String {
    format!(
        "{} days, {} hours, {} minutes, {} seconds",
        seconds / DAY,
        seconds % DAY / HOUR,
        seconds % HOUR / MINUTE,
        seconds % MINUTE
    )
}
