//! What the API server says to a `PbxCluster`: each broken rule is refused with its remedy, and every field explains itself.

use std::fs;
use std::process::Stdio;

use pbx_tests::office::{NAMESPACE, repository};
use support::office;

mod support;

#[test]
fn broken_rules_are_refused_with_their_remedy() {
    let cluster = &office().cluster;
    let folder = repository().join("operator/tests/cases");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let text = fs::read_to_string(&case).unwrap();
        let expected = text.lines().next().unwrap();
        let expected = expected.strip_prefix("# expect: ").expect("a first line");
        let output = cluster
            .kubectl_command()
            .args(["apply", "--dry-run=server", "--namespace", NAMESPACE, "-f"])
            .arg(&case)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !said.contains(expected) {
            wrong.push(format!("{}: {said}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn explain_is_the_manual() {
    let cluster = &office().cluster;
    for field in [
        "pbx",
        "pbx.spec.asterisk.config.configMap",
        "pbx.spec.failover.deadtime",
        "pbx.spec.network.service.ports",
        "pbx.status.failoverHistory",
    ] {
        let text = cluster.kubectl(&["explain", field]).unwrap();
        let (_, description) = text.split_once("DESCRIPTION:").expect("a description");
        assert!(description.trim().len() > 20, "{field}: {text}");
        assert!(!description.contains("<empty>"), "{field}: {text}");
    }
}

#[test]
fn list_shows_active_readiness_epoch_and_failovers() {
    let office = office();
    let text = office
        .cluster
        .kubectl(&["get", "pbx", "--namespace", NAMESPACE])
        .unwrap();
    let head = text.lines().next().unwrap();
    for column in ["ACTIVE", "READY", "EPOCH", "FAILOVERS", "LAST-CAUSE", "AGE"] {
        assert!(head.contains(column), "{text}");
    }
    let active = office.active().unwrap();
    assert!(text.contains(&active) && text.contains("1/1"), "{text}");
}
