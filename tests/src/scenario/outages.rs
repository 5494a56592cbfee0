//! Outages of what a failover must not need: the operator, and the API server, for all or for one node.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pbx_crds::quorum::LONGEST_HOLD_MS;

use super::kills::signal_asterisk;
use super::moves::{Move, Steps, observe};
use crate::call::Call;
use crate::clock::Moment;
use crate::cluster::{NodeId, wait_until};
use crate::office::{NAME, NAMESPACE, OPERATOR_NAMESPACE, Office, SIP_PORT};
use crate::sidecar_log::notices_since;
use crate::watcher::View;

const SLICE_TIMEOUT: Duration = Duration::from_secs(30);
const ALONE_TIMEOUT: Duration = Duration::from_mins(1);
const HEEDED_TIMEOUT: Duration = Duration::from_secs(15);
/// Answers and echoes, in the example's dialplan.
const CALLED: &str = "100";
/// Into the outage, so that nothing lives on answers from before it.
const BEFORE_KILL: Duration = Duration::from_secs(20);
/// A sidecar that is cut off from the API silently knows it by then: it asks every five seconds, and waits for one.
const CUT_NOTICED: Duration = Duration::from_secs(8);
/// After a kill, until a restart in place is over for certain.
const AFTER_KILL: Duration = Duration::from_secs(4);

/// Takes the operator away, kills the active's Asterisk, and brings the operator back once the traffic has moved: the status is
/// complete then, the counts exact. `status_ms` of the move contains the operator's absence.
pub fn operator_down(office: &Office) -> Result<Move> {
    office.wait_whole()?;
    let steps = Steps {
        cause: &fail_over_without_operator,
        repair: &|_| Ok(()),
    };
    let found = scale_operator(office, 0).and_then(|()| observe(office, &steps));
    // After a failure too: without it nothing is ever whole.
    scale_operator(office, 1)?;
    found
}

fn fail_over_without_operator(office: &Office) -> Result<Moment> {
    let old = office.watcher.view().traffic;
    let at = signal_asterisk(office)?;
    let has_moved = |view: &View| view.traffic.address.is_some() && view.traffic != old;
    office
        .watcher
        .wait_until("the traffic to move", SLICE_TIMEOUT, has_moved)?;
    scale_operator(office, 1)?;
    Ok(at)
}

fn scale_operator(office: &Office, replicas: u8) -> Result<()> {
    let own = ["--namespace", OPERATOR_NAMESPACE];
    let replicas = format!("--replicas={replicas}");
    let scale = ["scale", "deployment", "--all", &replicas];
    office.cluster.kubectl(&[&scale[..], &own].concat())?;
    // After an outage of the API server each of Kubernetes' own controllers takes up to half a minute to look again, and it takes three
    // of them and a kubelet to make a pod.
    let seen = ["rollout", "status", "deployment", "--timeout=180s"];
    office.cluster.kubectl(&[&seen[..], &own].concat())?;
    if replicas == "--replicas=0" {
        let gone = ["wait", "pods", "--all", "--for=delete", "--timeout=180s"];
        office.cluster.kubectl(&[&gone[..], &own].concat())?;
    }
    Ok(())
}

/// Stops the API server for `length` and kills the active's Asterisk during it: it is restarted in place, the role stays, and the
/// operator's container outlives it. Returns the longest time without an answer, in milliseconds.
pub fn api_down(office: &Office, length: Duration) -> Result<f64> {
    let operator_ends = ends_of_operator(office)?;
    let before_kill = BEFORE_KILL.min(length / 2);
    let gap_ms = restarted_in_place(
        office,
        &Outage {
            begin: &|| office.cluster.stop_apiserver(),
            end: &|| office.cluster.start_apiserver(),
            before_kill,
            after_kill: length.saturating_sub(before_kill),
        },
    )?;
    ensure!(
        ends_of_operator(office)? == operator_ends,
        "the operator's container ended: kubelet holds the next starts back"
    );
    changes_are_heeded(office)?;
    Ok(gap_ms)
}

