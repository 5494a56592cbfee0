//! Corosync and Pacemaker: three nodes, of which the third only votes; one address and a service that is watched every second; no
//! fencing, as in most small installations. The token time is 300 ms.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
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

/// The two that may serve come first.
const NODES: usize = 3;
const SERVING: usize = 2;
const WHOLE_LIMIT: Duration = Duration::from_mins(2);
/// Longest that one of its own programs may think.
const ANSWER_SECONDS: &str = "10";
/// What the two have for themselves. `$1` is the host's folder.
const OWN: &str = r#"
mkdir -p /run/crm
chown hacluster:haclient /run/crm
for folder in etc/corosync var/lib/corosync var/lib/pacemaker usr/lib/ocf/resource.d var/log; do
    mount --bind "$1/$folder" "/$folder"
done
corosync -f &
until corosync-quorumtool -s >/run/quorum 2>&1; do sleep 0.1; done
exec pacemakerd
"#;
/// The service is not this agent's to start: it tells whether the responder lives. `@STATE@` is the folder of the host.
const AGENT: &str = r#"#!/bin/sh
lives() { [ "$(cat @STATE@/service.state 2>/dev/null)" = 0 ]; }
case "$1" in
meta-data)
    cat <<END
<?xml version="1.0"?><!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="responder"><version>1.0</version><longdesc lang="en">r</longdesc><shortdesc lang="en">r</shortdesc><parameters/>
<actions><action name="start" timeout="20s"/><action name="stop" timeout="20s"/><action name="monitor" timeout="20s" interval="1s"/>
<action name="meta-data" timeout="5s"/></actions></resource-agent>
END
    ;;
start) lives && touch @STATE@/started || exit 1 ;;
stop) rm -f @STATE@/started ;;
monitor) [ -e @STATE@/started ] || exit 7; lives || { rm -f @STATE@/started; exit 7; } ;;
*) exit 3 ;;
esac
exit 0
"#;

/// The contender.
#[derive(Debug)]
pub struct Pacemaker {
    hosts: SimpleHosts,
}

impl Pacemaker {
    /// Starts it. `responder` is the command of the service.
    pub fn start(name: &str, responder: &[String]) -> Result<Self> {
        packages::ensure(&[packages::PACEMAKER])?;
        let mut this = Self {
            hosts: SimpleHosts::create(name, NODES as u8, responder)?,
        };
        for node in 0..NODES {
            this.prepare(node)?;
            this.start_node(node)?;
        }
        this.configure()?;
        Ok(this)
    }

