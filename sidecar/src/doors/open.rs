//! Opens each door that the file has a section for. One that cannot be opened is said, and the others are.

use std::net::SocketAddr;
use std::path::PathBuf;

use pbx_crds::sidecar_doors::{DroongaDoor, HaastDoor, HeartbeatDoor, SysadmDoor};
use pbx_doors::channel::{Routes, Service};
use pbx_doors::droonga::Droonga;
use pbx_doors::droonga::status::Naming;
use pbx_doors::haast;
use pbx_doors::heartbeat::peers;
use pbx_doors::sysadm::{Hub, Sysadm};
use pbx_doors::tls::Tls;
use pbx_doors::token::Token;
use pbx_doors::{Doorway, OnDropped};
use tokio::net::TcpListener;

use super::{Inputs, ami, heartbeat, http, listen};
use crate::metrics::Metrics;

/// Opens them; `routes` are given to those that peers reach too.
pub fn open(inputs: &Inputs, doorway: &Doorway, routes: &mut Routes) {
    let doors = &inputs.checked.file.doors;
    let (token, reread) = Token::follow(doors.token_file.clone());
    tokio::spawn(reread);
    let sysadm = doors.sysadm.as_ref().map(|door| {
        let sysadm = open_sysadm(inputs, doorway, token.clone(), door);
        tokio::spawn(sysadm.clone().serve_peers(routes.take(Service::SysAdm)));
        sysadm
    });
    let droonga = doors.droonga.as_ref();
    let droonga = droonga.map(|door| open_droonga(inputs, doorway, door));
    if let Some(door) = &doors.haast {
        open_haast(inputs, doorway, &token, door);
    }
    if let Some(door) = &doors.heartbeat {
        open_heartbeat(inputs, doorway, routes, door);
    }
    let ami = ami::open(inputs, doorway, routes);
    open_http(inputs, doorway, token, (sysadm, droonga, ami));
}

fn open_haast(inputs: &Inputs, doorway: &Doorway, token: &Token, door: &HaastDoor) {
    let haast = haast::Door {
        view: doorway.view.clone(),
        actions: doorway.requests.clone(),
        on_dropped: on_dropped(inputs),
    };
    if let Some(path) = &door.socket {
        match haast::bind(path) {
            Ok(listener) => drop(tokio::spawn(haast::serve(listener, haast.clone()))),
            Err(error) => shut("HAAst's door", &error),
        }
    }
    let files = inputs.checked.file.doors.tls.clone();
    let Some((address, files)) = door.listen.zip(files) else {
        return;
    };
    match Tls::follow(files, &[]) {
        Ok((tls, reread)) => {
            tokio::spawn(reread);
            if let Some(listener) = bind("HAAst's door over TLS", address) {
                tokio::spawn(haast::serve_remote(listener, tls, token.clone(), haast));
            }
        }
        Err(error) => shut("HAAst's door over TLS", &error),
    }
}

fn open_heartbeat(inputs: &Inputs, doorway: &Doorway, routes: &mut Routes, door: &HeartbeatDoor) {
    let listener = match pbx_doors::heartbeat::bind(&door.socket) {
        Ok(listener) => listener,
        Err(error) => return shut("Heartbeat's door", &error),
    };
    let links = &inputs.checked.links;
    let udp_port = links.first().map_or(0, |link| link.listen.port());
    let (messages, border) = peers::border();
    let serving = pbx_doors::heartbeat::serve(
        listener,
        heartbeat::settings(door, udp_port),
        doorway.view.clone(),
        messages,
        on_dropped(inputs),
    );
    tokio::spawn(serving);
    let nodes = inputs.checked.file.nodes.iter();
    let carrying = heartbeat::carry(
        doorway.channel.clone(),
        usize::from(inputs.checked.settings.seat.0),
        nodes.map(|node| node.name.clone()).collect(),
        border,
        routes.take(Service::Heartbeat),
        on_dropped(inputs),
    );
    tokio::spawn(carrying);
}

fn on_dropped(inputs: &Inputs) -> OnDropped {
    let dropped = inputs.metrics.doors_dropped.clone();
    OnDropped::new(move |reason| Metrics::count(&dropped, reason))
}

fn shut(door: &'static str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(
        door,
        error,
        "a door cannot be opened: the node works, and nobody sees it there"
    );
}

fn open_sysadm(inputs: &Inputs, doorway: &Doorway, token: Token, door: &SysadmDoor) -> Sysadm {
    let (hub, events) = Hub::follow(doorway.clone(), storage(inputs, door));
    tokio::spawn(events);
    Sysadm::new(doorway.clone(), hub, token)
}

/// By the name of the folder that is kept on it.
fn storage(inputs: &Inputs, door: &SysadmDoor) -> Vec<(String, PathBuf)> {
    let file = &inputs.checked.file;
    if door.storage.is_empty() {
        return vec![
            ("record".into(), file.record_dir.clone()),
            ("config".into(), file.asterisk.config_dir.clone()),
        ];
    }
    let folders = door.storage.iter();
    folders
        .map(|folder| (folder.display().to_string(), folder.clone()))
        .collect()
}

fn open_droonga(inputs: &Inputs, doorway: &Doorway, door: &DroongaDoor) -> Droonga {
    let links = &inputs.checked.links;
    let naming = Naming {
        port: door.listen.port(),
        internal_port: links.first().map_or(0, |link| link.listen.port()),
        tag: door.tag.clone(),
    };
    let droonga = Droonga::new(doorway.view.clone(), naming);
    if let Some(listener) = bind("Droonga's door", door.listen) {
        let dropped = inputs.metrics.doors_dropped.clone();
        let serving = droonga
            .clone()
            .serve(listener, move |reason| Metrics::count(&dropped, reason));
        tokio::spawn(serving);
    }
    droonga
}

fn open_http(
    inputs: &Inputs,
    doorway: &Doorway,
    token: Token,
    (sysadm, droonga, ami): (Option<Sysadm>, Option<Droonga>, Option<axum::Router>),
) {
    let router = http::router(http::House {
        report: inputs.report.clone(),
        metrics: inputs.metrics.clone(),
        flight: inputs.flight.clone(),
        doorway: doorway.clone(),
        token,
        sysadm,
        droonga,
        ami,
    });
    let file = &inputs.checked.file;
    if let Some(listener) = bind("HTTP", file.http) {
        let serving = http::serve(listener, None, router.clone(), on_dropped(inputs));
        tokio::spawn(serving);
    }
    let Some((address, files)) = file.doors.http.tls_listen.zip(file.doors.tls.clone()) else {
        return;
    };
    match Tls::follow(files, &[b"http/1.1"]) {
        Ok((tls, reread)) => {
            tokio::spawn(reread);
            if let Some(listener) = bind("HTTPS", address) {
                let serving = http::serve(listener, Some(tls), router, on_dropped(inputs));
                tokio::spawn(serving);
            }
        }
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "HTTPS cannot be served: the node works"
        ),
    }
}

fn bind(door: &'static str, address: SocketAddr) -> Option<TcpListener> {
    let bound = listen::bind(address, false);
    bound
        .inspect_err(|error| {
            tracing::error!(door, %address, %error, "a door cannot be opened: end what uses its port; the node works, and nobody sees it there");
        })
        .ok()
}
