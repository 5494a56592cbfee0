//! What a sidecar looks at in the API without being asked: where the traffic points, whether the server answers, where silent
//! peers are, what people want of the running cluster, and once what the status tells of the past. Reads only (I4): two watches,
//! one small GET every five seconds.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use pbx_core::{ApiAnswer, ApiCall, Holder, Role, Seat};
use pbx_crds::PbxCluster;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::alarm::rest;
use crate::config::{self, Checked};
use crate::daemon::{CoreView, ToCore};
use crate::kubernetes::resource::Wanted;
use crate::kubernetes::slice::{self, Traffic};
use crate::kubernetes::{pods, resource};
use crate::services::{Done, Objects};

/// API reachability is known before it is needed. The end of the watch says at once that a server is gone; a silent cut is
/// noticed within this and the deadline.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Times the interval, for who serves.
const ACTIVE_PACE: u32 = 4;
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);
/// The server ends a watch after this; it is begun again.
const WATCH_SECONDS: u32 = 290;
/// A silent peer's pod is looked for this often at first, since it may just be starting, and later.
const LOOKUP_FIRST: Duration = Duration::from_millis(300);
/// While all peers are heard, beyond what the core tells.
const LOOKUP_CALM: Duration = Duration::from_secs(10);
const LOOKUP_LATER: Duration = Duration::from_secs(5);
const LOOKUPS_FIRST: u32 = 60;

/// Starts the tasks; they end with the process.
pub fn spawn(
    objects: Objects,
    checked: Arc<Checked>,
    view: watch::Receiver<CoreView>,
    to_core: mpsc::Sender<ToCore>,
    done: mpsc::Sender<Done>,
) {
    if let Some(traffic) = objects.traffic.clone() {
        spawn_local(watch_traffic(traffic, done.clone()));
    }
    spawn_local(probe(objects.clone(), view.clone(), done.clone()));
    spawn_local(watch_resource(objects.clone(), checked.clone(), done));
    spawn_local(look_for_peers(objects, checked, view, to_core));
}

