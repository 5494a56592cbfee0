//! I6 on the wire: datagrams that no peer sealed are dropped and counted, and change nothing.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use pbx_crds::names::{HEARTBEAT_PORT, HTTP_PORT};
use pbx_tests::http::get;
use pbx_tests::netns::run_in;
use support::office;

mod support;

const FORGED: usize = 200;

#[test]
fn forged_heartbeats_are_dropped_counted_and_change_nothing() {
    let office = office();
    let before = office.watcher.view();
    let pod = office.serving_address().unwrap();
    let (namespace, _) = office.client().unwrap();
    let dropped_before = dropped(&namespace, pod);
    run_in(&namespace, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        for number in 0..FORGED {
            let bytes = vec![number as u8; number % 300];
            socket.send_to(&bytes, (pod, HEARTBEAT_PORT)).unwrap();
            // Slower than the socket's buffer fills: all of them are to be seen.
            std::thread::sleep(Duration::from_millis(1));
        }
    })
    .unwrap();
    pbx_tests::cluster::wait_until("the drops to be counted", Duration::from_secs(5), || {
        Ok(dropped(&namespace, pod) >= dropped_before + FORGED)
    })
    .unwrap();
    let after = office.wait_whole().unwrap();
    assert_eq!(before.status.epoch, after.status.epoch);
    assert_eq!(before.status.active, after.status.active);
}

/// All datagrams that the node has dropped, whatever the reason.
fn dropped(namespace: &Path, pod: Ipv4Addr) -> usize {
    let address = SocketAddrV4::new(pod, HTTP_PORT);
    let text = get(namespace, address, "/metrics").unwrap();
    let counts = text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let is_drop = name.contains("dropped") && name.contains("_total");
        is_drop.then(|| value.parse::<usize>().ok()).flatten()
    });
    counts.sum()
}
