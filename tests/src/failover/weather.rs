//! Bad weather between the nodes of a switch: what a node sends to another is held up, sent twice, or overtaken by what it sends
//! later. A thread for each node carries all frames between the node's cable and the switch, since not every kernel has netem.
//!
//! What clients send and are answered is left alone, and so are broadcasts: the time that they see is the contender's. Leaves out
//! loss, which nftables makes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{LinkAddr, bind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::{HOST_LINK, Host, Lan, ip};
use crate::packages;
use crate::progress::output_of;

/// Every protocol, in network order, as packet(7) wants it.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();
/// As large as a frame of a virtual cable can be.
const FRAME_BYTES: usize = 1 << 16;
/// How soon a thread sees that it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// The longest that a frame is held up.
const JITTER: Duration = Duration::from_millis(50);
/// Longer than the keepalive of any contender that is to bear it: what follows overtakes.
const HELD_BACK: Duration = Duration::from_millis(60);

/// What happens to a frame from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Each is held up for 0 to 50 ms.
    Jitter,
    /// A quarter comes twice, another quarter 60 ms late: behind what was sent after it.
    Disorder,
}

/// Lasts until [`Storm::end`].
#[derive(Debug)]
pub struct Storm {
    bridge: String,
    hosts: Vec<Host>,
    legs: Vec<Leg>,
}

impl Storm {
    /// Over the first `nodes` hosts of a switch.
    pub fn begin(lan: &Lan, nodes: usize, weather: Weather) -> Result<Self> {
        packages::ensure(&[packages::NETWORK_FAULTS])?;
        // A frame that is read here has to be whole: nobody behind adds the checksum.
        set_offload(lan, "off")?;
        let hardware: Vec<[u8; 6]> = lan.hosts()[..nodes].iter().map(Host::hardware).collect();
        let mut storm = Self {
            bridge: lan.bridge().to_owned(),
            hosts: lan.hosts().to_vec(),
            legs: Vec::new(),
        };
        for host in &lan.hosts()[..nodes] {
            let chance = Chance::new(host.hardware());
            let leg = Leg::splice(host, lan.bridge(), hardware.clone(), weather, chance);
            storm.legs.push(leg?);
        }
        Ok(storm)
    }

    /// Frames go straight again.
    pub fn end(mut self) -> Result<()> {
        for leg in self.legs.drain(..) {
            leg.mend(&self.bridge)?;
        }
        for host in &self.hosts {
            offload(host, "on")?;
        }
        Ok(())
    }
}

/// One node's cable, cut and spliced by a thread.
#[derive(Debug)]
struct Leg {
    outer_link: String,
    near: String,
    is_over: Arc<AtomicBool>,
    carrier: JoinHandle<Result<()>>,
}

impl Leg {
    fn splice(
        host: &Host,
        bridge: &str,
        nodes: Vec<[u8; 6]>,
        weather: Weather,
        chance: Chance,
    ) -> Result<Self> {
        let outer = host.outer_link.clone();
        let (near, far) = (format!("{outer}n"), format!("{outer}f"));
        // What a run that was killed left behind.
        ip(&["link", "del", &near]).ok();
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far])?;
        ip(&["link", "set", &near, "addrgenmode", "none", "up"])?;
        ip(&[
            "link",
            "set",
            &far,
            "master",
            bridge,
            "addrgenmode",
            "none",
            "up",
        ])?;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut carrier = Carrier {
            to_node: open_link(&outer)?,
            to_switch: open_link(&near)?,
            node: host.hardware(),
            nodes,
            weather,
            chance,
            waiting: BinaryHeap::new(),
            carried: 0,
            is_over: is_over.clone(),
        };
        ip(&["link", "set", &outer, "nomaster"])?;
        Ok(Self {
            outer_link: outer,
            near,
            is_over,
            carrier: thread::spawn(move || carrier.run()),
        })
    }

    /// The switch first: a frame that comes twice harms nobody.
    fn mend(self, bridge: &str) -> Result<()> {
        ip(&["link", "set", &self.outer_link, "master", bridge])?;
        self.is_over.store(true, Ordering::Relaxed);
        let result = self.carrier.join();
        ip(&["link", "del", &self.near])?;
        result.map_err(|_| anyhow!("the carrier of {} panicked", self.outer_link))?
    }
}

/// A frame that waits for its moment; of the same moment, the earlier one first.
type Waiting = Reverse<(Instant, u64, Vec<u8>)>;

/// What runs on the thread.
struct Carrier {
    to_node: Socket,
    to_switch: Socket,
    node: [u8; 6],
    nodes: Vec<[u8; 6]>,
    weather: Weather,
    chance: Chance,
    waiting: BinaryHeap<Waiting>,
    carried: u64,
    is_over: Arc<AtomicBool>,
}

