//! HAAst's door under clients that know nothing of this project: one written from the published description, and `socat`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/runtime.rs"]
mod runtime;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pbx_crds::sidecar_doors::TlsFiles;
use pbx_doors::haast::{Door, bind, serve, serve_remote};
use pbx_doors::job::{Action, Refusal, Request};
use pbx_doors::tls::Tls;
use pbx_doors::token::Token;
use pbx_doors::{OnDropped, View, fixtures};
use pbx_tests::certificate::{SelfSigned, self_signed};
use pbx_tests::linux_ha;
use runtime::on_a_thread;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(10);
/// What clients over the network show.
const TOKEN: &str = "0123456789abcdef";

struct Node {
    folder: tempfile::TempDir,
    view: watch::Sender<Arc<View>>,
    tls: SelfSigned,
    /// Where TLS is served.
    address: SocketAddr,
    /// Why clients were dropped.
    dropped: Arc<Mutex<Vec<&'static str>>>,
    /// Actions that came as far as the services.
    asked: Arc<Mutex<Vec<Action>>>,
}

/// A node that begins promotions as job 17 and refuses everything else.
fn start() -> Node {
    linux_ha::ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tls = self_signed(folder.path(), Ipv4Addr::LOCALHOST.into()).unwrap();
    let files = TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    };
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let view = watch::Sender::new(Arc::new(fixtures::two_nodes()));
    let (dropped, asked) = (Arc::default(), Arc::default());
    let (actions, requests) = mpsc::channel::<Request>(4);
    let door = Door {
        view: view.subscribe(),
        actions,
        on_dropped: noting(&dropped),
    };
    let path = folder.path().join("haast.sock");
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    port.set_nonblocking(true).unwrap();
    let address = port.local_addr().unwrap();
    let begun = answer(requests, Arc::clone(&asked));
    on_a_thread(async move {
        tokio::spawn(serve(bind(&path).unwrap(), door.clone()));
        let (token, _) = Token::follow(Some(token));
        let (tls, _) = Tls::follow(files, &[]).unwrap();
        let port = TcpListener::from_std(port).unwrap();
        tokio::spawn(serve_remote(port, tls, token, door));
        tokio::spawn(begun);
    });
    Node {
        folder,
        view,
        tls,
        address,
        dropped,
        asked,
    }
}

fn noting(dropped: &Arc<Mutex<Vec<&'static str>>>) -> OnDropped {
    let dropped = dropped.clone();
    OnDropped::new(move |reason| dropped.lock().unwrap().push(reason))
}

async fn answer(mut requests: mpsc::Receiver<Request>, asked: Arc<Mutex<Vec<Action>>>) {
    while let Some(request) = requests.recv().await {
        asked.lock().unwrap().push(request.action.clone());
        let answer = match request.action {
            Action::Promote => Ok(17),
            _ => Err(Refusal::NotPossible("not here".into())),
        };
        request.reply.send(answer).unwrap();
    }
}

impl Node {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("haast.sock")
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        linux_ha::ask_haast(&self.socket(), arguments).unwrap()
    }

    fn ask_over_tls(&self, arguments: &[&str]) -> Value {
        linux_ha::ask_haast_over_tls(self.address, &self.tls.certificate, arguments).unwrap()
    }

    fn socat(&self, input: &str) -> String {
        let mut child = Command::new("socat")
            .args(["-t1", "-"])
            .arg(format!("UNIX-CONNECT:{}", self.socket().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_client_written_from_the_description_reads_51_keys() {
    let node = start();
    let answer = node.ask(&[]);
    assert_eq!(answer["greeting"], "haast socket interface v1.1\nready>");
    assert_eq!(
        (&answer["id"], &answer["result"]),
        (&"123".into(), &"ok".into())
    );
    let values = answer["values"].as_object().unwrap();
    assert_eq!(values.len(), 51);
    assert_eq!(values["local haast state formatted"], "Active");
    assert_eq!(values["remote haast state formatted"], "Standby");
    node.view.send_modify(|view| {
        let view = Arc::make_mut(view);
        view.nodes[1].is_up = false;
    });
    let answer = node.ask(&[]);
    assert_eq!(answer["values"]["remote data available"], "0");
    assert_eq!(answer["values"]["remote haast state formatted"], "Dead");
}

#[test]
fn actions_are_begun_or_refused_with_a_reason() {
    let node = start();
    let answer = node.ask(&["promote"]);
    assert_eq!(
        (&answer["result"], &answer["values"]["job"]),
        (&"ok".into(), &"17".into())
    );
    let answer = node.ask(&["switchover", "to=office-1"]);
    assert_eq!(answer["result"], "error");
    assert_eq!(answer["values"]["reason"], "NotPossible");
    assert_eq!(answer["values"]["message"], "not here");
}

#[test]
fn socat_is_greeted_and_told_the_valid_commands() {
    let node = start();
    let said = node.socat("YYYY\n\n");
    assert_eq!(
        said,
        "haast socket interface v1.1\nready>\nresult: error\nreason: BadRequest\n\
         message: invalid command\n\
         valid commands: demote, getstatus, help, promote, restart, start, stop, switchover\n\nready>"
    );
    let said = node.socat("command:getstatus\n\nid: 2\ncommand: getstatus\n\n");
    assert_eq!(said.matches("result: ok").count(), 2, "{said}");
    assert_eq!(said.matches("ready>").count(), 3);
}

#[test]
fn a_flood_is_refused_and_closed() {
    let node = start();
    let mut stream = UnixStream::connect(node.socket()).unwrap();
    let mut flood = stream.try_clone().unwrap();
    // It ends when the door closes, long before all is written.
    let writer = std::thread::spawn(move || flood.write_all(&vec![b'x'; 10_000_000]).is_err());
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert!(writer.join().unwrap(), "10 MB were taken");
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains("message: a line is longer than 1000 bytes"),
        "{said}"
    );
}

#[test]
fn over_tls_each_command_needs_the_token() {
    let node = start();
    let token = format!("token={TOKEN}");
    let answer = node.ask_over_tls(&["getstatus", &token]);
    assert_eq!(
        (&answer["id"], &answer["result"]),
        (&"123".into(), &"ok".into())
    );
    assert_eq!(answer["values"].as_object().unwrap().len(), 51);
    let answer = node.ask_over_tls(&["promote", &token]);
    assert_eq!(answer["values"]["job"], "17", "{answer}");
    for arguments in [
        &["demote"][..],
        &["demote", "token=wrong"],
        &["getstatus"],
        &["getstatus", "token="],
    ] {
        let answer = node.ask_over_tls(arguments);
        assert_eq!(answer["result"], "error", "{arguments:?}");
        assert_eq!(answer["values"]["reason"], "BadToken", "{arguments:?}");
    }
    assert_eq!(*node.asked.lock().unwrap(), [Action::Promote]);
    assert_eq!(*node.dropped.lock().unwrap(), ["HaastRefused"; 4]);
}

#[test]
fn over_tcp_without_tls_nobody_is_answered() {
    let node = start();
    let mut plain = TcpStream::connect(node.address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = format!("token: {TOKEN}\ncommand: promote\n\n");
    plain.write_all(asked.as_bytes()).unwrap();
    let mut said = Vec::new();
    // TLS's own alert, or the end of the connection.
    let _ = plain.read_to_end(&mut said);
    assert!(
        !said.windows(5).any(|window| window == b"haast"),
        "{said:?}"
    );
    let began = Instant::now();
    while node.dropped.lock().unwrap().is_empty() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*node.dropped.lock().unwrap(), ["TlsHandshake"]);
    assert!(node.asked.lock().unwrap().is_empty());
}
