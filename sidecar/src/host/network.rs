//! The floating addresses of this node: kept on their links behind the fence, announced at a promotion, watched for another holder.
//!
//! One task looks after them and ends in events for the services, who own all state. It starts only when the fence stands, so an
//! address never stands open: not at the first start, and not when a stale one is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use pbx_crds::report::Problem;
use rtnetlink::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};

use super::address::{self, AddressError, Link};
use super::announce::{Announcer, Announcers, REPEATS};
use super::conflict::{Claim, ConflictWatch};
use super::fence::FenceEvent;
use super::plan::{FloatingAddress, Plan};
use super::sysctl;
use crate::alarm::rest;

/// A link or an address that somebody took away is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many claims may wait; a storm of them says no more than the first.
const CLAIMS: usize = 16;
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// What the services learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// Fence and addresses stand: this node could serve.
    Ready,
    /// They do not: it must not.
    NotReady(Problem),
    /// Another machine says that a floating address is its own.
    Claimed(Claim),
}

/// The services' side.
pub struct HostNetwork {
    plan: Plan,
    handle: Handle,
    announcers: Announcers,
    repeats: Option<AbortHandle>,
}

impl HostNetwork {
    /// Starts the task. `fence` tells how the fence is; `announcers` are opened as the links come.
    pub fn start(
        plan: Plan,
        fence: watch::Receiver<Option<FenceEvent>>,
        announcers: Announcers,
    ) -> std::io::Result<(Self, mpsc::Receiver<HostEvent>)> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        spawn_local(connection);
        let findings = sysctl::check(&plan, Path::new("/proc/sys/net"));
        for warning in &findings.warnings {
            tracing::warn!(warning, "a setting of the kernel is not as it should be");
        }
        let (events, inbox) = mpsc::channel(CLAIMS);
        let keeper = Keeper {
            plan: plan.clone(),
            handle: handle.clone(),
            announcers: announcers.clone(),
            links: BTreeMap::new(),
            watches: Vec::new(),
            events,
            setting: findings.errors.into_iter().next(),
        };
        spawn_local(keeper.run(fence));
        let network = Self {
            plan,
            handle,
            announcers,
            repeats: None,
        };
        Ok((network, inbox))
    }

    /// Tells the neighbours that the addresses are here: at once, and a few times more with growing gaps.
    pub fn announce(&mut self) {
        self.announcers.announce();
        let announcers = self.announcers.clone();
        let repeats = spawn_local(async move {
            for gap in REPEATS {
                tokio::time::sleep(gap).await;
                announcers.announce();
            }
        });
        self.stop_announcing();
        self.repeats = Some(repeats.abort_handle());
    }

    /// The node serves no longer.
    pub fn stop_announcing(&mut self) {
        if let Some(repeats) = self.repeats.take() {
            repeats.abort();
        }
    }

    /// Takes the addresses off their links: for a node that has left.
    pub async fn remove(&self) -> Result<(), AddressError> {
        for address in &self.plan.addresses {
            let link = address::read_link(&self.handle, &address.interface).await?;
            address::remove(&self.handle, link.index, address.ip).await?;
        }
        Ok(())
    }
}

/// What runs as a task.
struct Keeper {
    plan: Plan,
    handle: Handle,
    announcers: Announcers,
    /// As they were when announcers and watches were opened.
    links: BTreeMap<String, Link>,
    watches: Vec<AbortHandle>,
    events: mpsc::Sender<HostEvent>,
    /// A setting of the kernel that makes service impossible.
    setting: Option<String>,
}

