//! What the services do about the floating addresses: ready only with them, announced when this node serves, other holders told.

use std::collections::BTreeSet;

use pbx_core::{Command, Input};
use pbx_crds::report::Problem;
use tokio::sync::mpsc;

use super::Services;
use crate::host::conflict::Claim;
use crate::host::network::{HostEvent, HostNetwork};

/// More foreign machines than this are one problem.
const MOST_CLAIMANTS: usize = 16;

/// The floating addresses, where there are any.
pub struct Host {
    network: HostNetwork,
    events: mpsc::Receiver<HostEvent>,
    is_ready: bool,
    problem: Option<Problem>,
    /// Who claimed an address since this node serves: each is told once.
    claimants: BTreeSet<[u8; 6]>,
}

impl Host {
    /// Nothing stands yet, as far as is known.
    pub fn new(network: HostNetwork, events: mpsc::Receiver<HostEvent>) -> Self {
        Self {
            network,
            events,
            is_ready: false,
            problem: None,
            claimants: BTreeSet::new(),
        }
    }

    /// What is wrong.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }
}

/// The next event; never without floating addresses.
pub(super) async fn next_event(host: &mut Option<Host>) -> HostEvent {
    let Some(host) = host else {
        return std::future::pending().await;
    };
    match host.events.recv().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

impl Services {
    /// Whether this node's addresses stand, or it has none.
    pub(super) fn is_network_ready(&self) -> bool {
        self.host.as_ref().is_none_or(|host| host.is_ready)
    }

    pub(super) fn on_host(&mut self, event: HostEvent) {
        let Some(host) = &mut self.host else { return };
        match event {
            HostEvent::Ready => {
                host.is_ready = true;
                host.problem = None;
                if self.active_epoch.is_some() {
                    host.network.announce();
                }
                // Asterisk may be bound to the addresses: it is not started before they stand.
                self.allow_asterisk();
            }
            HostEvent::NotReady(problem) => {
                host.is_ready = false;
                host.problem = Some(problem);
                if let Some(epoch) = self.active_epoch {
                    self.ask(&Input::Command(Command::TrafficFailed { epoch }));
                }
            }
            HostEvent::Claimed(claim) => self.on_claimed(claim),
        }
    }

    pub(super) fn announce_addresses(&mut self) {
        if let Some(host) = &mut self.host {
            host.claimants.clear();
            host.network.announce();
        }
    }

    pub(super) fn silence_addresses(&mut self) {
        if let Some(host) = &mut self.host {
            host.network.stop_announcing();
            host.problem = host
                .problem
                .take()
                .filter(|problem| problem.reason != "AddressConflict");
        }
    }

    /// The node has left: nothing of it stays behind.
    pub(super) async fn take_addresses_away(&self) {
        let Some(host) = &self.host else { return };
        if let Err(error) = host.network.remove().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "floating addresses stay on this host, behind the fence"
            );
            return;
        }
        let removed = self
            .checked
            .plan
            .as_ref()
            .map_or(Ok(()), crate::host::fence::remove);
        if let Err(error) = removed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the tables of the fence stay in nftables"
            );
        }
    }

    /// While this node serves, nobody else of the cluster can be heard: the fence holds them back.
    fn on_claimed(&mut self, claim: Claim) {
        let (Some(_), Some(host)) = (self.active_epoch, &mut self.host) else {
            return;
        };
        self.metrics.address_conflicts.inc();
        if host.claimants.len() >= MOST_CLAIMANTS || !host.claimants.insert(claim.hardware) {
            return;
        }
        let hardware = claim.hardware.map(|byte| format!("{byte:02x}")).join(":");
        tracing::error!(ip = %claim.ip, hardware, "another machine has a floating address of this cluster: take it away there");
        host.problem = Some(Problem {
            reason: "AddressConflict".into(),
            message: format!(
                "{} is also held by {hardware}: take it away there",
                claim.ip
            ),
        });
    }
}
