//! Network namespaces: hosts with a link of their own on one bridge, which can be cut and healed,
//! and code that runs inside one. The nodes of the local cluster are such hosts; [`Lan`] makes
//! some for a test of bare hosts.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::Process;
use crate::progress::output_of;

/// The link of a host inside its namespace.
pub const HOST_LINK: &str = "eth0";
/// The second link of a host inside its namespace.
const CABLE_LINK: &str = "eth1";
const PREFIX_LENGTH: u8 = 24;
/// States of a bridge's port, as `bridge link` takes them.
const PORT_DISABLED: &str = "0";
const PORT_FORWARDING: &str = "3";

/// A host: a namespace and the outer end of its only link.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of the namespace.
    pub namespace: String,
    /// Name of the link's end in the namespace of the machine, at most 15 bytes.
    pub outer_link: String,
    /// Its address, in a /24.
    pub address: Ipv4Addr,
}

impl Host {
    /// Creates the namespace and its link on `bridge`, up and addressed. `gateway` is where the
    /// rest of the world is.
    pub fn create(&self, bridge: &str, gateway: Option<Ipv4Addr>) -> Result<()> {
        let (namespace, outer) = (self.namespace.as_str(), self.outer_link.as_str());
        let address = format!("{}/{PREFIX_LENGTH}", self.address);
        ip(&["netns", "add", namespace])?;
        let hardware = hardware_text(self.hardware());
        ip(&[
            "link", "add", outer, "type", "veth", "peer", "name", HOST_LINK, "address", &hardware,
            "netns", namespace,
        ])?;
        ip(&["link", "set", outer, "master", bridge, "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", namespace, "addr", "add", &address, "dev", HOST_LINK])?;
        ip(&["-n", namespace, "link", "set", HOST_LINK, "up"])?;
        if let Some(gateway) = gateway {
            ip(&[
                "-n",
                namespace,
                "route",
                "add",
                "default",
                "via",
                &gateway.to_string(),
            ])?;
        }
        Ok(())
    }

    /// Takes namespace and link away, as far as they exist.
    pub fn remove(&self) {
        // Absent is what is wanted. The link is deleted apart: a process may keep the namespace.
        ip(&["link", "del", &self.outer_link]).ok();
        ip(&["netns", "del", &self.namespace]).ok();
    }

    /// Pulls the cable: from now on every packet in either direction is lost.
    pub fn cut(&self) -> Result<()> {
        ip(&["link", "set", &self.outer_link, "down"])
    }

    /// Plugs the cable in again.
    pub fn heal(&self) -> Result<()> {
        ip(&["link", "set", &self.outer_link, "up"])
    }

    /// The switch's port passes nothing any more; the cable stays plugged in, and the host notices nothing.
    pub fn silence(&self) -> Result<()> {
        self.set_port(PORT_DISABLED)
    }

    /// The port passes packets again.
    pub fn unsilence(&self) -> Result<()> {
        self.set_port(PORT_FORWARDING)
    }

    /// Hardware address of the host's link: the same after the host was taken away and made again, as with a real machine, so that
    /// nobody's neighbour table goes stale.
    pub fn hardware(&self) -> [u8; 6] {
        hardware_of(self.address)
    }

    fn set_port(&self, state: &str) -> Result<()> {
        let mut bridge = Command::new("bridge");
        bridge.args(["link", "set", "dev", &self.outer_link, "state", state]);
        output_of(&mut bridge).map(drop)
    }

    /// Whether the link passes packets.
    pub fn is_linked(&self) -> bool {
        let state =
            std::fs::read_to_string(format!("/sys/class/net/{}/operstate", self.outer_link));
        state.is_ok_and(|state| state.trim() == "up")
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// Gives these commands to the host's nftables.
    pub fn nft(&self, commands: &str) -> Result<()> {
        output_of(self.command("nft").arg(commands)).map(drop)
    }

    /// A command that will run in the namespace, with the machine's mounts.
    pub fn command(&self, program: &str) -> Command {
        command_in(&self.path(), program)
    }
}

/// A further link of a host, on a switch of its own.
#[derive(Clone, Debug)]
pub struct Cable {
    namespace: String,
    outer_link: String,
    /// The host's address on it, in a /24.
    pub address: Ipv4Addr,
}

impl Cable {
    /// Pulls it: from now on every packet in either direction is lost.
    pub fn cut(&self) -> Result<()> {
        ip(&["link", "set", &self.outer_link, "down"])
    }

    /// Plugs it in again.
    pub fn heal(&self) -> Result<()> {
        ip(&["link", "set", &self.outer_link, "up"])
    }