impl Carrier {
    fn run(&mut self) -> Result<()> {
        let mut buffer = vec![0; FRAME_BYTES];
        while !self.is_over.load(Ordering::Relaxed) {
            self.wait()?;
            self.carry_in(&mut buffer);
            self.carry_out(&mut buffer);
            self.release();
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let due = self.waiting.peek().map(|Reverse((due, ..))| *due);
        let wait = due.map_or(LOOK, |due| {
            due.saturating_duration_since(Instant::now()).min(LOOK)
        });
        let wait = Timespec::try_from(wait).context("wait for a frame")?;
        let mut both = [
            PollFd::new(&self.to_node, PollFlags::IN),
            PollFd::new(&self.to_switch, PollFlags::IN),
        ];
        match poll(&mut both, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("wait for a frame"),
        }
    }

    /// From the switch to the node. What the node itself sent is not led in a circle.
    fn carry_in(&self, buffer: &mut [u8]) {
        while let Ok(length) = (&self.to_switch).read(buffer) {
            let frame = &buffer[..length];
            if sender(frame).is_some_and(|sender| sender != self.node) {
                pass(&self.to_node, frame);
            }
        }
    }

    /// From the node to the switch, as the weather is.
    fn carry_out(&mut self, buffer: &mut [u8]) {
        while let Ok(length) = (&self.to_node).read(buffer) {
            let frame = &buffer[..length];
            if sender(frame) != Some(self.node) {
                continue;
            }
            if !self.is_between_nodes(frame) {
                pass(&self.to_switch, frame);
                continue;
            }
            for delay in self.delays() {
                self.carried += 1;
                let due = Instant::now() + delay;
                self.waiting
                    .push(Reverse((due, self.carried, frame.to_vec())));
            }
        }
    }

    /// One for each time that the frame is to come.
    fn delays(&mut self) -> Vec<Duration> {
        match self.weather {
            Weather::Jitter => vec![JITTER * self.chance.below(1000) / 1000],
            Weather::Disorder => match self.chance.below(4) {
                0 => vec![Duration::ZERO, Duration::ZERO],
                1 => vec![HELD_BACK],
                _ => vec![Duration::ZERO],
            },
        }
    }

    fn release(&mut self) {
        while let Some(Reverse((due, ..))) = self.waiting.peek()
            && *due <= Instant::now()
        {
            if let Some(Reverse((.., frame))) = self.waiting.pop() {
                pass(&self.to_switch, &frame);
            }
        }
    }

    /// To another node, or to a group, as VRRP is sent.
    fn is_between_nodes(&self, frame: &[u8]) -> bool {
        const BROADCAST: [u8; 6] = [0xff; 6];
        let to = hardware_at(frame, 0);
        to.is_some_and(|to| self.nodes.contains(&to) || (to[0] & 1 == 1 && to != BROADCAST))
    }
}

/// What the network refuses is lost, as ever.
fn pass(socket: &Socket, frame: &[u8]) {
    socket.send(frame).ok();
}

fn sender(frame: &[u8]) -> Option<[u8; 6]> {
    hardware_at(frame, 6)
}

fn hardware_at(frame: &[u8], offset: usize) -> Option<[u8; 6]> {
    frame.get(offset..offset + 6)?.try_into().ok()
}

/// All frames of one link of the machine.
fn open_link(name: &str) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(ALL_PROTOCOLS));
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("open a packet socket")?;
    let found = nix::ifaddrs::getifaddrs()
        .context("list the links")?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| entry.address?.as_link_addr().copied());
    let link: LinkAddr = found.with_context(|| format!("find the link {name}"))?;
    bind(socket.as_raw_fd(), &link).with_context(|| format!("listen on {name}"))?;
    socket
        .set_nonblocking(true)
        .context("set up the packet socket")?;
    Ok(socket)
}

fn set_offload(lan: &Lan, state: &str) -> Result<()> {
    lan.hosts().iter().try_for_each(|host| offload(host, state))
}

/// Whether the host leaves checksums to its link.
fn offload(host: &Host, state: &str) -> Result<()> {
    let mut ethtool: Command = host.command("ethtool");
    output_of(ethtool.args(["-K", HOST_LINK, "tx", state])).map(drop)
}

/// The same numbers in each run, others for each node: a xorshift generator.
#[derive(Clone, Copy, Debug)]
struct Chance(u64);

impl Chance {
    fn new(hardware: [u8; 6]) -> Self {
        let seed = hardware
            .iter()
            .fold(1, |seed: u64, byte| seed << 8 | u64::from(*byte));
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::netns::run_in;

    const PORT: u16 = 6940;
    const SENT: u32 = 200;

    /// Numbers as they arrive at one host that another sends one after the other, a millisecond apart.
    fn arrivals(from: &Host, to: &Host) -> Vec<u32> {
        let receiver = run_in(&to.path(), || UdpSocket::bind((to.address, PORT)).unwrap()).unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let sender = run_in(&from.path(), || UdpSocket::bind((from.address, 0)).unwrap()).unwrap();
        for number in 0..SENT {
            let bytes = number.to_be_bytes();
            sender.send_to(&bytes, (to.address, PORT)).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let mut numbers = Vec::new();
        let mut bytes = [0; 4];
        while receiver.recv(&mut bytes).is_ok() {
            numbers.push(u32::from_be_bytes(bytes));
        }
        numbers
    }

    fn is_in_order(numbers: &[u32]) -> bool {
        numbers.windows(2).all(|pair| pair[0] < pair[1])
    }

    #[test]
    fn disorder_doubles_and_overtakes_between_nodes_only_and_loses_nothing() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("network namespaces need root: nothing was tested");
            return;
        }
        let name = format!("w{}", std::process::id() % 1_000_000);
        let lan = Lan::create(&name, Ipv4Addr::new(198, 18, 63, 0), 3).unwrap();
        let [one, other, client] = lan.hosts() else {
            panic!("three hosts")
        };
        assert!(is_in_order(&arrivals(one, other)), "before");
        let storm = Storm::begin(&lan, 2, Weather::Disorder).unwrap();
        let numbers = arrivals(one, other);
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), SENT as usize, "all come");
        assert!(numbers.len() > SENT as usize, "some come twice");
        assert!(!is_in_order(&numbers), "some are overtaken");
        assert!(is_in_order(&arrivals(one, client)), "a client sees none");
        storm.end().unwrap();
        assert!(is_in_order(&arrivals(one, other)), "afterwards");
    }
}
