//! A node's death until a Heartbeat client's callback is called: the same C program, here and under the real heartbeat, both with the
//! same keepalive and deadtime. Death begins when the node's cable is cut; its processes are killed right after.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{PATIENCE, TIMING};
use crate::bare_hosts::BareHosts;
use crate::failover::Contender as _;
use crate::failover::heartbeat::Heartbeat;
use crate::linux_ha::{Client, compiled, with_socket_for};

/// Of the real heartbeat: the node that watches, and the one that dies.
const WATCHER: usize = 1;
const VICTIM: usize = 0;
/// Longer than all deaths take.
const LIFETIME: Duration = Duration::from_mins(30);

/// Our hosts, with a client on the last one.
pub struct Ours<'h> {
    hosts: &'h mut BareHosts,
    client: Client,
    deaths: usize,
}

/// Two nodes of the real heartbeat.
pub struct Peer {
    nodes: Heartbeat,
}

impl<'h> Ours<'h> {
    /// Starts the client.
    pub fn new(hosts: &'h mut BareHosts) -> Result<Self> {
        let watcher = hosts.count() - 1;
        let program = compiled()?;
        let program = program.to_str().context("the cache's path is text")?;
        let mut command = hosts.host(watcher).command("unshare");
        let folder = hosts.heartbeat_folder(watcher);
        with_socket_for(LIFETIME, &mut command, &folder, &[program, "-"]);
        Ok(Self {
            client: Client::start(&mut command)?,
            hosts,
            deaths: 0,
        })
    }

    /// The other hosts die in turns, whether active or not; milliseconds.
    pub fn once(&mut self) -> Result<f64> {
        self.hosts.wait_whole(PATIENCE)?;
        let victim = self.deaths % (self.hosts.count() - 1);
        self.deaths += 1;
        let began = Instant::now();
        self.hosts.crash(victim)?;
        let (told_at, _) = self.client.expect_at(&format!("node pbx-{victim} dead"))?;
        self.hosts.boot(victim)?;
        self.client.expect(&format!("node pbx-{victim} active"))?;
        Ok(milliseconds(told_at.duration_since(began)))
    }
}

impl Peer {
    /// Starts both. `responder` is the command of its service.
    pub fn start(name: &str, responder: &[String]) -> Result<Self> {
        let mut nodes = Heartbeat::start(name, responder, TIMING)?;
        nodes.wait_whole()?;
        Ok(Self { nodes })
    }

    /// The nodes.
    pub fn nodes(&self) -> &Heartbeat {
        &self.nodes
    }

    /// Milliseconds. Each death has a client of its own: heartbeat starts anew when a dead node comes back, and ends its clients.
    pub fn once(&mut self) -> Result<f64> {
        for node in [VICTIM, WATCHER] {
            self.nodes.restore(node)?;
        }
        self.nodes.wait_whole()?;
        let mut command: Command = self.nodes.inside(WATCHER)?;
        let mut client = Client::start(command.arg(compiled()?).arg("-"))?;
        let began = Instant::now();
        self.nodes.crash(VICTIM)?;
        let (told_at, _) = client.expect_at(&format!("node node{VICTIM} dead"))?;
        Ok(milliseconds(told_at.duration_since(began)))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