    fn create(&self, bridge: &str) -> Result<()> {
        let (namespace, outer) = (self.namespace.as_str(), self.outer_link.as_str());
        let address = format!("{}/{PREFIX_LENGTH}", self.address);
        let hardware = hardware_text(hardware_of(self.address));
        ip(&[
            "link", "add", outer, "type", "veth", "peer", "name", CABLE_LINK, "address", &hardware,
            "netns", namespace,
        ])?;
        ip(&["link", "set", outer, "master", bridge, "up"])?;
        ip(&["-n", namespace, "addr", "add", &address, "dev", CABLE_LINK])?;
        ip(&["-n", namespace, "link", "set", CABLE_LINK, "up"])
    }
}

/// Hosts on one switch, gone when dropped.
#[derive(Debug)]
pub struct Lan {
    bridge: String,
    hosts: Vec<Host>,
    cables: Vec<Cable>,
}

impl Lan {
    /// Makes `count` hosts with the addresses `network`.1 and following, for instance 198.18.64.1.
    /// `name` (at most 8 bytes) must be the test's own, since links and namespaces carry it.
    pub fn create(name: &str, network: Ipv4Addr, count: u8) -> Result<Self> {
        let bridge = format!("{name}-br");
        sweep(name, count)?;
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        let mut lan = Self {
            bridge,
            hosts: Vec::new(),
            cables: Vec::new(),
        };
        ip(&["link", "set", &lan.bridge, "up"])?;
        let [a, b, c, _] = network.octets();
        for index in 1..=count {
            let host = Host {
                namespace: format!("{name}-{index}"),
                outer_link: format!("{name}-{index}"),
                address: Ipv4Addr::new(a, b, c, index),
            };
            // First, so that a host made by half is taken away too.
            lan.hosts.push(host.clone());
            host.create(&lan.bridge, None)?;
        }
        Ok(lan)
    }

    /// Gives every host a second link, on a second switch, with addresses of `network`.
    pub fn add_cables(&mut self, network: Ipv4Addr) -> Result<()> {
        let switch = self.second_bridge();
        ip(&["link", "add", &switch, "type", "bridge"])?;
        ip(&["link", "set", &switch, "up"])?;
        let [a, b, c, _] = network.octets();
        for (host, index) in self.hosts.iter().zip(1..) {
            let cable = Cable {
                namespace: host.namespace.clone(),
                outer_link: format!("{}x", host.outer_link),
                address: Ipv4Addr::new(a, b, c, index),
            };
            self.cables.push(cable.clone());
            cable.create(&switch)?;
        }
        Ok(())
    }

    /// The second links, in the order of the hosts.
    pub fn cables(&self) -> &[Cable] {
        &self.cables
    }

    fn second_bridge(&self) -> String {
        format!("{}2", self.bridge)
    }

    /// Name of the switch.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The hosts, in the order of their addresses.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for cable in &self.cables {
            ip(&["link", "del", &cable.outer_link]).ok();
        }
        if !self.cables.is_empty() {
            ip(&["link", "del", &self.second_bridge()]).ok();
        }
        for host in &self.hosts {
            host.remove();
        }
        ip(&["link", "del", &self.bridge]).ok();
    }
}

/// What a run that was killed left behind under this name: processes, namespaces, links.
fn sweep(name: &str, count: u8) -> Result<()> {
    for index in 1..=count {
        let host = Host {
            namespace: format!("{name}-{index}"),
            outer_link: format!("{name}-{index}"),
            address: Ipv4Addr::UNSPECIFIED,
        };
        if host.path().exists() {
            for process in processes_in(&host.namespace)? {
                process.signal(Signal::KILL).ok();
            }
            host.remove();
        }
    }
    for bridge in [format!("{name}-br"), format!("{name}-br2")] {
        ip(&["link", "del", &bridge]).ok();
    }
    Ok(())
}

/// All processes in a network namespace.
pub(crate) fn processes_in(namespace: &str) -> Result<Vec<Process>> {
    let pids = output_of(Command::new("ip").args(["netns", "pids", namespace]))?;
    let processes = pids.lines().filter_map(|pid| {
        let pid: u32 = pid.trim().parse().ok()?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments = line.trim_end_matches('\0').split('\0');
        Some(Process {
            pid,
            arguments: arguments.map(str::to_owned).collect(),
        })
    });
    Ok(processes.collect())
}

/// Runs `work` on a thread of its own inside the network namespace `path`; sockets opened there
/// stay there.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = File::open(path).with_context(|| format!("open {}", path.display()))?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter {}", path.display()))?;
            Ok(work())
        });
        worker
            .join()
            .map_err(|_| anyhow!("the work in {} panicked", path.display()))?
    })
}

/// A command that will run in the network namespace `path`. Not by `ip netns exec`, which mounts
/// a /sys of its own and so hides the cgroups.
pub fn command_in(path: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path.display()))
        .arg(program);
    command
}

fn hardware_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 0, a, b, c, d]
}

fn hardware_text(hardware: [u8; 6]) -> String {
    hardware.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    output_of(Command::new("ip").args(arguments)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn is_reached(from: &Host, to: &Host) -> bool {
        let receiver = run_in(&to.path(), || UdpSocket::bind((to.address, 5060)).unwrap()).unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let sender = run_in(&from.path(), || UdpSocket::bind((from.address, 0)).unwrap()).unwrap();
        sender.send_to(b"hello", (to.address, 5060)).ok();
        receiver.recv(&mut [0; 8]).is_ok()
    }

    #[test]
    fn cut_host_is_reached_again_once_healed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("network namespaces need root: nothing was tested");
            return;
        }
        let name = format!("t{}", std::process::id() % 1_000_000);
        let lan = Lan::create(&name, Ipv4Addr::new(198, 18, 64, 0), 2).unwrap();
        let [a, b] = lan.hosts() else {
            panic!("two hosts")
        };
        assert!(is_reached(a, b) && is_reached(b, a));
        b.cut().unwrap();
        assert!(!b.is_linked() && !is_reached(a, b) && !is_reached(b, a));
        b.heal().unwrap();
        assert!(b.is_linked() && is_reached(a, b));
        let path = a.path();
        drop(lan);
        assert!(!path.exists());
    }
}
