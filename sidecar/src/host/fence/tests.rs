//! The fence in a real kernel: two hosts in network namespaces, a server on one that would answer everything. Needs root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pbx_tests::netns::{Lan, run_in};
use pbx_tests::packages;

use super::*;
use crate::host::plan::FloatingAddress;

const PATIENCE: Duration = Duration::from_secs(5);

/// A server behind a fence, and its client.
struct Scene {
    lan: Lan,
    handle: FenceHandle,
    events: Receiver<FenceEvent>,
    metrics: Metrics,
    addresses: [IpAddr; 2],
}

impl Scene {
    /// None without root. `name` is the test's own.
    fn new(name: &str, third: u8) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("network namespaces need root: nothing was tested");
            return None;
        }
        packages::ensure(&[packages::FENCE]).unwrap();
        let lan = Lan::create(name, [198, 18, third, 0].into(), 2).unwrap();
        let addresses = [
            IpAddr::from([198, 18, third, 50]),
            format!("fd00:{third:x}::50").parse().unwrap(),
        ];
        for (host, last) in lan.hosts().iter().zip(["50", "2"]) {
            let six = format!("fd00:{third:x}::{last}/64");
            command(
                host.command("ip")
                    .args(["addr", "add", &six, "dev", "eth0", "nodad"]),
            );
        }
        let [server, _] = lan.hosts() else {
            panic!("two hosts")
        };
        command(server.command("ip").args([
            "addr",
            "add",
            &format!("{}/24", addresses[0]),
            "dev",
            "eth0",
        ]));
        for ip in addresses {
            let socket = run_in(&server.path(), || UdpSocket::bind((ip, 5060)).unwrap()).unwrap();
            std::thread::spawn(move || echo(&socket));
        }
        let plan = Plan {
            table: "pbxha_test".into(),
            addresses: addresses
                .map(|ip| FloatingAddress {
                    ip,
                    prefix: 24,
                    interface: "eth0".into(),
                })
                .to_vec(),
            ports: Vec::new(),
        };
        let (tell, events) = channel();
        let metrics = Metrics::new(&[], &[]);
        let handle = run_in(&server.path(), || {
            start(&plan, metrics.clone(), move |event| {
                tell.send(event).unwrap_or(());
            })
            .unwrap()
        })
        .unwrap();
        let scene = Self {
            lan,
            handle,
            events,
            metrics,
            addresses,
        };
        scene.wait_for(&FenceEvent::Sound);
        Some(scene)
    }

    fn wait_for(&self, event: &FenceEvent) {
        let found = self.events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(found, *event);
    }

    /// Whether each address answers the client.
    fn answers(&self) -> [bool; 2] {
        let client = &self.lan.hosts()[1];
        // What it asked in vain before it would ask again a second later.
        command(
            client
                .command("ip")
                .args(["neigh", "flush", "dev", "eth0", "nud", "all"]),
        );
        self.addresses.map(|ip| {
            let any: SocketAddr = if ip.is_ipv4() {
                ([0; 4], 0).into()
            } else {
                ([0u16; 8], 0).into()
            };
            let socket = run_in(&client.path(), || UdpSocket::bind(any).unwrap()).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(40)))
                .unwrap();
            socket.send_to(b"?", (ip, 5060)).ok();
            socket.recv(&mut [0; 8]).is_ok()
        })
    }

    fn open_for(&self, time: Duration) -> BootTime {
        let deadline = now().after(time);
        self.handle.open(deadline, true);
        self.wait_for(&FenceEvent::Standing(deadline));
        deadline
    }

    fn has_mended(&self, times: u32) -> bool {
        let line = format!("pbxha_fence_total{{reason=\"Mended\"}} {times}\n");
        self.metrics.text().contains(&line)
    }
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        // The fence refuses what is sent while it is shut.
        socket.send_to(&buffer[..length], from).ok();
    }
}

