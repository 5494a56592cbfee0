//! The `network` part of the sidecar's file, checked as a whole: which addresses float, on which links, and what is fenced. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use pbx_crds::cluster::Protocol;
use pbx_crds::sidecar_config::{FencedPorts, NetworkConfig, SidecarConfig, VipConfig};

/// More addresses than any PBX needs; each is announced several times at a promotion.
const MAX_ADDRESSES: usize = 8;
/// The kernel's limit for a link's name, without the closing zero.
const MAX_INTERFACE_BYTES: usize = 15;

/// What floats and what is fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the tables in nftables.
    pub table: String,
    /// All of them move together.
    pub addresses: Vec<FloatingAddress>,
    /// Ports that only the active answers, at every address of the host.
    pub ports: Vec<PortRange>,
}

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// The link it belongs to.
    pub interface: String,
}

/// Fenced ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Plan {
    /// The links concerned, each once, in the order of the file.
    pub fn interfaces(&self) -> Vec<&str> {
        let mut interfaces: Vec<&str> = Vec::new();
        for address in &self.addresses {
            if !interfaces.contains(&address.interface.as_str()) {
                interfaces.push(&address.interface);
            }
        }
        interfaces
    }
}

/// The plan of a file that has a `network`; every problem is added with its path.
pub fn plan(file: &SidecarConfig, problems: &mut Vec<String>) -> Option<Plan> {
    let network = file.network.as_ref()?;
    let is_slice_named = file
        .kubernetes
        .as_ref()
        .is_some_and(|kubernetes| kubernetes.endpoint_slice.is_some());
    if is_slice_named {
        problems.push(
            "network: the traffic is moved by kubernetes.endpointSlice already: leave one of the two out"
                .into(),
        );
    }
    let addresses = addresses(network, problems);
    for (at, address) in addresses.iter().enumerate() {
        check_use(file, at, address, problems);
    }
    Some(Plan {
        table: table_name(&file.cluster),
        addresses,
        ports: ports(file, network, problems),
    })
}

fn addresses(network: &NetworkConfig, problems: &mut Vec<String>) -> Vec<FloatingAddress> {
    if !(1..=MAX_ADDRESSES).contains(&network.vip.len()) {
        problems.push(format!(
            "network.vip: {} addresses: list 1 to {MAX_ADDRESSES}, or leave network out",
            network.vip.len()
        ));
    }
    let mut addresses: Vec<FloatingAddress> = Vec::new();
    for (at, vip) in network.vip.iter().enumerate() {
        check_interface(at, &vip.interface, problems);
        match parse_address(vip) {
            Err(why) => problems.push(format!("network.vip[{at}].address: {why}")),
            Ok(address) if addresses.iter().any(|other| other.ip == address.ip) => {
                problems.push(format!(
                    "network.vip[{at}].address: {} stands there twice: leave one out",
                    address.ip
                ));
            }
            Ok(address) => addresses.push(address),
        }
    }
    addresses
}

fn parse_address(vip: &VipConfig) -> Result<FloatingAddress, String> {
    let text = &vip.address;
    let example = "write it as 192.0.2.50/24 or 2001:db8::50/64";
    let (ip, prefix) = text
        .split_once('/')
        .ok_or_else(|| format!("{text} has no prefix length: {example}"))?;
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| format!("{text} is no address: {example}"))?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix
        .parse()
        .ok()
        .filter(|prefix| (1..=longest).contains(prefix))
        .ok_or_else(|| format!("{text} has no prefix length from 1 to {longest}: {example}"))?;
    if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
        return Err(format!(
            "{ip} is not the address of one host on a link: choose a free address of the link's network"
        ));
    }
    let interface = vip.interface.clone();
    Ok(FloatingAddress {
        ip,
        prefix,
        interface,
    })
}

fn check_interface(at: usize, name: &str, problems: &mut Vec<String>) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@:".contains(&byte);
    let is_name = (1..=MAX_INTERFACE_BYTES).contains(&name.len()) && name.bytes().all(is_plain);
    if !is_name || name == "lo" {
        problems.push(format!(
            "network.vip[{at}].interface: {name:?} is no link that a client can reach: name one that `ip link` shows"
        ));
    }
}

/// A floating address is nobody's own: what the node needs to vote must not depend on it.
fn check_use(
    file: &SidecarConfig,
    at: usize,
    address: &FloatingAddress,
    problems: &mut Vec<String>,
) {
    let ip = address.ip;
    if heartbeat_addresses(file).any(|own| own.ip() == ip) {
        problems.push(format!(
            "network.vip[{at}].address: {ip} is where heartbeats go: give the heartbeats the host's own address"
        ));
    }
    if file.http.ip() == ip {
        problems.push(format!(
            "network.vip[{at}].address: {ip} is where http is served: serve it at the host's own address"
        ));
    }
}

