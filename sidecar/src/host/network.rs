//! The floating addresses of this node: kept on their links behind the fence, announced at a promotion, watched for another holder.
//!
//! One task looks after them and ends in events for the services, who own all state. It starts only when the fence stands, so an
//! address never stands open: not at the first start, and not when a stale one is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt};
use pbx_crds::report::Problem;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};
use rustix::thread::{CapabilitySet, capabilities};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};

use super::address::{self, AddressError, Link};
use super::announce::{Announcer, Announcers, REPEATS};
use super::conflict::{Claim, ConflictWatch};
use super::fence::FenceEvent;
use super::plan::{FloatingAddress, Plan};
use super::sysctl;
use crate::alarm::{rest, sleep};

/// The kernel tells of a link or an address that somebody took away. Should it not be heard, that is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same where the kernel cannot be listened to.
const LOOK_ALONE: Duration = Duration::from_secs(2);
/// A change seldom comes alone.
const SETTLED: Duration = Duration::from_millis(50);
/// How many claims may wait; a storm of them says no more than the first.
const CLAIMS: usize = 16;

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
            changes: Some(listen_to_changes()?),
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
    /// What the kernel tells; none after it could not be listened to any more.
    changes: Option<Changes>,
}

type Changes = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

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
                () = rest(if self.changes.is_some() { LOOK_EVERY } else { LOOK_ALONE }) => {}
                () = next_change(&mut self.changes) => {}
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

/// A socket of its own: one that overflows takes no question along.
fn listen_to_changes() -> std::io::Result<Changes> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, _, changes) = rtnetlink::new_multicast_connection(&groups)?;
    spawn_local(connection);
    Ok(changes)
}

/// Resolves when links or addresses have changed, and with them whatever changed at the same time.
async fn next_change(changes: &mut Option<Changes>) {
    let Some(heard) = changes else {
        return std::future::pending().await;
    };
    if heard.next().await.is_none() {
        tracing::warn!("the kernel tells of its links no more: they are looked at instead");
        *changes = None;
        return;
    }
    sleep(SETTLED).await;
    while let Some(Some(_)) = heard.next().now_or_never() {}
}

/// The capability that this process needs and does not have.
fn lacking_capability() -> Option<&'static str> {
    lacking_of(capabilities(None).ok()?.effective)
}

fn lacking_of(effective: CapabilitySet) -> Option<&'static str> {
    let lacks = |one| !effective.contains(one);
    match (
        lacks(CapabilitySet::NET_ADMIN),
        lacks(CapabilitySet::NET_RAW),
    ) {
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
    use pbx_tests::netns::{Lan, run_in};
    use tokio::runtime::LocalOptions;

    use super::*;

    #[test]
    fn lacking_capabilities_are_named() {
        let nothing = lacking_of(CapabilitySet::empty()).unwrap();
        assert!(nothing.contains("no CAP_NET_ADMIN"));
        let half = lacking_of(CapabilitySet::NET_ADMIN).unwrap();
        assert!(half.contains("no CAP_NET_RAW"));
        let both = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        assert_eq!(lacking_of(both), None);
    }

    /// In a real kernel; needs root.
    #[test]
    fn an_address_that_somebody_takes_away_comes_back_at_once() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("network namespaces need root: nothing was tested");
            return;
        }
        let lan = Lan::create("nt", [198, 18, 77, 0].into(), 1).unwrap();
        let host = &lan.hosts()[0];
        let plan = Plan {
            table: "pbxha_test".into(),
            addresses: vec![FloatingAddress {
                ip: [198, 18, 77, 50].into(),
                prefix: 24,
                interface: "eth0".into(),
            }],
            ports: Vec::new(),
        };
        let address = ["198.18.77.50/24", "dev", "eth0"];
        let stands = || {
            let shown = host.command("ip").args(["addr", "show"]).output().unwrap();
            String::from_utf8(shown.stdout)
                .unwrap()
                .contains(address[0])
        };
        let work = async {
            let (_fence, sound) = watch::channel(Some(FenceEvent::Sound));
            let (_network, mut events) =
                HostNetwork::start(plan, sound, Announcers::default()).unwrap();
            assert_eq!(events.recv().await, Some(HostEvent::Ready));
            // What came of standing up is over.
            sleep(SETTLED * 6).await;
            assert!(stands());
            let gone = host
                .command("ip")
                .args(["addr", "del"])
                .args(address)
                .status();
            assert!(gone.unwrap().success() && !stands());
            let began = std::time::Instant::now();
            while !stands() {
                assert!(began.elapsed() < LOOK_ALONE / 2, "nobody noticed");
                sleep(Duration::from_millis(5)).await;
            }
        };
        run_in(&host.path(), || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(LocalOptions::default());
            runtime.unwrap().block_on(work);
        })
        .unwrap();
    }
}
