//! Two nodes' doors in this process, joined by a pipe, and unmodified clients in a mount namespace of their own.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub mod runtime;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pbx_doors::heartbeat::peers::{PeerChannel, border};
use pbx_doors::heartbeat::{Counters, FromPeer, Settings, bind, serve};
use pbx_doors::{View, fixtures};
use pbx_tests::packages::{self, PackageSet};
use tokio::sync::watch;

use runtime::on_a_thread;

/// What clients of Heartbeat need: its own, and what C programs are built with.
const HEARTBEAT: PackageSet = PackageSet {
    purpose: "clients of Heartbeat",
    packages: &[
        "cluster-glue-dev",
        "gcc",
        "heartbeat",
        "libc6-dev",
        "libglib2.0-dev",
        "libheartbeat2-dev",
        "libplumb2-dev",
        "pkg-config",
        "util-linux",
    ],
};
const PATIENCE: Duration = Duration::from_secs(20);
/// `/run` is ours alone: nothing of the machine is touched.
const OWN_RUN: &str = "mount -t tmpfs run /run && mkdir /run/heartbeat && \
                       mount --bind \"$0\" /run/heartbeat && exec \"$@\"";

/// Two nodes, office-0 and office-1, each with its door.
pub struct Nodes {
    folder: tempfile::TempDir,
    views: [watch::Sender<Arc<View>>; 2],
    /// Of each node's door.
    pub counters: [Arc<Counters>; 2],
}

impl Nodes {
    /// Both alive, office-0 the active.
    pub fn start() -> Self {
        packages::ensure(&[HEARTBEAT]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let views = [0, 1].map(|own| watch::Sender::new(Arc::new(view_of(own))));
        let counters = [0, 1].map(|_| Arc::new(Counters::default()));
        let (peers_0, channel_0) = border();
        let (peers_1, channel_1) = border();
        let doors = [peers_0, peers_1]
            .into_iter()
            .enumerate()
            .map(|(own, peers)| {
                let path = folder.path().join(own.to_string()).join("register");
                (path, views[own].subscribe(), peers, counters[own].clone())
            });
        let doors: Vec<_> = doors.collect();
        on_a_thread(async move {
            for (path, view, peers, counters) in doors {
                let listener = bind(&path).unwrap();
                tokio::spawn(serve(listener, Settings::default(), view, peers, counters));
            }
            tokio::spawn(join(channel_0, channel_1));
        });
        Self {
            folder,
            views,
            counters,
        }
    }

    /// Changes what both nodes know.
    pub fn change(&self, change: impl Fn(&mut View)) {
        for view in &self.views {
            view.send_modify(|view| change(Arc::make_mut(view)));
        }
    }

    /// Changes what one node knows.
    pub fn change_on(&self, node: usize, change: impl Fn(&mut View)) {
        self.views[node].send_modify(|view| change(Arc::make_mut(view)));
    }

    /// The socket of a node.
    pub fn socket(&self, node: usize) -> PathBuf {
        self.folder.path().join(node.to_string()).join("register")
    }

    /// A command for which the node's socket is where the library looks.
    pub fn command(&self, node: usize, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", OWN_RUN])
            .arg(self.folder.path().join(node.to_string()))
            .arg("timeout")
            .arg("30")
            .arg(program)
            .args(arguments);
        command
    }

    /// Runs `cl_status` to its end.
    pub fn cl_status(&self, node: usize, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(node, Path::new("/usr/bin/cl_status"), arguments);
        answer_of(&command.output().unwrap())
    }

    /// Starts our client; waits until it is ready, or refused.
    pub fn client(&self, node: usize, name: &str) -> Client {
        let mut command = self.command(node, &compiled_client(), &[name]);
        Client::start(&mut command)
    }
}

fn view_of(own: usize) -> View {
    let mut view = fixtures::two_nodes();
    view.own = own;
    view
}

/// Exit status and what was written, each stream trimmed.
pub fn answer_of(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.code().unwrap_or(-1), text)
}

async fn join(mut zero: PeerChannel, mut one: PeerChannel) {
    loop {
        tokio::select! {
            Some(message) = zero.outgoing.recv() => {
                let message = FromPeer { from: "office-0".into(), body: message.body };
                one.incoming.send(message).await.unwrap();
            }
            Some(message) = one.outgoing.recv() => {
                let message = FromPeer { from: "office-1".into(), body: message.body };
                zero.incoming.send(message).await.unwrap();
            }
            else => return,
        }
    }
}

/// Our client, compiled once.
fn compiled_client() -> PathBuf {
    static CLIENT: OnceLock<PathBuf> = OnceLock::new();
    CLIENT.get_or_init(compile).clone()
}

fn compile() -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("heartbeat_client.{}", std::process::id()));
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "glib-2.0"])
        .output()
        .unwrap();
    let status = Command::new("gcc")
        .args(["-Wall", "-Werror", "-O1", "-o"])
        .arg(&program)
        .arg(fixtures.join("heartbeat_client.c"))
        .arg("-I/usr/include/heartbeat")
        .args(String::from_utf8(flags.stdout).unwrap().split_whitespace())
        .args(["-lhbclient", "-lplumb"])
        .status()
        .unwrap();
    assert!(status.success(), "gcc failed");
    program
}

/// Our client, running.
pub struct Client {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take().unwrap();
        let mut client = Self {
            child,
            input,
            lines,
            seen: Vec::new(),
        };
        client.wait_for(&["ready", "refused"]);
        client
    }

    /// Tells it what to do.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits for a line that begins so.
    pub fn expect(&mut self, beginning: &str) -> String {
        self.wait_for(&[beginning])
    }

    /// What it has said before the last awaited line.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    fn wait_for(&mut self, beginnings: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line)
                    if beginnings
                        .iter()
                        .any(|beginning| line.starts_with(beginning)) =>
                {
                    self.seen.push(line.clone());
                    return line;
                }
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {beginnings:?} after {:#?}", self.seen)
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A test that has failed leaves nobody behind; one that ended in peace finds nobody.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
