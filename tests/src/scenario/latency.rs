//! Where the time of a failover goes: one failover of the telephone system, taken apart by the flight recorders of both nodes and by
//! the client who asks. All sidecars and this process read the same boot clock, so moments can be compared across nodes.

use std::cell::Cell;
use std::net::SocketAddrV4;

use anyhow::{Context, Result};
use pbx_crds::names::HTTP_PORT;
use serde::Deserialize;

use super::moves::{Move, Steps, observe};
use super::{kills, nodes};
use crate::bare_hosts::replay;
use crate::clock::Moment;
use crate::http;
use crate::office::Office;

/// A failover taken apart.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Each part's name and milliseconds, in the order in which they happen; each begins where the one before ends.
    pub terms: Vec<(&'static str, f64)>,
    /// From the cause to the first answer of the new node, as the client saw it.
    pub whole_ms: f64,
}

/// A step as `pbx-sidecar replay --json` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    at_ns: u64,
    what: String,
    effects: Vec<String>,
}

/// `kill -9` of the active's Asterisk.
pub fn of_kill(office: &Office) -> Result<Budget> {
    let (found, killed_at) = timed(office, &kills::signal_asterisk, &|_| Ok(()))?;
    let old = story(office, &found.from, killed_at)?;
    let new = story(office, &found.to, killed_at)?;
    let handover = |step: &Step| step.what.contains(": handover under epoch");
    let moments = [
        (
            "the guard sees the end",
            told(&old, "* the guard saw Asterisk's end")?,
        ),
        (
            "the old node decides, and its packet leaves",
            told(&old, "* the handover to")?,
        ),
        ("the packet arrives", first(&new, "the handover", handover)?),
        (
            "the heir arms the kernel's deadline: promoted",
            promoted(&new)?,
        ),
        (
            "the write of the EndpointSlice leaves",
            told(&new, "* the write of the traffic left")?,
        ),
        ("it is answered", told(&new, "* the traffic points here")?),
    ];
    Ok(budget(&found, killed_at, &moments))
}

/// The active's node powered off: nothing of it tells anything, the survivor's recorder is all there is.
pub fn of_node_off(office: &Office) -> Result<Budget> {
    let node = office.active_pod()?.node;
    nodes::keep_operator_off(office, node)?;
    let repair = |office: &Office| nodes::power_on(office, node);
    let (found, cut_at) = timed(office, &nodes::power_off_of_active, &repair)?;
    let story = story(office, &found.to, cut_at)?;
    let (decided_at, call) = take_of_witness(&story)?;
    let moments = [
        (
            "silence, until the survivor's vote is its own again",
            decided_at,
        ),
        (
            "the write of the witness leaves",
            told(&story, &format!("* {call} left"))?,
        ),
        (
            "it is answered",
            told(&story, &format!("* {call} was answered"))?,
        ),
        (
            "the heir arms the kernel's deadline: promoted",
            promoted(&story)?,
        ),
        (
            "the write of the EndpointSlice leaves",
            told(&story, "* the write of the traffic left")?,
        ),
        ("it is answered", told(&story, "* the traffic points here")?),
    ];
    Ok(budget(&found, cut_at, &moments))
}

/// A move, and when its cause began.
fn timed(
    office: &Office,
    cause: &dyn Fn(&Office) -> Result<Moment>,
    repair: &dyn Fn(&Office) -> Result<()>,
) -> Result<(Move, Moment)> {
    let began = Cell::new(Moment::default());
    let cause = |office: &Office| {
        let at = cause(office)?;
        began.set(at);
        Ok(at)
    };
    let found = observe(
        office,
        &Steps {
            cause: &cause,
            repair,
        },
    )?;
    Ok((found, began.get()))
}

fn budget(found: &Move, cause: Moment, moments: &[(&'static str, Moment)]) -> Budget {
    let mut terms = Vec::with_capacity(moments.len() + 1);
    let mut before_ms = 0.0;
    for (name, at) in moments {
        let ms = at.ms_since(cause);
        terms.push((*name, ms - before_ms));
        before_ms = ms;
    }
    let answered = "kube-proxy follows, and the new node answers";
    terms.push((answered, found.answer_ms - before_ms));
    Budget {
        terms,
        whole_ms: found.answer_ms,
    }
}

/// What a node's flight recorder holds of the time since the cause.
fn story(office: &Office, pod: &str, since: Moment) -> Result<Vec<Step>> {
    let running = office.pod(pod)?;
    let address = SocketAddrV4::new([127, 0, 0, 1].into(), HTTP_PORT);
    let bytes = http::get_bytes(&running.network_namespace(), address, "/debug/flight")?;
    let path = std::env::temp_dir().join(format!("pbxha-{}-{pod}.pbxflight", std::process::id()));
    std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    let told = replay(&path, &["--json"]);
    std::fs::remove_file(&path).ok();
    let (_, text) = told?;
    let steps = text.lines().filter(|line| line.starts_with('{'));
    let steps: Vec<Step> = steps
        .map(|line| serde_json::from_str(line).with_context(|| format!("read {line}")))
        .collect::<Result<_>>()?;
    let recent = steps.into_iter().filter(|step| step.at_ns >= since.0);
    Ok(recent.collect())
}

/// When the survivor decided to take the witness, and by which call, such as `call 12`.
fn take_of_witness(steps: &[Step]) -> Result<(Moment, String)> {
    let write = |step: &Step| {
        let mut effects = step.effects.iter();
        let effect = effects.find(|effect| effect.contains(": writes the Lease"))?;
        let (call, _) = effect.split_once(':')?;
        Some((Moment(step.at_ns), call.to_owned()))
    };
    let mut found = steps.iter().filter_map(write);
    found.next().context("the survivor never wrote the Lease")
}

fn told(steps: &[Step], words: &str) -> Result<Moment> {
    first(steps, words, |step| step.what.contains(words))
}

fn promoted(steps: &[Step]) -> Result<Moment> {
    let is_it = |step: &Step| {
        step.effects
            .iter()
            .any(|effect| effect.starts_with("PROMOTED"))
    };
    first(steps, "the promotion", is_it)
}

fn first(steps: &[Step], what: &str, is_it: impl Fn(&Step) -> bool) -> Result<Moment> {
    let step = steps.iter().find(|step| is_it(step));
    let step = step.with_context(|| format!("the flight does not tell of {what}"))?;
    Ok(Moment(step.at_ns))
}
