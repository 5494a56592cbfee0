//! Nothing happens: what is written to the API all the same, and what the sidecars cost.

use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Process, TICKS_PER_SECOND};
use crate::office::{NAME, Office, RELEASE};

const KIB_PER_MIB: f64 = 1024.0;
/// A start, or a move, is over by then: a sidecar gives back the memory of its start after a minute.
pub const SETTLED: Duration = Duration::from_secs(75);

/// A time in which nothing happened.
#[derive(Clone, Debug)]
pub struct Steady {
    /// Writes by operator and sidecars, and to the telephone system's objects by anyone, the operator's leader election apart.
    pub writes: Vec<String>,
    /// Memory of each sidecar at the end, in MiB.
    pub sidecar_mib: Vec<f64>,
    /// Processor seconds an hour of each sidecar.
    pub sidecar_cpu_s_per_hour: Vec<f64>,
}

/// Watches a whole system for `length`.
pub fn observe(office: &Office, length: Duration) -> Result<Steady> {
    office.wait_whole()?;
    std::thread::sleep(SETTLED);
    office.wait_whole()?;
    let audit = office.cluster.layout().audit_log();
    let begin = fs::metadata(&audit).context("find the audit log")?.len();
    let sidecars = sidecars(office)?;
    let ticks: Vec<f64> = sidecars.iter().map(cpu_seconds).collect::<Result<_>>()?;
    let started_at = Instant::now();
    std::thread::sleep(length);
    let hours = started_at.elapsed().as_secs_f64() / 3600.0;
    let mut cpu = Vec::new();
    for (process, before) in sidecars.iter().zip(ticks) {
        cpu.push((cpu_seconds(process)? - before) / hours);
    }
    Ok(Steady {
        writes: writes_since(&audit, begin)?,
        sidecar_mib: sidecars.iter().map(resident_mib).collect::<Result<_>>()?,
        sidecar_cpu_s_per_hour: cpu,
    })
}

fn sidecars(office: &Office) -> Result<Vec<Process>> {
    let mut names = office.standbys()?;
    names.push(office.active()?);
    let mut found = Vec::new();
    for name in names {
        found.extend(office.pod(&name)?.processes_of("pbx-sidecar")?);
    }
    ensure!(!found.is_empty(), "no sidecar runs");
    Ok(found)
}

/// The audit log holds writes only.
fn writes_since(audit: &std::path::Path, begin: u64) -> Result<Vec<String>> {
    let mut file = fs::File::open(audit).context("open the audit log")?;
    file.seek(SeekFrom::Start(begin))
        .context("read the audit log")?;
    let mut writes = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.context("read the audit log")?;
        let event: Value = serde_json::from_str(&line).context("read the audit log")?;
        writes.extend(own_write(&event));
    }
    Ok(writes)
}

/// A line for people when a write is ours or about us.
fn own_write(event: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let user = text(&event["user"]["username"]);
    let target = &event["objectRef"];
    let (resource, name) = (text(&target["resource"]), text(&target["name"]));
    let is_own_user = user.contains(&format!("{RELEASE}-operator"))
        || user.contains(&pbx_crds::names::sidecar_account(NAME));
    let is_own_object = resource == "pbxclusters" || name.starts_with(NAME);
    let is_election = resource == "leases" && name == format!("{RELEASE}-operator");
    // Kubelets renew the tokens of pods, which creates nothing.
    let is_token = target["subresource"] == "token";
    if !(is_own_user || is_own_object) || is_election || is_token {
        return None;
    }
    Some(format!(
        "{} {resource}/{name} by {user}",
        text(&event["verb"])
    ))
}

fn cpu_seconds(process: &Process) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid))
        .context("the sidecar was restarted in the steady time")?;
    ticks_in(&stat)
        .map(|ticks| f64::from(ticks) / f64::from(TICKS_PER_SECOND))
        .context("read the sidecar's processor time")
}

/// User and system time: fields 14 and 15 of proc(5); the state, behind the name, is field 3.
fn ticks_in(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn resident_mib(process: &Process) -> Result<f64> {
    let kib = process.memory_kib("VmRSS");
    Ok(kib.context("the sidecar was restarted in the steady time")? / KIB_PER_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(user: &str, resource: &str, name: &str) -> Value {
        json!({ "verb": "patch", "user": { "username": user }, "objectRef": { "resource": resource, "name": name } })
    }

    #[test]
    fn own_writes_count_and_elections_do_not() {
        let operator = "system:serviceaccount:pbx-ha-system:pbx-ha-operator";
        let sidecar = "system:serviceaccount:pbx:office-sidecar";
        assert!(own_write(&event(operator, "pbxclusters", "office")).is_some());
        assert!(own_write(&event(sidecar, "leases", "office-witness")).is_some());
        assert!(own_write(&event("system:node:node-1", "pods", "office-0")).is_some());
        assert!(own_write(&event(operator, "leases", "pbx-ha-operator")).is_none());
        assert!(own_write(&event("system:node:node-1", "leases", "node-1")).is_none());
    }

    #[test]
    fn processor_time_is_read_past_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 1 0 4242 1000 5 0";
        assert_eq!(ticks_in(stat), Some(300));
        assert!(ticks_in("7 (a) S").is_none());
    }
}
