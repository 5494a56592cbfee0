//! Linux-HA heartbeat 3 with its own resource management: two nodes, one address. It does not watch its service, so
//! a killed one is nobody's business.

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Contender;
use super::simple_hosts::{SimpleHosts, TARGET, inside};
use crate::cluster::{Process, wait_until};
use crate::netns::{HOST_LINK, Lan};
use crate::packages;
use crate::progress::output_of;

const NODES: usize = 2;
const WHOLE_LIMIT: Duration = Duration::from_mins(1);
/// Its program that gives all resources to the other node.
const HB_STANDBY: &str = "/usr/share/heartbeat/hb_standby";
/// What it has for itself. `$1` is the host's folder.
const OWN: &str = r#"
mkdir -p /run/heartbeat/ccm /run/heartbeat/crm /run/heartbeat/dopd /run/heartbeat/rsctmp
chown hacluster:haclient /run/heartbeat/ccm /run/heartbeat/crm /run/heartbeat/dopd
mount --bind "$1/ha.d" /etc/ha.d
mount --bind "$1/state" /var/lib/heartbeat
exec /usr/libexec/heartbeat/heartbeat
"#;

/// How often nodes beat, and when silence is death; in heartbeat's words.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two beats.
    pub keepalive: &'static str,
    /// Silence that is late.
    pub warntime: &'static str,
    /// Silence that is death.
    pub deadtime: &'static str,
}

/// The contender.
#[derive(Debug)]
pub struct Heartbeat {
    hosts: SimpleHosts,
}

impl Heartbeat {
    /// Starts it. `responder` is the command of the service.
    pub fn start(name: &str, responder: &[String], timing: Timing) -> Result<Self> {
        packages::ensure(&[packages::HEARTBEAT])?;
        let mut this = Self {
            hosts: SimpleHosts::create(name, NODES as u8, responder)?,
        };
        for node in 0..NODES {
            this.configure(node, timing)?;
            this.start_node(node)?;
        }
        Ok(this)
    }

    fn configure(&self, node: usize, timing: Timing) -> Result<()> {
        let Timing {
            keepalive,
            warntime,
            deadtime,
        } = timing;
        let home = self.hosts.home(node);
        for (from, to) in [("/etc/ha.d", "ha.d"), ("/var/lib/heartbeat", "state")] {
            let mut copy = Command::new("cp");
            output_of(copy.arg("-a").arg(from).arg(home.join(to)))?;
        }
        let peer = self.hosts.lan.hosts()[1 - node].address;
        let settings = format!(
            "logfile {}\nlogfacility none\nkeepalive {keepalive}\ndeadtime {deadtime}\nwarntime {warntime}\ninitdead 5\nudpport 694\n\
             ucast {HOST_LINK} {peer}\nauto_failback off\nnode node0\nnode node1\n",
            home.join("ha.log").display()
        );
        let resources = format!("node0 IPaddr2::{}/24/{HOST_LINK}\n", TARGET.ip());
        let files = [
            ("ha.cf", settings.as_str()),
            ("haresources", &resources),
            ("authkeys", "auth 1\n1 crc\n"),
        ];
        for (file, text) in files {
            let path = home.join("ha.d").join(file);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .context("protect the keys")?;
        }
        Ok(())
    }

    fn start_node(&mut self, node: usize) -> Result<()> {
        if !self.hosts.is_running(node, "responder") {
            self.hosts.start_responder(node)?;
        }
        if self.daemons(node)?.is_empty() {
            self.hosts.start_enclosed(node, "heartbeat", OWN)?;
        }
        Ok(())
    }

    fn daemons(&self, node: usize) -> Result<Vec<Process>> {
        let mut processes = self.hosts.processes(node)?;
        processes.retain(|process| {
            process
                .arguments
                .first()
                .is_some_and(|name| name.starts_with("heartbeat"))
        });
        Ok(processes)
    }

    fn daemon(&self, node: usize) -> Result<Process> {
        let first = self.daemons(node)?.into_iter().next();
        first.context("heartbeat does not run")
    }

    /// A command that will run where its socket is: its words are still missing.
    pub fn inside(&self, node: usize) -> Result<Command> {
        Ok(inside(&self.daemon(node)?))
    }

    fn status(&self, node: usize, question: &[&str]) -> Result<String> {
        let mut ask = self.inside(node)?;
        let output = ask.arg("cl_status").args(question).output();
        let output = output.context("ask heartbeat")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Contender for Heartbeat {
    fn target(&self) -> SocketAddrV4 {
        TARGET
    }

    fn lan(&self) -> &Lan {
        &self.hosts.lan
    }

    fn wait_whole(&mut self) -> Result<()> {
        wait_until("both nodes of heartbeat", WHOLE_LIMIT, || {
            std::thread::sleep(Duration::from_millis(100));
            let sees = |node: usize| {
                let peer = format!("node{}", 1 - node);
                let is_seen = self
                    .status(node, &["nodestatus", &peer])
                    .is_ok_and(|status| status == "active");
                let held = self.status(node, &["rscstatus"]).unwrap_or_default();
                (is_seen, held)
            };
            let (first, second) = (sees(0), sees(1));
            let mut held = [first.1.as_str(), second.1.as_str()];
            held.sort_unstable();
            // Whose own resources are none holds its own too.
            Ok(first.0 && second.0 && matches!(held, ["all", "none"] | ["local", "local"]))
        })
    }

    fn kill_service(&mut self, node: usize) -> Result<()> {
        self.hosts.kill_responder(node)
    }

    fn crash(&mut self, node: usize) -> Result<()> {
        self.hosts.crash(node)
    }

    fn switch_over(&mut self, node: usize) -> Result<()> {
        let daemon = self.daemon(node)?;
        output_of(inside(&daemon).args([HB_STANDBY, "all"])).map(drop)
    }

    fn restore(&mut self, node: usize) -> Result<()> {
        // One that gave up by itself in the middle of a run is ended whole, and started again.
        if self.daemons(node)?.len() < 2 {
            for daemon in self.daemons(node)? {
                daemon.signal(Signal::KILL).ok();
            }
        }
        self.hosts.boot(node)?;
        self.start_node(node)
    }

    fn processes(&self, node: usize) -> Result<Vec<Process>> {
        self.hosts.processes(node)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}
