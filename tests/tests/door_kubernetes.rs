//! The doors of pods, each reached by an unmodified client, through a switchover and a failover: the sockets in the shared volume as a
//! neighbour container has them, the ports over the pods' network, the token from its Secret.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pbx_tests::clients::{node, python, said};
use pbx_tests::cluster::{Cluster, NodeId, wait_until};
use pbx_tests::linux_ha::{self, answer_of, ask_haast, with_socket};
use pbx_tests::office::{create_namespace, is_whole, remove_namespace};
use pbx_tests::progress::output_of;
use pbx_tests::watcher::{View, Watcher};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::office;

mod support;

const NAMESPACE: &str = "pbx-doors";
const NAME: &str = "desk";
const TOKEN: &str = "the-token-of-the-desk";
const PATIENCE: Duration = Duration::from_mins(2);
/// Longer than a switchover takes.
const SYSADM_SECONDS: &str = "15";
const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: desk-asterisk}
data:
  extensions.conf: "[default]\nexten => hold,1,Answer()\n same => n,Wait(600)\n"
---
apiVersion: pbxha.dev/v1alpha1
kind: PbxCluster
metadata: {name: desk}
spec:
  asterisk: {config: {configMap: desk-asterisk}}
  doors:
    tokenSecret: desk-doors
    sysadm: {enabled: true}
    droonga: {enabled: true}
    ami: {enabled: true, port: 5038, usersSecret: desk-ami}
"#;
const AMI_USERS: &str =
    "--from-literal=users.yaml=[{name: desk, secret: s3cret, read: all, write: all}]";

/// A telephone system with its doors open; gone with its namespace when this is dropped.
struct Desk<'a> {
    cluster: &'a Cluster,
    watcher: Watcher,
}

/// Where the doors of one of its pods are.
struct Doors {
    /// Clients are on another one: on the pod's own they would come from the bridge's address, and a response goes to who asked only.
    client_node: NodeId,
    address: String,
    /// `/run/pbx-ha` of the sidecar.
    folder: PathBuf,
}

impl<'a> Desk<'a> {
    fn open(cluster: &'a Cluster) -> Self {
        // What a run that failed left behind has other images.
        remove_namespace(cluster, NAMESPACE).unwrap();
        create_namespace(cluster, NAMESPACE).unwrap();
        let token = format!("--from-literal=token={TOKEN}");
        let secret = ["create", "secret", "generic", "desk-doors", &token];
        let users = ["create", "secret", "generic", "desk-ami", AMI_USERS];
        for secret in [secret, users] {
            let create = [&secret[..], &["--namespace", NAMESPACE]].concat();
            cluster.kubectl(&create).unwrap();
        }
        let watcher = Watcher::start(cluster, NAMESPACE, NAME).unwrap();
        cluster
            .apply_text(&["--namespace", NAMESPACE], MANIFEST)
            .unwrap();
        Self { cluster, watcher }
    }

    /// The active's name and the standby's, once both are there.
    fn roles(&self) -> (String, String) {
        let whole = |view: &View| is_whole(&view.status);
        let status = self.watcher.wait_until("a whole system", PATIENCE, whole);
        let status = status.unwrap().status;
        let active = status.active.unwrap();
        let mut names = status.nodes.into_iter().map(|node| node.name);
        let standby = names.find(|name| *name != active).unwrap();
        (active, standby)
    }

    fn wait_active(&self, name: &str) {
        let is_there = |view: &View| view.status.active.as_deref() == Some(name);
        let moved = self.watcher.wait_until("the role", PATIENCE, is_there);
        moved.unwrap();
    }

    fn doors(&self, pod: &str) -> Doors {
        let running = self.cluster.running_pod(NAMESPACE, pod).unwrap();
        let sidecar = running.processes_of("pbx-sidecar").unwrap().remove(0);
        let of = ["get", "pod", pod, "--namespace", NAMESPACE];
        let form = "--output=jsonpath={.status.podIP}";
        let mut nodes = self.cluster.nodes().iter();
        let other = nodes.find(|node| **node != running.node);
        Doors {
            client_node: *other.expect("three nodes"),
            address: self.cluster.kubectl(&[&of[..], &[form]].concat()).unwrap(),
            folder: format!("/proc/{}/root/run/pbx-ha", sidecar.pid).into(),
        }
    }

    /// A program on another node than the pod.
    fn client(&self, doors: &Doors, program: &Path) -> Command {
        let program = program.to_string_lossy();
        self.cluster.command_on(doors.client_node, &program)
    }

    fn curl(&self, doors: &Doors, arguments: &[&str], path: &str) -> String {
        let url = format!("http://{}:8081{path}", doors.address);
        let mut curl = self.client(doors, Path::new("curl"));
        output_of(curl.arg("-s").args(arguments).arg(url)).unwrap()
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        remove_namespace(self.cluster, NAMESPACE).unwrap();
    }
}