fn command(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
fn nothing_passes_until_opened_and_the_kernel_shuts_it_alone() {
    let Some(scene) = Scene::new("fenceA", 66) else {
        return;
    };
    assert_eq!(scene.answers(), [false; 2]);
    let deadline = scene.open_for(Duration::from_millis(600));
    assert_eq!(scene.answers(), [true; 2]);
    while now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(scene.answers(), [false; 2]);
    // A deadline that is past opens nothing.
    scene.handle.open(deadline, true);
    assert_eq!(scene.answers(), [false; 2]);
    scene.open_for(Duration::from_mins(1));
    assert_eq!(scene.answers(), [true; 2]);
    scene.handle.close();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(scene.answers(), [false; 2]);
}

#[test]
fn emptied_rules_are_noticed_within_a_second_and_mended() {
    let Some(scene) = Scene::new("fenceB", 67) else {
        return;
    };
    let server = &scene.lan.hosts()[0];
    command(server.command("nft").args(["flush", "ruleset"]));
    let flushed = Instant::now();
    assert_eq!(
        scene.answers(),
        [true; 2],
        "without rules everything passes"
    );
    while scene.answers() != [false; 2] {
        assert!(
            flushed.elapsed() < Duration::from_secs(1),
            "not mended in time"
        );
    }
    assert!(scene.has_mended(1));
    // The same while it is open: it is opened again for the same deadline.
    let deadline = scene.open_for(Duration::from_mins(1));
    command(
        server
            .command("nft")
            .args(["flush", "chain", "inet", "pbxha_test", "in"]),
    );
    scene.wait_for(&FenceEvent::Standing(deadline));
    assert_eq!(scene.answers(), [true; 2]);
}

#[test]
fn a_fence_whose_rules_somebody_changed_is_not_opened_before_it_is_mended() {
    let Some(scene) = Scene::new("fenceE", 70) else {
        return;
    };
    let server = &scene.lan.hosts()[0];
    for times in 1..=5 {
        scene.open_for(Duration::from_mins(1));
        let emptied = ["flush", "chain", "inet", "pbxha_test", "in"];
        command(server.command("nft").args(emptied));
        scene.open_for(Duration::from_mins(2));
        assert!(scene.has_mended(times), "{times}");
    }
    // A change of others' rules hinders nothing, and is nothing to mend.
    command(
        server
            .command("nft")
            .args(["add", "table", "inet", "others"]),
    );
    scene.open_for(Duration::from_mins(3));
    assert_eq!(scene.answers(), [true; 2]);
    assert!(scene.has_mended(5));
}

#[test]
fn a_sidecar_that_comes_back_finds_its_fence_open_and_keeps_it() {
    let Some(scene) = Scene::new("fenceC", 68) else {
        return;
    };
    scene.open_for(Duration::from_mins(1));
    let server = scene.lan.hosts()[0].path();
    let plan_again = Plan {
        table: "pbxha_test".into(),
        addresses: scene
            .addresses
            .map(|ip| FloatingAddress {
                ip,
                prefix: 24,
                interface: "eth0".into(),
            })
            .to_vec(),
        ports: Vec::new(),
    };
    let mut loaded = run_in(&server, || {
        load(&ruleset::rules(&plan_again), "pbxha_test").unwrap()
    })
    .unwrap();
    assert_eq!(scene.answers(), [true; 2]);
    // It goes on with the slot that lets nothing pass: one that is filled late must not be in force already.
    let standing = loaded.kernel.pointer().unwrap().unwrap();
    let fill = loaded
        .lease
        .fill(now(), now().after(Duration::from_secs(1)))
        .unwrap();
    assert_eq!(fill.slot, standing.other());
}

/// Run with `--nocapture` to see the figures.
#[test]
fn a_refresh_costs_a_fraction_of_a_millisecond() {
    let Some(scene) = Scene::new("fenceD", 69) else {
        return;
    };
    let server = scene.lan.hosts()[0].path();
    let mut kernel = run_in(&server, || Kernel::open("pbxha_test").unwrap()).unwrap();
    let mut lease = Lease::new(Slot::A);
    let mut took: Vec<[Duration; 2]> = Vec::new();
    while took.len() < 200 {
        let begun = Instant::now();
        let fill = lease
            .fill(now(), now().after(Duration::from_millis(800)))
            .unwrap();
        kernel.fill(fill).unwrap();
        let filled = Instant::now();
        // A busy machine makes some of them late; those are tried again.
        let Some(slot) = lease.point(now()) else {
            continue;
        };
        kernel.point(slot).unwrap();
        lease.on_pointed(slot);
        took.push([filled - begun, filled.elapsed()]);
        std::thread::sleep(Duration::from_millis(5));
    }
    for (phase, name) in ["fill", "point"].into_iter().enumerate() {
        let mut times: Vec<Duration> = took.iter().map(|phases| phases[phase]).collect();
        times.sort();
        println!(
            "{name}: p50 {:?} p99 {:?} max {:?}",
            times[100], times[198], times[199]
        );
        assert!(
            times[100] < Duration::from_millis(1),
            "{name}: {:?}",
            times[100]
        );
    }
    let begun = Instant::now();
    kernel.fingerprint().unwrap();
    println!("fingerprint: {:?}", begun.elapsed());
}