/// Follows the slice. The end of a watch is the first sign of an API server that went away.
async fn watch_traffic(traffic: Traffic, done: mpsc::Sender<Done>) {
    loop {
        match traffic.list(PROBE_DEADLINE).await {
            Ok((view, version)) => {
                let _ = done.send(Done::ApiReachable(true)).await;
                if let Some(view) = view {
                    let _ = done.send(Done::TrafficSeen(view)).await;
                }
                follow(&traffic, &version, &done).await;
            }
            Err(error) => {
                let _ = done.send(Done::ApiReachable(error.is_answered())).await;
            }
        }
        // Also after a watch that ended at once: a server that refuses it is not asked in a loop.
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(traffic: &Traffic, version: &str, done: &mpsc::Sender<Done>) {
    let params = WatchParams::default()
        .fields(&traffic.selector())
        .timeout(WATCH_SECONDS);
    let Ok(events) = traffic.api().watch(&params, version).await else {
        return;
    };
    let mut events = events.boxed();
    while let Ok(Some(event)) = events.try_next().await {
        if let WatchEvent::Added(slice) | WatchEvent::Modified(slice) = event {
            let _ = done.send(Done::TrafficSeen(slice::view(&slice))).await;
        }
    }
}

async fn probe(objects: Objects, view: watch::Receiver<CoreView>, done: mpsc::Sender<Done>) {
    loop {
        let reading = objects.lease.call(&ApiCall::Read);
        let (answer, is_reachable) = tokio::time::timeout(PROBE_DEADLINE, reading)
            .await
            .unwrap_or((ApiAnswer::Failed, false));
        if is_news(&answer, &view.borrow()) {
            let _ = done.send(Done::SeatsDiffer).await;
        }
        let _ = done.send(Done::ApiReachable(is_reachable)).await;
        // Nobody waits for the word of who serves; a standby is chosen by it.
        let is_active = view.borrow().role == Role::Active;
        let pace = if is_active { ACTIVE_PACE } else { 1 };
        rest(if is_reachable {
            PROBE_INTERVAL * pace
        } else {
            RETRY
        })
        .await;
    }
}

/// The operator changes the number of seats, or has made a lost Lease anew, when nothing else would make the core read it.
fn is_news(answer: &ApiAnswer, view: &CoreView) -> bool {
    match (answer, view.seats) {
        (ApiAnswer::Lease(lease), Some(seats)) => {
            lease.content.holder == Holder::Created || lease.content.seats != seats
        }
        _ => false,
    }
}

/// Follows the resource: what people want, and once what its status tells of the past.
async fn watch_resource(objects: Objects, checked: Arc<Checked>, done: mpsc::Sender<Done>) {
    let Some(kubernetes) = &checked.file.kubernetes else {
        return;
    };
    if objects.traffic.is_none() {
        // A bare host has no resource.
        return;
    }
    let (client, namespace) = (&objects.client, &kubernetes.namespace);
    let cluster = &checked.file.cluster;
    let mut has_history = false;
    loop {
        match resource::list(client, namespace, cluster, PROBE_DEADLINE).await {
            Ok((Some(found), version)) => {
                if !std::mem::replace(&mut has_history, true) {
                    let _ = done.send(Done::History(resource::ledger(&found))).await;
                }
                let wanted = resource::wanted(&found);
                let _ = done.send(Done::Wanted(Box::new(wanted.clone()))).await;
                let api = Api::namespaced(client.clone(), namespace);
                follow_resource(api, cluster, &version, wanted, &done).await;
            }
            Ok((None, _)) => tokio::time::sleep(PROBE_INTERVAL).await,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the resource cannot be read yet"
                );
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Tells what people want when it changes; changes of the status pass by.
async fn follow_resource(
    api: Api<PbxCluster>,
    cluster: &str,
    version: &str,
    mut known: Wanted,
    done: &mpsc::Sender<Done>,
) {
    let params = WatchParams::default()
        .fields(&resource::selector(cluster))
        .timeout(WATCH_SECONDS);
    let Ok(events) = api.watch(&params, version).await else {
        return;
    };
    let mut events = events.boxed();
    while let Ok(Some(event)) = events.try_next().await {
        let (WatchEvent::Added(found) | WatchEvent::Modified(found)) = event else {
            continue;
        };
        let wanted = resource::wanted(&found);
        if wanted != known {
            known = wanted.clone();
            let _ = done.send(Done::Wanted(Box::new(wanted))).await;
        }
    }
}

async fn look_for_peers(
    objects: Objects,
    checked: Arc<Checked>,
    mut view: watch::Receiver<CoreView>,
    to_core: mpsc::Sender<ToCore>,
) {
    let mut lookups = 0;
    loop {
        let silent = silent_peers(&checked, &view.borrow_and_update());
        lookups = if silent.is_empty() { 0 } else { lookups + 1 };
        for seat in silent {
            look_for(&objects, &checked, seat, &to_core).await;
        }
        match lookups {
            0 => tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = rest(LOOKUP_CALM) => {}
            },
            1..LOOKUPS_FIRST => rest(LOOKUP_FIRST).await,
            _ => rest(LOOKUP_LATER).await,
        }
    }
}

fn silent_peers(checked: &Checked, view: &CoreView) -> Vec<Seat> {
    let count = view
        .seats
        .map_or(checked.settings.nodes, |seats| seats.count);
    let has_address = |seat: usize| {
        let node = checked.file.nodes.get(seat);
        node.is_some_and(|node| node.address.is_some())
    };
    (0..count)
        .map(Seat)
        .filter(|seat| {
            let at = usize::from(seat.0);
            *seat != checked.settings.seat && !view.is_peer_up[at] && !has_address(at)
        })
        .collect()
}

async fn look_for(
    objects: &Objects,
    checked: &Checked,
    seat: Seat,
    to_core: &mpsc::Sender<ToCore>,
) {
    let Some(kubernetes) = &checked.file.kubernetes else {
        return;
    };
    let port = config::heartbeat_port(&checked.file);
    let found = pods::heartbeat_address(
        &objects.client,
        &kubernetes.namespace,
        &checked.name_of(seat),
        port,
        PROBE_DEADLINE,
    )
    .await;
    if let Ok(Some(address)) = found {
        let _ = to_core.send(ToCore::PeerAddress(seat, address)).await;
    }
}
