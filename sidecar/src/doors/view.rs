//! The view that all doors show, put together from the core's view, this node's report and what the peers tell of themselves.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use pbx_core::MAX_NODES;
use pbx_crds::report::Report;
use pbx_doors::channel::PeerAddresses;
use pbx_doors::{NodeView, View};
use tokio::sync::{mpsc, watch};

use crate::config::Checked;
use crate::daemon::CoreView;

/// A peer's report, by its seat.
pub type Told = (usize, Arc<Report>);

/// The view and the peers' addresses, and the task that keeps them up to date until a sender is gone.
pub fn follow(
    checked: Arc<Checked>,
    report: watch::Receiver<Arc<Report>>,
    core: watch::Receiver<CoreView>,
    told: mpsc::Receiver<Told>,
) -> (
    watch::Receiver<Arc<View>>,
    watch::Receiver<PeerAddresses>,
    impl Future<Output = ()>,
) {
    let sources = Sources {
        checked,
        started_at: Timestamp::now(),
        reports: Default::default(),
    };
    let (addresses, addresses_rx) = watch::channel(peer_addresses(&core.borrow()));
    let first = sources.view(&report.borrow(), &core.borrow());
    let (view, view_rx) = watch::channel(Arc::new(first));
    let task = keep_up(sources, report, core, told, view, addresses);
    (view_rx, addresses_rx, task)
}

async fn keep_up(
    mut sources: Sources,
    mut report: watch::Receiver<Arc<Report>>,
    mut core: watch::Receiver<CoreView>,
    mut told: mpsc::Receiver<Told>,
    view: watch::Sender<Arc<View>>,
    addresses: watch::Sender<PeerAddresses>,
) {
    loop {
        let is_open = tokio::select! {
            changed = report.changed() => changed.is_ok(),
            changed = core.changed() => changed.is_ok(),
            told = told.recv() => told.is_some_and(|told| sources.on_told(told)),
        };
        if !is_open {
            return;
        }
        let known = *core.borrow_and_update();
        let new = sources.view(&report.borrow_and_update(), &known);
        publish(&view, new);
        addresses.send_if_modified(|before| {
            let now = peer_addresses(&known);
            let is_new = *before != now;
            *before = now;
            is_new
        });
    }
}

fn publish(view: &watch::Sender<Arc<View>>, new: View) {
    view.send_if_modified(|before| {
        let is_new = **before != new;
        if is_new {
            *before = Arc::new(new);
        }
        is_new
    });
}

/// Addresses of each seat: those on links that carry heartbeats first.
fn peer_addresses(core: &CoreView) -> PeerAddresses {
    let seats = core.addresses.iter().zip(&core.links);
    seats
        .map(|(addresses, links)| {
            let known = addresses.iter().zip(links);
            let mut known: Vec<_> = known
                .filter_map(|(address, link)| Some((!link.is_up, (*address)?)))
                .collect();
            known.sort_by_key(|(is_down, _)| *is_down);
            known.into_iter().map(|(_, address)| address).collect()
        })
        .collect()
}

struct Sources {
    checked: Arc<Checked>,
    started_at: Timestamp,
    reports: [Option<Arc<Report>>; MAX_NODES],
}

impl Sources {
    /// A report counts for the seat whose node it names.
    fn on_told(&mut self, (seat, report): Told) -> bool {
        let named = self.checked.file.nodes.get(seat);
        if named.is_some_and(|node| node.name == report.node) {
            self.reports[seat] = Some(report);
        }
        true
    }

    fn view(&self, report: &Arc<Report>, core: &CoreView) -> View {
        let own = usize::from(self.checked.settings.seat.0);
        let timing = &self.checked.settings.timing;
        let entries = &report.ledger.entries;
        let first_change = entries.values().map(|entry| entry.time.0).min();
        View {
            cluster: self.checked.file.cluster.clone(),
            cluster_started_at: first_change.map_or(self.started_at, |at| at.min(self.started_at)),
            started_at: self.started_at,
            own,
            nodes: (0..self.checked.file.nodes.len())
                .map(|seat| self.node(seat, own, report, core))
                .collect(),
            active: core.active.map(|seat| usize::from(seat.0)),
            epoch: core.epoch.cast_signed(),
            keepalive: timing.keepalive,
            warntime: timing.warntime,
            deadtime: timing.deadtime,
            initdead: self.checked.file.failover.initdead.get(),
        }
    }

    fn node(&self, seat: usize, own: usize, report: &Arc<Report>, core: &CoreView) -> NodeView {
        let is_own = seat == own;
        let peer = &self.checked.file.nodes[seat];
        let heard: Option<SocketAddr> = core.addresses[seat].iter().flatten().next().copied();
        let written = peer
            .address
            .or(peer.addresses.first().map(|link| link.address));
        let endpoint = self.checked.endpoint.as_ref().filter(|_| is_own);
        let of_pod = endpoint.and_then(|endpoint| endpoint.address.parse().ok());
        NodeView {
            name: peer.name.clone(),
            address: of_pod.or(heard.or(written).map(|address| address.ip())),
            is_up: is_own || core.is_peer_up[seat],
            is_known: is_own || core.is_peer_known[seat],
            report: if is_own {
                Some(report.clone())
            } else {
                self.reports[seat].clone()
            },
        }
    }
}