/// Cuts the API server off from the standby's node and kills the active's Asterisk during it: it is restarted in place, since the
/// standby could not move the traffic. Returns the longest time without an answer, in milliseconds.
pub fn api_cut_from_standby(office: &Office) -> Result<f64> {
    office.wait_whole()?;
    let standby = office.standbys()?.remove(0);
    let node = office.pod(&standby)?.node;
    restarted_in_place(
        office,
        &Outage {
            begin: &|| office.cluster.cut_api(node),
            end: &|| office.cluster.heal_api(node),
            before_kill: CUT_NOTICED,
            after_kill: AFTER_KILL,
        },
    )
}

/// Cuts the API server off from the active's node, which alone moves nothing, and then kills its Asterisk: the standby takes over and
/// moves the traffic.
pub fn api_cut_from_active(office: &Office) -> Result<Move> {
    office.wait_whole()?;
    let node = office.active_pod()?.node;
    let found = observe(
        office,
        &Steps {
            cause: &|office| cut_and_kill(office, node),
            repair: &|office| office.cluster.heal_api(node),
        },
    );
    // After a failure too.
    office.cluster.heal_api(node)?;
    found
}

fn cut_and_kill(office: &Office, node: NodeId) -> Result<Moment> {
    office.cluster.cut_api(node)?;
    std::thread::sleep(CUT_NOTICED);
    signal_asterisk(office)
}

/// A time without the API, in which the active's Asterisk is killed.
struct Outage<'a> {
    begin: &'a dyn Fn() -> Result<()>,
    end: &'a dyn Fn() -> Result<()>,
    before_kill: Duration,
    after_kill: Duration,
}

/// Sees to it that the active's Asterisk is restarted once in that outage, that the role stays, and that nobody else answers. Returns
/// the longest time without an answer, in milliseconds.
fn restarted_in_place(office: &Office, outage: &Outage) -> Result<f64> {
    let before = office.wait_whole()?;
    let restarts = restarts_of_active(&before)?;
    let probe = office.probe(office.service()?)?;
    let killed = kill_during(office, outage);
    // After a failure too.
    (outage.end)()?;
    let log = probe.finish()?;
    let killed_at = killed?;
    let counted =
        office
            .watcher
            .wait_until("the restart in the status", ALONE_TIMEOUT, |view| {
                restarts_of_active(view).is_ok_and(|now| now > restarts)
            })?;
    role_stayed(office, &before, &counted, killed_at)?;
    let now = restarts_of_active(&counted)?;
    ensure!(
        now == restarts + 1,
        "Asterisk was restarted once and {} restarts were counted",
        now - restarts
    );
    ensure!(
        log.answerers() == [office.serving_address()?],
        "others than the active answered: {:?}",
        log.answerers()
    );
    office.wait_whole()?;
    Ok(log.worst_gap().ms)
}

fn kill_during(office: &Office, outage: &Outage) -> Result<Moment> {
    (outage.begin)()?;
    std::thread::sleep(outage.before_kill);
    let killed_at = signal_asterisk(office)?;
    std::thread::sleep(outage.after_kill);
    Ok(killed_at)
}

/// Takes the standby's pod away, waits until the active counts on the witness for long, and stops the API server for `length`: the
/// active goes on with the same Asterisk and the same call. Returns the longest time without an answer of the pod, in milliseconds.
pub fn api_blip_alone(office: &Office, length: Duration) -> Result<f64> {
    let before = office.wait_whole()?;
    cordon_all(office, true)?;
    let gap = blip(office, &before, length);
    // After a failure too.
    office.cluster.start_apiserver()?;
    cordon_all(office, false)?;
    office.wait_whole()?;
    changes_are_heeded(office)?;
    gap
}

