//! What the sidecars themselves say, from the logs of their containers as the kubelets keep them on the nodes' disks: readable while
//! the API is down, and without a question to anyone. A notice of the core carries the boot-time moment of its step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::clock::Moment;
use crate::cluster::Cluster;

const CONTAINER: &str = "sidecar";

/// A notice of a node's core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreNotice {
    /// When it was decided.
    pub at: Moment,
    /// The pod.
    pub pod: String,
    /// Its kind, such as Promoted.
    pub kind: String,
    /// Its epoch, where it has one.
    pub epoch: Option<i64>,
    /// All of it.
    pub text: String,
}

/// Every notice at or after `since` of the sidecars of all pods called `name-0`, `name-1`, ... in `namespace`, earlier lives
/// included as far as their logs are kept; sorted by time.
pub fn notices_since(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    since: Moment,
) -> Result<Vec<CoreNotice>> {
    let mut notices = Vec::new();
    for folder in cluster.pod_log_folders()? {
        let Some(pod) = pod_of_folder(&folder, namespace, name) else {
            continue;
        };
        for log in container_logs(&folder.join(CONTAINER)) {
            // A pod that is being removed takes its logs with it.
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            notices.extend(text.lines().filter_map(|line| parse(&pod, line)));
        }
    }
    notices.retain(|notice| notice.at >= since);
    notices.sort_by_key(|notice| notice.at);
    Ok(notices)
}

/// The pod's name, when its log folder (`namespace_pod_uid`) is of this cluster.
fn pod_of_folder(folder: &Path, namespace: &str, name: &str) -> Option<String> {
    let mut parts = folder.file_name()?.to_str()?.split('_');
    let (found, pod) = (parts.next()?, parts.next()?);
    let is_own = found == namespace && pbx_crds::names::seat_of_pod(name, pod).is_some();
    is_own.then(|| pod.to_owned())
}

fn container_logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// A line of the container runtime: time, stream, F or P, then what the process wrote.
fn parse(pod: &str, line: &str) -> Option<CoreNotice> {
    notice_in(pod, line.splitn(4, ' ').nth(3)?)
}

/// The notice of the core in a line that the sidecar of `pod` (or host) wrote, if it is one.
pub fn notice_in(pod: &str, written: &str) -> Option<CoreNotice> {
    let entry: Value = serde_json::from_str(written).ok()?;
    if entry["message"] != "core" {
        return None;
    }
    let text = entry["notice"].as_str()?;
    let kind: String = text
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    Some(CoreNotice {
        at: Moment(entry["boot_ns"].as_u64()?),
        pod: pod.to_owned(),
        kind,
        epoch: number_behind(text, "Epoch("),
        text: text.to_owned(),
    })
}

fn number_behind(text: &str, mark: &str) -> Option<i64> {
    let (_, rest) = text.split_once(mark)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_read_from_the_runtimes_line() {
        let line = r#"2026-01-02T03:04:05.6Z stderr F {"timestamp":"x","level":"INFO","message":"core","notice":"Promoted { epoch: Epoch(5), from: Some(Seat(0)), cause: AsteriskExited, detection_us: 1, promotion_us: 2 }","boot_ns":123}"#;
        let notice = parse("office-1", line).unwrap();
        assert_eq!((notice.kind.as_str(), notice.epoch), ("Promoted", Some(5)));
        assert_eq!(notice.at, Moment(123));
        let other = r#"t stderr F {"message":"core starts","seat":0}"#;
        assert_eq!(parse("office-1", other), None);
        assert_eq!(parse("office-1", "t stderr F no JSON"), None);
    }

    #[test]
    fn folders_of_other_pods_are_passed_over() {
        let of = |folder: &str| pod_of_folder(Path::new(folder), "pbx", "office");
        assert_eq!(of("/x/pbx_office-1_uid").as_deref(), Some("office-1"));
        assert_eq!(of("/x/other_office-1_uid"), None);
        assert_eq!(of("/x/pbx_office-lab-1_uid"), None);
        assert_eq!(of("/x/pbx"), None);
    }
}
