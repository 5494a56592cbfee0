//! pbx-ha itself on three bare hosts: sidecar, guard, leash, fence, and a real Asterisk.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::Result;
use pbx_crds::cluster::FailoverSpec;

use super::{Contender, broadcast_neighbour};
use crate::bare_hosts::{BareHosts, BareSettings, VIP};
use crate::cluster::Process;
use crate::images::Profile;
use crate::netns::Lan;

const NODES: u8 = 3;
const WHOLE_LIMIT: Duration = Duration::from_secs(30);
const SIP: u16 = 5060;

/// The contender.
#[derive(Debug)]
pub struct Ours {
    hosts: BareHosts,
    crashed: Option<usize>,
}

impl Ours {
    /// Starts it with these times.
    pub fn start(name: &str, failover: FailoverSpec, profile: Profile) -> Result<Self> {
        let hosts = BareHosts::start_with(BareSettings {
            clients: 2,
            has_vip: true,
            failover,
            profile,
            ..BareSettings::plain(name, NODES)
        })?;
        let this = Self {
            hosts,
            crashed: None,
        };
        broadcast_neighbour(this.lan(), this.target())?;
        Ok(this)
    }

    /// The hosts.
    pub fn hosts(&self) -> &BareHosts {
        &self.hosts
    }
}

impl Contender for Ours {
    fn target(&self) -> SocketAddrV4 {
        SocketAddrV4::new(VIP, SIP)
    }

    fn lan(&self) -> &Lan {
        self.hosts.lan()
    }

    fn wait_whole(&mut self) -> Result<()> {
        self.hosts.wait_whole(WHOLE_LIMIT).map(drop)
    }

    fn kill_service(&mut self, node: usize) -> Result<()> {
        self.hosts.kill_asterisk(node)
    }

    fn crash(&mut self, node: usize) -> Result<()> {
        self.crashed = Some(node);
        self.hosts.crash(node)
    }

    fn switch_over(&mut self, node: usize) -> Result<()> {
        self.hosts.ask_for(node, "any Immediate")
    }

    fn restore(&mut self, _: usize) -> Result<()> {
        match self.crashed.take() {
            Some(node) => self.hosts.boot(node),
            // The guard starts again what ended.
            None => Ok(()),
        }
    }

    fn processes(&self, node: usize) -> Result<Vec<Process>> {
        self.hosts.all_processes(node)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}