    fn prepare(&self, node: usize) -> Result<()> {
        let home = self.hosts.home(node);
        for folder in [
            "etc/corosync",
            "var/lib/corosync",
            "var/lib/pacemaker",
            "usr/lib/ocf/resource.d",
        ] {
            let parent = home.join(folder);
            let parent = parent.parent().context("a folder has a parent")?;
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            let mut copy = Command::new("cp");
            output_of(copy.arg("-a").arg(Path::new("/").join(folder)).arg(parent))?;
        }
        let logs = home.join("var/log/pacemaker");
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        output_of(
            Command::new("chown")
                .args(["-R", "hacluster:haclient"])
                .arg(&logs),
        )?;
        fs::write(home.join("etc/corosync/corosync.conf"), self.corosync())
            .context("write corosync.conf")?;
        let agents = home.join("usr/lib/ocf/resource.d/pbxha");
        fs::create_dir_all(&agents).context("create the folder of the agent")?;
        let agent = agents.join("responder");
        fs::write(&agent, AGENT.replace("@STATE@", &home.to_string_lossy()))
            .context("write the agent")?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))
            .context("make the agent a program")
    }

    fn corosync(&self) -> String {
        let node = |number: usize| {
            let address = self.hosts.lan.hosts()[number].address;
            format!(
                "  node {{\n    ring0_addr: {address}\n    name: node{number}\n    nodeid: {}\n  }}\n",
                number + 1
            )
        };
        let nodes: String = (0..NODES).map(node).collect();
        format!(
            "totem {{\n  version: 2\n  cluster_name: pbxha\n  transport: udpu\n  token: 300\n  token_coefficient: 0\n}}\n\
             nodelist {{\n{nodes}}}\nquorum {{\n  provider: corosync_votequorum\n}}\n\
             logging {{\n  to_stderr: no\n  to_syslog: no\n  to_logfile: yes\n  logfile: /var/log/corosync.log\n}}\n"
        )
    }

    fn start_node(&mut self, node: usize) -> Result<()> {
        if node < SERVING && !self.hosts.is_running(node, "responder") {
            self.hosts.start_responder(node)?;
        }
        if !self.runs(node, "pacemakerd")? {
            self.hosts.start_enclosed(node, "pacemaker", OWN)?;
        }
        Ok(())
    }

    fn runs(&self, node: usize, program: &str) -> Result<bool> {
        let mut processes = self.hosts.processes(node)?.into_iter();
        Ok(processes.any(|process| process.program() == program))
    }

    fn configure(&self) -> Result<()> {
        wait_until("all nodes of pacemaker", WHOLE_LIMIT, || {
            std::thread::sleep(Duration::from_millis(500));
            let told = self.ask(0, &["crm_mon", "-1"]).unwrap_or_default();
            Ok(told.contains("Online: [ node0 node1 node2 ]"))
        })?;
        for (scope, xml) in cib() {
            wait_until("pacemaker to take its configuration", WHOLE_LIMIT, || {
                let replaced = self.ask(
                    0,
                    &[
                        "cibadmin",
                        "--modify",
                        "--allow-create",
                        "-o",
                        scope,
                        "--xml-text",
                        &xml,
                    ],
                );
                let is_taken = replaced.is_ok();
                if !is_taken {
                    std::thread::sleep(Duration::from_millis(500));
                }
                Ok(is_taken)
            })
            .with_context(|| format!("configure {scope}"))?;
        }
        Ok(())
    }

    /// Asked inside, where its sockets are.
    fn ask(&self, node: usize, words: &[&str]) -> Result<String> {
        let mut processes = self.hosts.processes(node)?.into_iter();
        let daemon = processes.find(|process| process.program() == "pacemakerd");
        let daemon = daemon.with_context(|| format!("pacemaker does not run on node {node}"))?;
        let mut ask = inside(&daemon);
        ask.args(["timeout", "-k", "1", ANSWER_SECONDS]).args(words);
        output_of(&mut ask)
    }
}

impl Contender for Pacemaker {
    fn target(&self) -> SocketAddrV4 {
        TARGET
    }

    fn lan(&self) -> &Lan {
        &self.hosts.lan
    }

    fn wait_whole(&mut self) -> Result<()> {
        wait_until("a whole pacemaker", WHOLE_LIMIT, || {
            std::thread::sleep(Duration::from_millis(300));
            // The third always runs.
            let told = self
                .ask(NODES - 1, &["crm_mon", "-1", "-n"])
                .unwrap_or_default();
            let online = told.matches(": online").count();
            let services = told
                .lines()
                .filter(|line| line.contains("responder") && line.contains("Started"))
                .count();
            let addresses = told
                .lines()
                .filter(|line| line.contains("IPaddr2") && line.contains("Started"))
                .count();
            if told.contains("Failed Resource Actions") {
                self.ask(NODES - 1, &["crm_resource", "--cleanup"]).ok();
                return Ok(false);
            }
            Ok((online, services, addresses) == (NODES, SERVING, 1))
        })
    }

    fn kill_service(&mut self, node: usize) -> Result<()> {
        self.hosts.kill_responder(node)
    }

    fn crash(&mut self, node: usize) -> Result<()> {
        self.hosts.crash(node)
    }

    fn switch_over(&mut self, node: usize) -> Result<()> {
        let to = format!("node{}", SERVING - 1 - node);
        let move_it = ["crm_resource", "--resource", "vip", "--move", "--node", &to];
        self.ask(NODES - 1, &move_it).map(drop)
    }

