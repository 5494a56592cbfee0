//! Hosts of a system that is no pbx-ha: on each a responder that is restarted by nobody, and the system's own programs, enclosed
//! where they want a machine of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::broadcast_neighbour;
use crate::cluster::Process;
use crate::netns::{HOST_LINK, Lan, processes_in};
use crate::progress::output_of;

/// The floating address of all of them.
pub(super) const TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 67, 200), 5060);
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 67, 0);
/// A machine of its own as far as a program looks: its name, and an empty `/run`. What is to be hidden as well follows. `$1` is the
/// host's folder, `$2` its name.
const ENCLOSURE: &str = r#"
set -e
hostname "$2"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/resource-agents
"#;
/// What an enclosed program has for itself, the network left out: as `unshare` and `nsenter` take it.
const ENCLOSED: [&str; 3] = ["--mount", "--uts", "--ipc"];

/// Hosts with their processes, all gone when dropped.
#[derive(Debug)]
pub(super) struct SimpleHosts {
    pub(super) lan: Lan,
    pub(super) folder: PathBuf,
    nodes: usize,
    responder: Vec<String>,
    children: BTreeMap<(usize, String), Child>,
    crashed: BTreeSet<usize>,
}

impl SimpleHosts {
    /// `responder` is the command of the service; it gets the address as its last argument.
    pub(super) fn create(name: &str, nodes: u8, responder: &[String]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("pbxha-{name}"));
        // What a run that was killed left behind.
        fs::remove_dir_all(&folder).ok();
        let hosts = Self {
            lan: Lan::create(name, NETWORK, nodes + 2)?,
            folder,
            nodes: usize::from(nodes),
            responder: responder.to_vec(),
            children: BTreeMap::new(),
            crashed: BTreeSet::new(),
        };
        for node in 0..hosts.nodes {
            let home = hosts.home(node);
            fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        }
        broadcast_neighbour(&hosts.lan, TARGET)?;
        Ok(hosts)
    }

    pub(super) fn home(&self, node: usize) -> PathBuf {
        self.folder.join(node.to_string())
    }

    /// The file that says whether the service of a node lives: `0`, and `1` when it has died.
    pub(super) fn state(&self, node: usize) -> PathBuf {
        self.home(node).join("service.state")
    }

    /// Starts the responder of a node; a shell writes down its end, as the quickest of watchers would.
    pub(super) fn start_responder(&mut self, node: usize) -> Result<()> {
        let script =
            r#"state=$1; shift; "$@" & child=$!; echo 0 >"$state"; wait $child; echo 1 >"$state""#;
        let state = self.state(node).to_string_lossy().into_owned();
        let mut command = vec![
            "sh".to_owned(),
            "-c".to_owned(),
            script.to_owned(),
            "sh".to_owned(),
            state,
        ];
        command.extend(self.responder.iter().cloned());
        command.push(TARGET.to_string());
        self.start(node, "responder", &command)
    }

    /// Starts a program on a node.
    pub(super) fn start(&mut self, node: usize, name: &str, command: &[String]) -> Result<()> {
        let log = self.home(node).join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("share the log")?;
        let mut started = self.lan.hosts()[node].command(&command[0]);
        started
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = started.spawn().with_context(|| format!("start {name}"))?;
        self.children.insert((node, name.to_owned()), child);
        Ok(())
    }

    /// Starts a program of a node in a machine of its own: `script` mounts what it wants to have for itself, and ends in `exec`.
    pub(super) fn start_enclosed(&mut self, node: usize, name: &str, script: &str) -> Result<()> {
        let home = self.home(node).to_string_lossy().into_owned();
        let script = format!("{ENCLOSURE}{script}");
        let of_host = format!("node{node}");
        let shell = ["sh", "-c", &script, "sh", &home, &of_host];
        let words = [&["unshare"], &ENCLOSED[..], &shell[..]].concat();
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        self.start(node, name, &words)
    }

    /// Whether what was started under this name still runs.
    pub(super) fn is_running(&mut self, node: usize, name: &str) -> bool {
        let child = self.children.get_mut(&(node, name.to_owned()));
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(super) fn log(&self, node: usize, name: &str) -> String {
        fs::read_to_string(self.home(node).join(format!("{name}.log"))).unwrap_or_default()
    }

    pub(super) fn processes(&self, node: usize) -> Result<Vec<Process>> {
        processes_in(&self.lan.hosts()[node].namespace)
    }

    /// Kills the service itself, not its shell.
    pub(super) fn kill_responder(&self, node: usize) -> Result<()> {
        let is_service = |process: &&Process| process.arguments.first() == self.responder.first();
        let processes = self.processes(node)?;
        let service = processes
            .iter()
            .find(is_service)
            .context("no responder runs")?;
        service.signal(Signal::KILL)
    }

    pub(super) fn crash(&mut self, node: usize) -> Result<()> {
        self.crashed.insert(node);
        self.lan.hosts()[node].cut()?;
        for process in self.processes(node)? {
            process.signal(Signal::KILL).ok();
        }
        for ((_, _), child) in self.children.iter_mut().filter(|((of, _), _)| *of == node) {
            child.wait().context("wait for a killed program")?;
        }
        Ok(())
    }

    /// After a crash: the cable, and no address that a machine would not have after its boot. Otherwise nothing.
    pub(super) fn boot(&mut self, node: usize) -> Result<()> {
        if !self.crashed.remove(&node) {
            return Ok(());
        }
        let host = &self.lan.hosts()[node];
        let floating = format!("{}/24", TARGET.ip());
        // Absent is as good.
        output_of(
            host.command("ip")
                .args(["addr", "del", &floating, "dev", HOST_LINK]),
        )
        .ok();
        host.heal()
    }

    fn end(&mut self) {
        for child in self.children.values_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        for node in 0..self.nodes {
            for process in self.processes(node).unwrap_or_default() {
                process.signal(Signal::KILL).ok();
            }
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Drop for SimpleHosts {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command that will run where an enclosed program does.
pub(super) fn inside(program: &Process) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &program.pid.to_string(), "--net"])
        .args(ENCLOSED);
    command
}