#[test]
fn unmodified_clients_reach_every_door_of_a_pod() {
    linux_ha::ensure().unwrap();
    let desk = Desk::open(&office().cluster);
    let (first, second) = desk.roles();
    sockets_tell_the_roles(&desk, &first, &second);

    let sysadm = start_sysadm(&desk, &first);
    refused_without_the_token(&desk, &second);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let asked = ["-X", "POST", "-H", &bearer];
    let begun = desk.curl(&desk.doors(&second), &asked, "/v1/actions/switchover");
    println!("{begun}");
    desk.wait_active(&second);
    assert_eq!(desk.roles(), (second.clone(), first.clone()));
    sockets_tell_the_roles(&desk, &second, &first);
    fluentd_loggers_are_answered(&desk, &first);
    // By the standby's hub, at the active's Asterisk.
    asterisk_manager_is_served(&desk, &first);
    sysadm_was_told(sysadm);

    let pod = desk.cluster.running_pod(NAMESPACE, &second).unwrap();
    let asterisk = pod.processes_of("asterisk").unwrap().remove(0);
    asterisk.signal(Signal::KILL).unwrap();
    desk.wait_active(&first);
    assert_eq!(desk.roles(), (first.clone(), second.clone()));
    sockets_tell_the_roles(&desk, &first, &second);
    http_tells(&desk, &first, &second);
}

fn sockets_tell_the_roles(desk: &Desk, active: &str, standby: &str) {
    for (own, other, held) in [(active, standby, "all"), (standby, active, "none")] {
        let doors = desk.doors(own);
        let cl_status = |arguments: &[&str]| {
            let mut command = Command::new("unshare");
            let client = [&["cl_status"], arguments].concat();
            with_socket(&mut command, &doors.folder.join("heartbeat"), &client);
            answer_of(&mut command).unwrap()
        };
        assert_eq!(cl_status(&["rscstatus"]), (0, held.into()), "{own}");
        let of_other = cl_status(&["nodestatus", other]);
        assert_eq!(of_other, (0, "active".into()), "{other} lives");

        let answer = ask_haast(&doors.folder.join("haast.sock"), &[]).unwrap();
        let state = if own == active { "Active" } else { "Standby" };
        let told = &answer["values"]["local haast state formatted"];
        assert_eq!(told, state, "{answer}");
    }
}

fn start_sysadm(desk: &Desk, pod: &str) -> Child {
    let [interpreter, script] = python("sysadm.py").unwrap();
    let doors = desk.doors(pod);
    let url = format!("ws://{}:8081/sysadm", doors.address);
    let mut client = desk.client(&doors, &interpreter);
    client.arg(script).args([&url, TOKEN, SYSADM_SECONDS]);
    client.stdout(Stdio::piped()).spawn().unwrap()
}

/// The job of the switchover, as the active of before told it.
fn sysadm_was_told(client: Child) {
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "the client failed");
    let text = String::from_utf8(output.stdout).unwrap();
    for state in ["pending", "running", "finished"] {
        assert!(text.contains(&format!("\"state\":\"{state}\"")), "{text}");
    }
}

fn refused_without_the_token(desk: &Desk, pod: &str) {
    let asked = ["-X", "POST", "-o", "/dev/null", "-w", "%{http_code}"];
    let status = desk.curl(&desk.doors(pod), &asked, "/v1/actions/switchover");
    assert_eq!(status, "401");
}

fn fluentd_loggers_are_answered(desk: &Desk, pod: &str) {
    let doors = desk.doors(pod);
    let own = desk.cluster.address_of(doors.client_node).to_string();
    let [interpreter, script] = python("ask_droonga.py").unwrap();
    let mut client = desk.client(&doors, &interpreter);
    let lines = said(client.arg(script).args([&*doors.address, "10031", &*own])).unwrap();
    let told: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(told["record"]["type"], "system.status.result");

    let [script, packages] = node("ask_droonga.js").unwrap();
    let mut client = desk.client(&doors, Path::new("node"));
    client.env("NODE_PATH", packages).arg(script);
    let lines = said(client.args([&*doors.address, "10031", &*own])).unwrap();
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(last["seen"], json!(["Message", "Forward", "PackedForward"]));
}

fn asterisk_manager_is_served(desk: &Desk, pod: &str) {
    let doors = desk.doors(pod);
    let [script, packages] = node("ask_asterisk_manager.js").unwrap();
    let mut client = desk.client(&doors, Path::new("node"));
    client.env("NODE_PATH", packages).arg(script);
    let lines = said(client.args([&*doors.address, "5038", "desk", "s3cret"])).unwrap();
    assert_eq!(lines, ["asterisk-manager: ok"]);
}

fn http_tells(desk: &Desk, active: &str, standby: &str) {
    let doors = desk.doors(standby);
    let status: Value = serde_json::from_str(&desk.curl(&doors, &[], "/v1/status")).unwrap();
    assert_eq!(status["active"], active, "{status}");
    let identifier = format!("{}:10031/droonga", desk.doors(active).address);
    wait_until("Droonga's status of the active", PATIENCE, || {
        let body = desk.curl(&doors, &[], "/droonga/system/status");
        let body: Value = serde_json::from_str(&body)?;
        Ok(body["nodes"][&identifier]["status"] == "active")
    })
    .unwrap();
    let metrics = desk.curl(&doors, &[], "/metrics");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}
