//! Debian's keepalived: two nodes, a file that says whether the service lives, no preemption.

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Contender;
use super::simple_hosts::{SimpleHosts, TARGET};
use crate::cluster::{Process, wait_until};
use crate::netns::{HOST_LINK, Lan};
use crate::packages;
use crate::progress::tail;

const NODES: u8 = 2;
const WHOLE_LIMIT: Duration = Duration::from_secs(15);
const LAST_LINES: usize = 6;

/// The contender.
#[derive(Debug)]
pub struct Keepalived {
    hosts: SimpleHosts,
    advertise_every: Duration,
}

impl Keepalived {
    /// Starts it. `responder` is the command of the service; keepalived counts in hundredths of a second.
    pub fn start(name: &str, responder: &[String], advertise_every: Duration) -> Result<Self> {
        packages::ensure(&[packages::KEEPALIVED])?;
        let mut this = Self {
            hosts: SimpleHosts::create(name, NODES, responder)?,
            advertise_every,
        };
        for node in 0..usize::from(NODES) {
            let file = this.hosts.home(node).join("keepalived.conf");
            fs::write(&file, this.config(node))
                .with_context(|| format!("write {}", file.display()))?;
            this.start_node(node)?;
        }
        Ok(this)
    }

    fn start_node(&mut self, node: usize) -> Result<()> {
        if !self.hosts.is_running(node, "responder") {
            self.hosts.start_responder(node)?;
            let state = self.hosts.state(node);
            wait_until("the service to live", Duration::from_secs(2), || {
                Ok(fs::read_to_string(&state).is_ok_and(|text| text.trim() == "0"))
            })?;
        }
        if self.hosts.is_running(node, "keepalived") {
            return Ok(());
        }
        // Of a crash: a number that meanwhile belongs to another process keeps it from starting.
        for stale in ["keepalived.pid", "vrrp.pid"] {
            drop(fs::remove_file(self.hosts.home(node).join(stale)));
        }
        let path = |name: &str| {
            self.hosts
                .home(node)
                .join(name)
                .to_string_lossy()
                .into_owned()
        };
        let command = [
            "keepalived".to_owned(),
            "--dont-fork".to_owned(),
            "--log-console".to_owned(),
            "--log-detail".to_owned(),
            "--vrrp".to_owned(),
            format!("--use-file={}", path("keepalived.conf")),
            format!("--pid={}", path("keepalived.pid")),
            format!("--vrrp_pid={}", path("vrrp.pid")),
        ];
        self.hosts.start(node, "keepalived", &command)
    }

    /// Without the limit on real-time work, Debian's child is killed by the kernel on a busy machine.
    fn config(&self, node: usize) -> String {
        let priority = if node == 0 { 150 } else { 100 };
        format!(
            "global_defs {{\n router_id node{node}\n script_user root\n vrrp_version 3\n vrrp_rt_priority 50\n \
             vrrp_rlimit_rttime 2000000\n vrrp_no_swap\n}}\n\
             track_file service {{\n file {}\n weight 0\n}}\n\
             vrrp_instance office {{\n interface {HOST_LINK}\n state BACKUP\n nopreempt\n virtual_router_id 51\n \
             priority {priority}\n advert_int {:.2}\n virtual_ipaddress {{\n  {}/24 dev {HOST_LINK}\n }}\n \
             track_file {{\n  service\n }}\n}}\n",
            self.hosts.state(node).display(),
            self.advertise_every.as_secs_f64(),
            TARGET.ip()
        )
    }

    fn write_state(&self, node: usize, state: &str) -> Result<()> {
        let file = self.hosts.state(node);
        fs::write(&file, format!("{state}\n")).with_context(|| format!("write {}", file.display()))
    }

    /// For the message of a failure.
    fn last_words(&self, node: usize) -> String {
        tail(&self.hosts.home(node).join("keepalived.log"), LAST_LINES)
    }

    fn state(&self, node: usize) -> String {
        let log = self.hosts.log(node, "keepalived");
        let entered = log.rsplit("Entering ").next().unwrap_or_default();
        entered
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Contender for Keepalived {
    fn target(&self) -> SocketAddrV4 {
        TARGET
    }

    fn lan(&self) -> &Lan {
        &self.hosts.lan
    }

    fn wait_whole(&mut self) -> Result<()> {
        wait_until("a master and a backup", WHOLE_LIMIT, || {
            let mut states = [self.state(0), self.state(1)];
            states.sort();
            Ok(states == ["BACKUP", "MASTER"])
        })
        .with_context(|| [0, 1].map(|node| self.last_words(node)).join("\n--\n"))
    }

    fn kill_service(&mut self, node: usize) -> Result<()> {
        self.hosts.kill_responder(node)
    }

    fn crash(&mut self, node: usize) -> Result<()> {
        self.hosts.crash(node)
    }

    /// Its quickest way that is asked for: the tracked file, written by hand.
    fn switch_over(&mut self, node: usize) -> Result<()> {
        self.write_state(node, "1")
    }

    fn restore(&mut self, node: usize) -> Result<()> {
        self.hosts.boot(node)?;
        if self.hosts.is_running(node, "responder") {
            self.write_state(node, "0")?;
        }
        self.start_node(node)
    }

    fn processes(&self, node: usize) -> Result<Vec<Process>> {
        self.hosts.processes(node)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}