fn blip(office: &Office, before: &View, length: Duration) -> Result<f64> {
    let standby = office.standbys()?.remove(0);
    office
        .cluster
        .kubectl(&["delete", "pod", &standby, "--namespace", NAMESPACE])?;
    office
        .watcher
        .wait_until("a long hold of the witness", ALONE_TIMEOUT, |view| {
            let witness = view.witness.as_ref();
            witness.is_some_and(|witness| witness.hold_ms == LONGEST_HOLD_MS)
        })?;
    let pod = office.active_pod()?;
    let asterisk = office.asterisk_of(&pod)?;
    let target = SocketAddrV4::new(office.serving_address()?, SIP_PORT);
    let (namespace, client) = office.client()?;
    let call = Call::begin(&namespace, client, target, CALLED)?;
    let probe = office.probe(target)?;
    let stopped_at = Moment::now();
    office.cluster.stop_apiserver()?;
    std::thread::sleep(length);
    let restarted = office.cluster.start_apiserver();
    let log = probe.finish()?;
    restarted?;
    call.hang_up().context("the call did not live through it")?;
    let after = office.watcher.view();
    role_stayed(office, before, &after, stopped_at)?;
    ensure!(
        office.asterisk_of(&pod)?.pid == asterisk.pid,
        "Asterisk was restarted during an outage of the API"
    );
    Ok(log.worst_gap().ms)
}

/// An operator whose watches did not all come back goes on telling the status and heeds no change of a spec.
fn changes_are_heeded(office: &Office) -> Result<()> {
    let annotate = |mark: &str| {
        let annotations = format!(r#"{{"pbxha.dev/test":{mark}}}"#);
        let patch =
            format!(r#"{{"spec":{{"network":{{"service":{{"annotations":{annotations}}}}}}}}}"#);
        office.patch("pbxcluster", NAME, &patch)
    };
    let of = ["get", "service", NAME, "--namespace", NAMESPACE];
    let shown = || {
        office
            .cluster
            .kubectl(&[&of[..], &["--output=jsonpath={.metadata.annotations}"]].concat())
    };
    annotate(r#""heeded""#)?;
    let heeded = wait_until("a changed spec to be heeded", HEEDED_TIMEOUT, || {
        Ok(shown()?.contains("heeded"))
    });
    annotate("null")?;
    heeded?;
    office.wait_whole().map(drop)
}

/// How often a container of the operator was started again, by pod.
fn ends_of_operator(office: &Office) -> Result<String> {
    let of = ["get", "pods", "--namespace", OPERATOR_NAMESPACE];
    let counts = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount};{end}";
    office
        .cluster
        .kubectl(&[&of[..], &["--output", counts]].concat())
}

fn cordon_all(office: &Office, is_cordoned: bool) -> Result<()> {
    let verb = if is_cordoned { "cordon" } else { "uncordon" };
    for node in office.cluster.nodes() {
        office.cluster.kubectl(&[verb, &node.to_string()])?;
    }
    Ok(())
}

fn role_stayed(office: &Office, before: &View, after: &View, since: Moment) -> Result<()> {
    let notices = notices_since(&office.cluster, NAMESPACE, NAME, since)?;
    let change = notices
        .iter()
        .find(|notice| matches!(notice.kind.as_str(), "Promoted" | "Demoted"));
    ensure!(
        change.is_none(),
        "the role moved while the API was down: {change:?}"
    );
    ensure!(
        before.status.active == after.status.active
            && before.status.counts.failovers == after.status.counts.failovers,
        "the status tells of a move that was none: active {:?}, then {:?}",
        before.status.active,
        after.status.active
    );
    Ok(())
}

fn restarts_of_active(view: &View) -> Result<u64> {
    let active = view.status.active.as_ref().context("no node is active")?;
    let mut nodes = view.status.nodes.iter();
    let node = nodes
        .find(|node| node.name == *active)
        .context("the active is not among the nodes")?;
    Ok(node.counts.asterisk_restarts)
}
