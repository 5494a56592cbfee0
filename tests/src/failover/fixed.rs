//! A control: one node that has the address for good. What it shows is the machine's noise.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Contender;
use super::simple_hosts::{SimpleHosts, TARGET};
use crate::cluster::Process;
use crate::netns::{HOST_LINK, Lan};
use crate::progress::output_of;

/// The control.
#[derive(Debug)]
pub struct Fixed {
    hosts: SimpleHosts,
}

impl Fixed {
    /// Starts it.
    pub fn start(name: &str, responder: &[String]) -> Result<Self> {
        let mut hosts = SimpleHosts::create(name, 1, responder)?;
        let floating = format!("{}/24", TARGET.ip());
        output_of(
            hosts.lan.hosts()[0]
                .command("ip")
                .args(["addr", "add", &floating, "dev", HOST_LINK]),
        )?;
        hosts.start_responder(0)?;
        Ok(Self { hosts })
    }
}

impl Contender for Fixed {
    fn target(&self) -> SocketAddrV4 {
        TARGET
    }

    fn lan(&self) -> &Lan {
        &self.hosts.lan
    }

    fn wait_whole(&mut self) -> Result<()> {
        Ok(())
    }

    fn kill_service(&mut self, _: usize) -> Result<()> {
        bail!("the control has nobody to take over")
    }

    fn crash(&mut self, _: usize) -> Result<()> {
        bail!("the control has nobody to take over")
    }

    fn switch_over(&mut self, _: usize) -> Result<()> {
        bail!("the control has nobody to take over")
    }

    fn restore(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn processes(&self, node: usize) -> Result<Vec<Process>> {
        self.hosts.processes(node)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }
}