impl Keeper {
    async fn run(mut self, mut fence: watch::Receiver<Option<FenceEvent>>) {
        let mut said = None;
        loop {
            let standing = fence.borrow_and_update().clone();
            if let Some(standing) = standing {
                let event = match self.look(&standing).await {
                    Ok(()) => HostEvent::Ready,
                    Err(problem) => HostEvent::NotReady(problem),
                };
                if said.as_ref() != Some(&event) {
                    log(&event);
                    said = Some(event.clone());
                    if self.events.send(event).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                () = rest(LOOK_EVERY) => {}
                changed = fence.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Sees to it that the addresses stand, and that they can be announced.
    async fn look(&mut self, fence: &FenceEvent) -> Result<(), Problem> {
        if let Some(lacking) = lacking_capability() {
            return Err(problem("NotAllowed", lacking.into()));
        }
        if let Some(setting) = &self.setting {
            return Err(problem("KernelSetting", setting.clone()));
        }
        let mut links = BTreeMap::new();
        for address in &self.plan.addresses {
            let link = self.stand(address, fence).await?;
            links.insert(address.interface.clone(), link);
        }
        if links != self.links {
            self.reopen(&links)?;
            self.links = links;
        }
        Ok(())
    }

    /// The link of an address, with the address on it; not before the fence stands.
    async fn stand(&self, address: &FloatingAddress, fence: &FenceEvent) -> Result<Link, Problem> {
        let interface = &address.interface;
        let read = || address::read_link(&self.handle, interface);
        let link = read().await.map_err(|error| of_address(&error))?;
        if let FenceEvent::Broken { reason, message } = fence {
            return Err(problem(reason, message.clone()));
        }
        if !link.is_up {
            return Err(problem(
                "LinkDown",
                format!(
                    "{interface} is down or has no carrier: {} cannot be served",
                    address.ip
                ),
            ));
        }
        if !link.is_on_link(address.ip, &self.plan.addresses) {
            return Err(problem(
                "AddressNotOnLink",
                format!(
                    "{}/{} is in no network that this host has an own address of on {interface}: correct network.vip, or give {interface} its address",
                    address.ip, address.prefix
                ),
            ));
        }
        if link.has(address) {
            return Ok(link);
        }
        address::add(&self.handle, link.index, address)
            .await
            .map_err(|error| of_address(&error))?;
        tracing::info!(ip = %address.ip, interface, "a floating address stands, behind the fence");
        read().await.map_err(|error| of_address(&error))
    }

    fn reopen(&mut self, links: &BTreeMap<String, Link>) -> Result<(), Problem> {
        let open = |address: &FloatingAddress| Announcer::open(address, &links[&address.interface]);
        let announcers: Result<Vec<_>, _> = self.plan.addresses.iter().map(open).collect();
        let announcers =
            announcers.map_err(|error| problem("CannotAnnounce", error.to_string()))?;
        self.announcers.replace(announcers);
        for watch in self.watches.drain(..) {
            watch.abort();
        }
        for (interface, link) in links {
            match ConflictWatch::open(link) {
                Ok(watch) => {
                    let floating = self
                        .plan
                        .addresses
                        .iter()
                        .map(|address| address.ip)
                        .collect();
                    let task =
                        spawn_local(listen(watch, floating, link.hardware, self.events.clone()));
                    self.watches.push(task.abort_handle());
                }
                Err(error) => {
                    tracing::warn!(%error, interface, "another holder of a floating address would not be heard");
                }
            }
        }
        Ok(())
    }
}

/// Passes on what others say of the floating addresses.
async fn listen(
    watch: ConflictWatch,
    floating: BTreeSet<IpAddr>,
    own: Option<[u8; 6]>,
    events: mpsc::Sender<HostEvent>,
) {
    while let Ok(claim) = watch.next().await {
        if floating.contains(&claim.ip) && Some(claim.hardware) != own {
            // A full queue holds enough of them.
            let _ = events.try_send(HostEvent::Claimed(claim));
        }
    }
}

fn log(event: &HostEvent) {
    match event {
        HostEvent::Ready => tracing::info!("fence and floating addresses stand"),
        HostEvent::NotReady(problem) => {
            tracing::error!(
                reason = problem.reason,
                message = problem.message,
                "this host cannot serve"
            );
        }
        HostEvent::Claimed(_) => {}
    }
}

fn of_address(error: &AddressError) -> Problem {
    let reason = match error {
        AddressError::NoLink { .. } => "LinkMissing",
        AddressError::Read { .. } | AddressError::Add { .. } | AddressError::Remove { .. } => {
            "AddressNotAdded"
        }
    };
    problem(reason, error.to_string())
}

fn problem(reason: &str, message: String) -> Problem {
    Problem {
        reason: reason.into(),
        message,
    }
}

/// The capability that this process needs and does not have.
fn lacking_capability() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    lacking_of(&status)
}

fn lacking_of(status: &str) -> Option<&'static str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    let lacks = |number: u32| effective & (1 << number) == 0;
    match (lacks(CAP_NET_ADMIN), lacks(CAP_NET_RAW)) {
        (true, _) => Some(
            "the sidecar has no CAP_NET_ADMIN, which fence and addresses need: give it AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
        ),
        (false, true) => Some(
            "the sidecar has no CAP_NET_RAW, which announcing needs: give it AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
        ),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_capabilities_are_named() {
        let status = |mask: &str| format!("Name:\tx\nCapEff:\t{mask}\n");
        assert!(
            lacking_of(&status("0000000000000000"))
                .unwrap()
                .contains("no CAP_NET_ADMIN")
        );
        assert!(
            lacking_of(&status("0000000000001000"))
                .unwrap()
                .contains("no CAP_NET_RAW")
        );
        assert_eq!(lacking_of(&status("0000000000003000")), None);
    }
}
