//! A slow path: what a host sends to a peer's UDP port waits in a queue before it goes on, and so do the answers. A relay in the
//! host's network namespace and a redirection of its packets, since not every kernel has netem. The redirection keeps no state: NAT
//! would not touch the answers of a flow that the peer began. Leaves out loss and reordering.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::{command_in, run_in};
use crate::progress::output_of;

const TABLE: &str = "slow";
/// How soon a relay sees that it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Ends with its value: then packets go straight again.
#[derive(Debug)]
pub struct SlowPath {
    namespace: PathBuf,
    is_over: Arc<AtomicBool>,
}

impl SlowPath {
    /// From `own`, an address of `namespace`, to `port` of each of `peers`: `delay` there and `delay` back.
    pub fn begin(
        namespace: &Path,
        own: Ipv4Addr,
        peers: &[Ipv4Addr],
        port: u16,
        delay: Duration,
    ) -> Result<Self> {
        let path = Self {
            namespace: namespace.to_owned(),
            is_over: Arc::new(AtomicBool::new(false)),
        };
        let mut rules = Vec::new();
        for peer in peers {
            let (near, far) = run_in(namespace, || -> Result<_> {
                let near = UdpSocket::bind((own, 0)).context("open the near end")?;
                let far = UdpSocket::bind((own, 0)).context("open the far end")?;
                Ok((near, far))
            })??;
            let relay = near.local_addr().context("ask for the relay's port")?;
            let (sidecar, peer) = (
                SocketAddr::from((own, port)),
                SocketAddr::from((*peer, port)),
            );
            carry(&near, &far, peer, delay, &path.is_over)?;
            carry(&far, &near, sidecar, delay, &path.is_over)?;
            rules.push(format!(
                "ip daddr {} udp sport {port} udp dport {port} ip daddr set {} udp dport set {}\n",
                peer.ip(),
                relay.ip(),
                relay.port()
            ));
        }
        let table = format!(
            "table ip {TABLE} {{ chain out {{ type route hook output priority -150;\n{}}}\n}}\n",
            rules.concat()
        );
        let mut nft = command_in(namespace, "nft");
        output_of(nft.arg(table))?;
        Ok(path)
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut nft = command_in(&self.namespace, "nft");
        output_of(nft.args(["delete", "table", "ip", TABLE])).ok();
    }
}

/// What arrives at `from` leaves `by` the other socket `delay` later.
fn carry(
    from: &UdpSocket,
    by: &UdpSocket,
    to: SocketAddr,
    delay: Duration,
    is_over: &Arc<AtomicBool>,
) -> Result<()> {
    let (from, by) = (
        from.try_clone().context("share a socket")?,
        by.try_clone().context("share a socket")?,
    );
    from.set_read_timeout(Some(LOOK))
        .context("set up a relay")?;
    let (waiting, due) = channel();
    let is_over = is_over.clone();
    thread::spawn(move || receive(&from, &waiting, delay, &is_over));
    thread::spawn(move || send(&by, &due, to));
    Ok(())
}

fn receive(
    from: &UdpSocket,
    waiting: &Sender<(Instant, Vec<u8>)>,
    delay: Duration,
    is_over: &AtomicBool,
) {
    let mut buffer = [0; 2048];
    while !is_over.load(Ordering::Relaxed) {
        let Ok(length) = from.recv(&mut buffer) else {
            continue;
        };
        let due_at = Instant::now() + delay;
        if waiting.send((due_at, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn send(by: &UdpSocket, due: &Receiver<(Instant, Vec<u8>)>, to: SocketAddr) {
    for (due_at, datagram) in due {
        thread::sleep(due_at.saturating_duration_since(Instant::now()));
        by.send_to(&datagram, to).ok();
    }
}