fn heartbeat_addresses(file: &SidecarConfig) -> impl Iterator<Item = SocketAddr> + '_ {
    let peers = file.nodes.iter().flat_map(|peer| {
        let links = peer.addresses.iter().map(|link| link.address);
        peer.address.into_iter().chain(links)
    });
    peers.chain(file.heartbeat.listen)
}

fn ports(
    file: &SidecarConfig,
    network: &NetworkConfig,
    problems: &mut Vec<String>,
) -> Vec<PortRange> {
    let mut heartbeats: BTreeSet<u16> = heartbeat_addresses(file).map(|own| own.port()).collect();
    heartbeats.insert(crate::config::heartbeat_port(file));
    let mut ranges = Vec::new();
    for (at, ports) in network.fence.ports.iter().enumerate() {
        let range = range_of(ports);
        let holds = |port| (range.first..=range.last).contains(&port);
        let path = format!("network.fence.ports[{at}]");
        if range.first == 0 || range.last < range.first {
            problems.push(format!(
                "{path}: {} to {} is no range: write port, and endPort not below it",
                range.first, range.last
            ));
        }
        if let (Protocol::Udp, Some(port)) =
            (range.protocol, heartbeats.iter().find(|port| holds(**port)))
        {
            problems.push(format!(
                "{path}: holds the heartbeats' port {port}: without them no node is ever active; leave it out"
            ));
        }
        if range.protocol == Protocol::Tcp && holds(file.http.port()) {
            problems.push(format!(
                "{path}: holds the port of http, {}: a standby could not be asked; leave it out",
                file.http.port()
            ));
        }
        ranges.push(range);
    }
    ranges
}

fn range_of(ports: &FencedPorts) -> PortRange {
    PortRange {
        protocol: ports.protocol,
        first: ports.port,
        last: ports.end_port.unwrap_or(ports.port),
    }
}

/// Only letters, digits and underscores: what nftables takes without quotes.
fn table_name(cluster: &str) -> String {
    let plain = cluster.chars().map(|letter| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    });
    format!("pbxha_{}", plain.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = r"
cluster: main-office
node: a
nodes: [{name: a, address: '192.0.2.11:6940'}, {name: b, address: '192.0.2.12:6940'}, {name: c, address: '192.0.2.13:6940'}]
heartbeat: {keyFile: /key}
asterisk: {userDirs: []}
network:
";

    fn plan_of(network: &str) -> (Option<Plan>, Vec<String>) {
        let file = serde_yaml::from_str(&format!("{HOSTS}{network}")).unwrap();
        let mut problems = Vec::new();
        (plan(&file, &mut problems), problems)
    }

    #[test]
    fn both_families_on_one_link_are_planned() {
        let (plan, problems) = plan_of(
            "  vip: [{address: 192.0.2.50/24, interface: eth0}, {address: '2001:db8::50/64', interface: eth0}]\n  \
             fence: {ports: [{port: 5060}, {port: 10000, endPort: 20000}]}\n",
        );
        assert_eq!(problems, [""; 0]);
        let plan = plan.unwrap();
        assert_eq!(plan.table, "pbxha_main_office");
        assert_eq!(plan.interfaces(), ["eth0"]);
        assert_eq!((plan.addresses[1].prefix, plan.ports[1].last), (64, 20000));
    }

    #[test]
    fn every_problem_is_said_with_its_path() {
        let (_, problems) = plan_of(
            "  vip: [{address: 192.0.2.11/24, interface: eth0}, {address: 192.0.2.50, interface: 'eth0;x'}, \
             {address: 224.0.0.1/4, interface: lo}, {address: '::1/200', interface: eth0}]\n  \
             fence: {ports: [{port: 6000, endPort: 7000}, {protocol: TCP, port: 8081}, {port: 9, endPort: 8}]}\n",
        );
        let said = problems.join("\n");
        for part in [
            "network.vip[0].address: 192.0.2.11 is where heartbeats go",
            "network.vip[1].address: 192.0.2.50 has no prefix length",
            "network.vip[1].interface",
            "network.vip[2].address: 224.0.0.1 is not the address of one host",
            "network.vip[2].interface",
            "network.vip[3].address: ::1/200 has no prefix length from 1 to 128",
            "network.fence.ports[0]: holds the heartbeats' port",
            "network.fence.ports[1]: holds the port of http",
            "network.fence.ports[2]: 9 to 8 is no range",
        ] {
            assert!(said.contains(part), "{part} is missing in\n{said}");
        }
    }

    #[test]
    fn no_address_and_one_named_twice_are_refused() {
        assert!(plan_of("  vip: []\n").1[0].starts_with("network.vip: 0 addresses"));
        let twice = "  vip: [{address: 192.0.2.50/24, interface: eth0}, {address: 192.0.2.50/32, interface: eth0}]\n";
        assert!(plan_of(twice).1[0].contains("twice"));
    }
}