    fn restore(&mut self, node: usize) -> Result<()> {
        // What a switchover wrote down: it would hold the address where it is for good.
        self.ask(NODES - 1, &["crm_resource", "--resource", "vip", "--clear"])
            .ok();
        // One that gave up by itself in the middle of a run is ended whole, and started again.
        if !self.runs(node, "corosync")? || !self.runs(node, "pacemakerd")? {
            for process in self.hosts.processes(node)? {
                let is_service = process
                    .arguments
                    .iter()
                    .any(|word| word.contains("responder"));
                if !is_service {
                    process.signal(Signal::KILL).ok();
                }
            }
        }
        self.hosts.boot(node)?;
        self.start_node(node)
    }

    fn processes(&self, node: usize) -> Result<Vec<Process>> {
        self.hosts.processes(node)
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }
}

/// The service is a clone on both nodes that may serve, the address runs with a living one.
fn cib() -> [(&'static str, String); 4] {
    let pair = |of: &str, name: &str, value: &str| {
        format!("<nvpair id=\"{of}-{name}\" name=\"{name}\" value=\"{value}\"/>")
    };
    let meta = |of: &str, pairs: &[(&str, &str)]| {
        let pairs: String = pairs
            .iter()
            .map(|(name, value)| pair(of, name, value))
            .collect();
        format!("<meta_attributes id=\"{of}-meta\">{pairs}</meta_attributes>")
    };
    let quick = [("migration-threshold", "1"), ("failure-timeout", "10s")];
    let ip: Ipv4Addr = *TARGET.ip();
    let address = format!(
        "<primitive id=\"vip\" class=\"ocf\" provider=\"heartbeat\" type=\"IPaddr2\"><instance_attributes id=\"vip-i\">{}{}{}</instance_attributes>\
         <operations><op id=\"vip-m\" name=\"monitor\" interval=\"10s\" timeout=\"20s\"/></operations>{}</primitive>",
        pair("vip", "ip", &ip.to_string()),
        pair("vip", "cidr_netmask", "24"),
        pair("vip", "nic", HOST_LINK),
        meta("vip", &quick)
    );
    let service = format!(
        "<clone id=\"services\">{}<primitive id=\"service\" class=\"ocf\" provider=\"pbxha\" type=\"responder\"><operations>\
         <op id=\"service-m\" name=\"monitor\" interval=\"1s\" timeout=\"20s\"/></operations>{}</primitive></clone>",
        meta("services", &[("interleave", "true")]),
        meta("service", &quick)
    );
    let never = |of: &str| {
        let third = NODES - 1;
        format!(
            "<rsc_location id=\"never-{of}\" rsc=\"{of}\" node=\"node{third}\" score=\"-INFINITY\" resource-discovery=\"never\"/>"
        )
    };
    let constraints = format!(
        "{}{}<rsc_colocation id=\"with\" rsc=\"vip\" with-rsc=\"services\" score=\"INFINITY\"/>\
         <rsc_order id=\"order\" first=\"services\" then=\"vip\" kind=\"Mandatory\"/>",
        never("vip"),
        never("services")
    );
    let properties = [("stonith-enabled", "false"), ("no-quorum-policy", "stop")];
    let properties: String = properties
        .iter()
        .map(|(name, value)| pair("all", name, value))
        .collect();
    [
        (
            "crm_config",
            format!(
                "<crm_config><cluster_property_set id=\"cib-bootstrap-options\">{properties}</cluster_property_set></crm_config>"
            ),
        ),
        (
            "rsc_defaults",
            format!(
                "<rsc_defaults>{}</rsc_defaults>",
                meta("defaults", &[("resource-stickiness", "100")])
            ),
        ),
        (
            "resources",
            format!("<resources>{address}{service}</resources>"),
        ),
        (
            "constraints",
            format!("<constraints>{constraints}</constraints>"),
        ),
    ]
}
