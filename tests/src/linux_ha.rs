//! Clients of Linux-HA Heartbeat and of HAAst: Debian's `cl_status` and `api_test`, a C program linked with libhbclient, a Python
//! program written from HAAst's description. Heartbeat's socket is where the library looks, in a mount namespace of the client's own.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::clients::asset;
use crate::packages::{self, PackageSet};
use crate::progress::{Step, output_of};
use crate::tools::{cached, log_path};

/// What clients need: their own, and what C programs are built with.
pub const CLIENTS: PackageSet = PackageSet {
    purpose: "clients of Heartbeat and HAAst",
    packages: &[
        "cluster-glue-dev",
        "gcc",
        "heartbeat",
        "libc6-dev",
        "libglib2.0-dev",
        "libheartbeat2-dev",
        "libplumb2-dev",
        "pkg-config",
        "python3-minimal",
        "socat",
        "util-linux",
    ],
};
/// Debian's test of the client interface; it never ends by itself.
pub const API_TEST: &str = "/usr/libexec/heartbeat/api_test";
/// Part of the name in the cache: changed with the program.
const VERSION: &str = "2";
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any client of a test runs; one that hangs ends.
const LIFETIME: Duration = Duration::from_mins(1);
/// `/run` is the client's alone: nothing of the machine is touched.
const OWN_RUN: &str =
    "mount -t tmpfs run /run && ln -s \"$0\" /run/heartbeat && exec timeout \"$@\"";

/// Installs what is missing.
pub fn ensure() -> Result<()> {
    packages::ensure(&[CLIENTS])
}

/// Makes `command` (such as `ip netns exec`, or nothing but `unshare`) run a client for which `folder` is `/run/heartbeat`.
pub fn with_socket(command: &mut Command, folder: &Path, client: &[&str]) {
    with_socket_for(LIFETIME, command, folder, client);
}

/// The same for a client that ends after `lifetime`.
pub fn with_socket_for(lifetime: Duration, command: &mut Command, folder: &Path, client: &[&str]) {
    command
        .args(["-m", "sh", "-c", OWN_RUN])
        .arg(folder)
        .arg(lifetime.as_secs().to_string())
        .args(client);
}

/// What a client that ends has said, with its exit code.
pub fn answer_of(command: &mut Command) -> Result<(i32, String)> {
    let output = command.output().context("run a client")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((output.status.code().unwrap_or(-1), text))
}

/// Our C program, compiled once.
pub fn compiled() -> Result<PathBuf> {
    let folder = cached(&format!("heartbeat-client-{VERSION}"), |scratch| {
        let step = Step::begin("Heartbeat's C client", "2 s");
        let flags = output_of(Command::new("pkg-config").args(["--cflags", "--libs", "glib-2.0"]))?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-Wall", "-Werror", "-O1", "-o"])
            .arg(scratch.join("heartbeat_client"))
            .arg(asset("heartbeat_client.c"))
            .arg("-I/usr/include/heartbeat")
            .args(flags.split_whitespace())
            .args(["-lhbclient", "-lplumb"]);
        step.run(&mut gcc, &log_path("heartbeat-client")?)?;
        step.done();
        Ok(scratch.to_owned())
    })?;
    Ok(folder.join("heartbeat_client"))
}

/// Asks HAAst's socket with the Python client: `command`, then its `key=value` pairs.
pub fn ask_haast(socket: &Path, arguments: &[&str]) -> Result<Value> {
    ask_haast_at(&socket.to_string_lossy(), arguments)
}

/// The same over TLS; `authority` has signed the door's certificate, which is for its IP address.
pub fn ask_haast_over_tls(
    address: SocketAddr,
    authority: &Path,
    arguments: &[&str],
) -> Result<Value> {
    ask_haast_at(&format!("{address}:{}", authority.display()), arguments)
}

fn ask_haast_at(place: &str, arguments: &[&str]) -> Result<Value> {
    let mut client = Command::new("python3");
    client.arg(asset("haast_client.py")).arg(place);
    let text = output_of(client.args(arguments))?;
    serde_json::from_str(&text).with_context(|| format!("read the client's answer {text}"))
}

/// Our C program, running.
pub struct Client {
    child: Child,
    input: ChildStdin,
    lines: Receiver<(Instant, String)>,
    seen: Vec<String>,
}

impl Client {
    /// Starts it; waits until it is ready, or refused.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("start a client of Heartbeat")?;
        let output = BufReader::new(child.stdout.take().context("the output is a pipe")?);
        let input = child.stdin.take().context("the input is a pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let mut client = Self {
            child,
            input,
            lines,
            seen: Vec::new(),
        };
        client.wait_for(&["ready", "refused"])?;
        Ok(client)
    }

    /// Tells it what to do: see the program's head.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("tell a client of Heartbeat")
    }

    /// Waits for a line that begins so.
    pub fn expect(&mut self, beginning: &str) -> Result<String> {
        Ok(self.wait_for(&[beginning])?.1)
    }

    /// The same, and when it came.
    pub fn expect_at(&mut self, beginning: &str) -> Result<(Instant, String)> {
        self.wait_for(&[beginning])
    }

    /// All that it has said up to the last awaited line.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    fn wait_for(&mut self, beginnings: &[&str]) -> Result<(Instant, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok((at, line)) => {
                    self.seen.push(line.clone());
                    if beginnings
                        .iter()
                        .any(|beginning| line.starts_with(beginning))
                    {
                        return Ok((at, line));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    bail!("no {beginnings:?} after {:#?}", self.seen)
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A client that has ended by itself needs neither.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
