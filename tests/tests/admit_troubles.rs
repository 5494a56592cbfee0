//! What a user gets wrong: a condition and an Event that name the object, retried until it is mended, and the operator never restarts.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use pbx_tests::cluster::{Cluster, wait_until};
use pbx_tests::office::{NAMESPACE, OPERATOR_NAMESPACE};
use pbx_tests::watcher::Watcher;
use support::office;

mod support;

const PATIENCE: Duration = Duration::from_mins(1);
const GOOD_CONFIG: &str =
    r#"{"pjsip.conf": "[udp]\ntype=transport\nprotocol=udp\nbind=0.0.0.0:5060\n"}"#;
/// Asterisk ends when a required module cannot be loaded.
const DEADLY_CONFIG: &str =
    r#"{"modules.conf": "[modules]\nautoload=no\nrequire=res_no_such.so\n"}"#;

/// A telephone system of a test's own, taken away when the test ends.
struct Lab<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    watcher: Watcher,
    operator_restarts: String,
}

impl<'a> Lab<'a> {
    fn apply(cluster: &'a Cluster, name: &'static str, asterisk: &str) -> Self {
        let lab = Self {
            cluster,
            name,
            watcher: Watcher::start(cluster, NAMESPACE, name).unwrap(),
            operator_restarts: operator_restarts(cluster),
        };
        lab.apply_text(&format!(
            r#"{{"apiVersion": "pbxha.dev/v1alpha1", "kind": "PbxCluster", "metadata": {{"name": "{name}"}},
                "spec": {{"asterisk": {asterisk}}}}}"#
        ));
        lab
    }

    fn apply_config(&self, data: &str) {
        self.apply_text(&format!(
            r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{}"}}, "data": {data}}}"#,
            self.name
        ));
    }

    fn apply_text(&self, text: &str) {
        let mut apply = self
            .cluster
            .kubectl_command()
            .args(["apply", "--namespace", NAMESPACE, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = apply.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        assert!(apply.wait().unwrap().success());
    }

    /// Some condition that is not True names `object` and has this reason; an Event too.
    fn assert_told(&self, reason: &str, object: &str) {
        self.watcher
            .wait_until(&format!("{reason} naming {object}"), PATIENCE, |view| {
                view.status.conditions.iter().any(|one| {
                    one.status != "True" && one.reason == reason && one.message.contains(object)
                })
            })
            .unwrap();
        wait_until("an Event", PATIENCE, || {
            Ok(self
                .events()
                .lines()
                .any(|line| line.starts_with(&format!("{reason} ")) && line.contains(object)))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", self.events()));
        assert_eq!(self.operator_restarts, operator_restarts(self.cluster));
    }

    fn events(&self) -> String {
        let of = format!("involvedObject.name={}", self.name);
        let columns = "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}";
        let list = [
            "get",
            "events",
            "--namespace",
            NAMESPACE,
            "--field-selector",
        ];
        self.cluster
            .kubectl(&[&list[..], &[&of, "-o", columns]].concat())
            .unwrap()
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        for kind in ["pbxclusters", "configmap"] {
            let own = ["--namespace", NAMESPACE, "--ignore-not-found"];
            let delete = [&["delete", kind, self.name], &own[..]].concat();
            if let Err(error) = self.cluster.kubectl(&delete) {
                eprintln!("cannot take {} away: {error:#}", self.name);
            }
        }
    }
}

fn operator_restarts(cluster: &Cluster) -> String {
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let list = ["get", "pods", "--namespace", OPERATOR_NAMESPACE, "-o", path];
    cluster.kubectl(&list).unwrap()
}

#[test]
fn missing_config_map_is_named_and_its_arrival_is_noticed() {
    let cluster = &office().cluster;
    let lab = Lab::apply(
        cluster,
        "lab-config",
        r#"{"config": {"configMap": "lab-config"}}"#,
    );
    lab.assert_told("ConfigMapMissing", "lab-config");
    lab.apply_config(GOOD_CONFIG);
    lab.watcher
        .wait_until("Available", PATIENCE, |view| view.status.active.is_some())
        .unwrap();
}

#[test]
fn image_that_cannot_be_pulled_is_named() {
    let cluster = &office().cluster;
    let lab = Lab::apply(
        cluster,
        "lab-image",
        r#"{"image": "localhost/pbx-ha/no-such:1", "config": {"configMap": "lab-image"}}"#,
    );
    lab.apply_config(GOOD_CONFIG);
    lab.assert_told("ImageUnavailable", "localhost/pbx-ha/no-such:1");
}

#[test]
fn asterisk_that_dies_at_once_is_named() {
    let cluster = &office().cluster;
    let lab = Lab::apply(
        cluster,
        "lab-dying",
        r#"{"config": {"configMap": "lab-dying"}}"#,
    );
    lab.apply_config(DEADLY_CONFIG);
    lab.assert_told("AsteriskCrashLoop", "lab-dying-");
}
