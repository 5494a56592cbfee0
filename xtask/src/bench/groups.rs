//! What is done to measure the figures: groups of runs that share a cause.

use std::time::{Duration, Instant};

use anyhow::Result;
use pbx_tests::office::{self, Office};
use pbx_tests::scenario::freezes::{Hold, freeze_active};
use pbx_tests::scenario::moves::Move;
use pbx_tests::scenario::{kills, nodes, outages, pods, steady};

use super::measured::Values;

/// The guard holds back a sidecar that dies more than a few times in ten seconds.
const BETWEEN_SIDECAR_KILLS: Duration = Duration::from_secs(3);

/// Runs that share a cause.
pub(super) struct Group {
    /// For `--only`.
    pub(super) name: &'static str,
    /// How often, unless `--runs` says otherwise.
    pub(super) runs: usize,
    /// Whether it runs only when it is asked for.
    pub(super) only_when_asked: bool,
    /// The figures that it gives.
    pub(super) figures: &'static [&'static str],
    /// One run, by its number.
    pub(super) run: fn(&Office, usize) -> Result<Values>,
}

/// All groups, in the order in which they run: the quick ones first.
pub(super) const GROUPS: [Group; 12] = [
    group("apply", 3, &["e2e.apply_available_s"], apply),
    group(
        "kill",
        20,
        &[
            "e2e.kill_promoted_ms",
            "e2e.kill_endpoints_ms",
            "e2e.kill_answer_ms",
            "e2e.kill_answer_kept_ms",
            "e2e.kill_status_ms",
            "e2e.dual",
        ],
        kill,
    ),
    group("sidecar_kill", 20, &["e2e.sidecar_kill"], sidecar_kill),
    group("freeze", 12, &["e2e.dual"], freeze),
    group(
        "operator_down",
        3,
        &["e2e.operator_down", "e2e.dual"],
        operator_down,
    ),
    group(
        "pod_deleted",
        21,
        &["e2e.pod_deleted_gap_ms", "e2e.dual"],
        pod_ended,
    ),
    group(
        "node_off",
        20,
        &["e2e.node_off_promoted_ms", "e2e.dual"],
        node_off,
    ),
    group(
        "api_cut_active",
        3,
        &["e2e.api_cut_active", "e2e.dual"],
        api_cut_active,
    ),
    group(
        "api_cut_standby",
        3,
        &["e2e.api_cut_standby"],
        api_cut_standby,
    ),
    // Last: after an outage of the API server kube-proxy takes up to half a minute to watch it again.
    group("api_blip_alone", 3, &["e2e.api_blip_alone"], api_blip),
    group("api_down", 3, &["e2e.api_down"], api_down),
    Group {
        only_when_asked: true,
        ..group(
            "steady",
            1,
            &["e2e.steady_writes", "e2e.sidecar_mib", "e2e.sidecar_cpu"],
            nothing_happens,
        )
    },
];

const fn group(
    name: &'static str,
    runs: usize,
    figures: &'static [&'static str],
    run: fn(&Office, usize) -> Result<Values>,
) -> Group {
    Group {
        name,
        runs,
        only_when_asked: false,
        figures,
        run,
    }
}

fn apply(office: &Office, _: usize) -> Result<Values> {
    office::remove(&office.cluster)?;
    let applied_at = Instant::now();
    office::apply(&office.cluster)?;
    let available = |view: &pbx_tests::watcher::View| {
        let mut conditions = view.status.conditions.iter();
        conditions.any(|one| one.type_ == "Available" && one.status == "True")
    };
    office
        .watcher
        .wait_until("Available", Duration::from_mins(1), available)?;
    let seconds = applied_at.elapsed().as_secs_f64();
    office.wait_whole()?;
    Ok(vec![("e2e.apply_available_s", seconds)])
}

fn kill(office: &Office, _: usize) -> Result<Values> {
    let found = kills::kill_asterisk(office)?;
    Ok(vec![
        ("e2e.kill_promoted_ms", found.promoted_ms),
        ("e2e.kill_endpoints_ms", found.endpoints_ms),
        ("e2e.kill_answer_ms", found.answer_ms),
        ("e2e.kill_answer_kept_ms", found.answer_kept_ms),
        ("e2e.kill_status_ms", found.status_ms),
        dual(&found),
    ])
}

fn sidecar_kill(office: &Office, _: usize) -> Result<Values> {
    std::thread::sleep(BETWEEN_SIDECAR_KILLS);
    Ok(vec![("e2e.sidecar_kill", kills::kill_sidecar(office)?)])
}

fn freeze(office: &Office, run: usize) -> Result<Values> {
    let hold = [Hold::Freezer, Hold::Signal][run % 2];
    let length = [200, 3000].map(Duration::from_millis)[run / 2 % 2];
    let found = freeze_active(office, hold, length)?;
    Ok(vec![("e2e.dual", count(found.dual))])
}

fn operator_down(office: &Office, _: usize) -> Result<Values> {
    let found = outages::operator_down(office)?;
    Ok(vec![("e2e.operator_down", found.promoted_ms), dual(&found)])
}

fn pod_ended(office: &Office, run: usize) -> Result<Values> {
    let found = match run % 3 {
        0 => pods::delete_active(office),
        1 => pods::roll(office, &format!("run {run}")),
        _ => pods::drain(office),
    }?;
    tell_course(&found)?;
    Ok(vec![("e2e.pod_deleted_gap_ms", found.gap_ms), dual(&found)])
}

fn api_cut_active(office: &Office, _: usize) -> Result<Values> {
    let found = outages::api_cut_from_active(office)?;
    tell_course(&found)?;
    Ok(vec![("e2e.api_cut_active", found.answer_ms), dual(&found)])
}

fn api_cut_standby(office: &Office, _: usize) -> Result<Values> {
    let gap_ms = outages::api_cut_from_standby(office)?;
    Ok(vec![("e2e.api_cut_standby", gap_ms)])
}

fn api_blip(office: &Office, _: usize) -> Result<Values> {
    outages::api_blip_alone(office, Duration::from_secs(5))?;
    Ok(vec![("e2e.api_blip_alone", 0.0)])
}

fn api_down(office: &Office, _: usize) -> Result<Values> {
    let gap_ms = outages::api_down(office, Duration::from_mins(1))?;
    Ok(vec![("e2e.api_down", gap_ms)])
}

fn node_off(office: &Office, _: usize) -> Result<Values> {
    let found = nodes::power_off(office)?;
    tell_course(&found)?;
    Ok(vec![
        ("e2e.node_off_promoted_ms", found.promoted_ms),
        dual(&found),
    ])
}

fn nothing_happens(office: &Office, _: usize) -> Result<Values> {
    let found = steady::observe(office, Duration::from_mins(10))?;
    for write in &found.writes {
        eprintln!("    written in the steady state: {write}");
    }
    let mut values = vec![("e2e.steady_writes", count(found.writes.len()))];
    values.extend(
        found
            .sidecar_mib
            .iter()
            .map(|mib| ("e2e.sidecar_mib", *mib)),
    );
    let cpu = found.sidecar_cpu_s_per_hour.iter();
    values.extend(cpu.map(|seconds| ("e2e.sidecar_cpu", *seconds)));
    Ok(values)
}

/// Where the time went, for whoever finds it long.
fn tell_course(found: &Move) -> Result<()> {
    eprintln!("    {}", serde_json::to_string(found)?);
    Ok(())
}

fn dual(found: &Move) -> (&'static str, f64) {
    ("e2e.dual", count(found.dual))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "fewer than 2^52 things are counted"
)]
fn count(number: usize) -> f64 {
    number as f64
}
