//! The links of a cluster, from its file: one unnamed link (a pod's, or a host's only address), or the named ones that every node
//! has an address on. Pure; every problem is said with its path.

use std::net::SocketAddr;

use pbx_core::MAX_NODES;
use pbx_crds::names::HEARTBEAT_PORT;
use pbx_crds::sidecar_config::{LinkAddress, SidecarConfig};

use super::MAX_LINKS;

/// Longer names would not fit `status` and metrics well.
const MAX_NAME: usize = 15;

/// One link, as this node uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// Its name; the only link of an address in short form has none.
    pub name: Option<String>,
    /// Where this node receives.
    pub listen: SocketAddr,
    /// Where the others do, as far as the file says.
    pub peers: [Option<SocketAddr>; MAX_NODES],
}

/// The links, in the order that all nodes number them by: that of their names.
pub fn plan(file: &SidecarConfig, own: usize, problems: &mut Vec<String>) -> Vec<LinkPlan> {
    if file.nodes.iter().all(|node| node.addresses.is_empty()) {
        return vec![unnamed(file)];
    }
    let before = problems.len();
    check(file, problems);
    if problems.len() > before {
        return Vec::new();
    }
    let mut names: Vec<&str> = file.nodes[own]
        .addresses
        .iter()
        .map(|link| link.name.as_str())
        .collect();
    names.sort_unstable();
    names
        .into_iter()
        .map(|name| named(file, own, name))
        .collect()
}

/// How a link to `peer` is called in status, metrics and messages.
pub fn link_name(peer: &str, link: Option<&str>) -> String {
    link.map_or_else(|| peer.to_owned(), |link| format!("{peer}/{link}"))
}

fn unnamed(file: &SidecarConfig) -> LinkPlan {
    let mut peers = [None; MAX_NODES];
    for (known, node) in peers.iter_mut().zip(&file.nodes) {
        *known = node.address;
    }
    LinkPlan {
        name: None,
        listen: file.heartbeat.listen(),
        peers,
    }
}

fn named(file: &SidecarConfig, own: usize, name: &str) -> LinkPlan {
    let mut peers = [None; MAX_NODES];
    for (known, node) in peers.iter_mut().zip(&file.nodes) {
        *known = address_on(&node.addresses, name);
    }
    LinkPlan {
        name: Some(name.to_owned()),
        listen: peers[own].unwrap_or(([0, 0, 0, 0], HEARTBEAT_PORT).into()),
        peers,
    }
}

fn address_on(links: &[LinkAddress], name: &str) -> Option<SocketAddr> {
    links
        .iter()
        .find(|link| link.name == name)
        .map(|link| link.address)
}

fn check(file: &SidecarConfig, problems: &mut Vec<String>) {
    let has_slice = file
        .kubernetes
        .as_ref()
        .is_some_and(|kubernetes| kubernetes.endpoint_slice.is_some());
    if has_slice {
        problems.push("nodes: addresses are for bare hosts: a pod has one address, found by reading the pods; remove them".into());
    }
    if file.heartbeat.listen.is_some() {
        problems.push("heartbeat.listen: each link has a socket of its own, on this node's address of it: remove it".into());
    }
    let names = names_of(&file.nodes[0].addresses);
    for (at, node) in file.nodes.iter().enumerate() {
        let path = format!("nodes[{at}].addresses");
        if node.address.is_some() {
            problems.push(format!(
                "nodes[{at}]: address and addresses exclude each other: keep addresses"
            ));
        }
        if names_of(&node.addresses) != names {
            problems.push(format!(
                "{path}: every node needs an address on every link: those of nodes[0] are {}",
                names.join(", ")
            ));
        }
        check_links(&path, &node.addresses, problems);
    }
    check_addresses(file, problems);
}

fn names_of(links: &[LinkAddress]) -> Vec<&str> {
    let mut names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn check_links(path: &str, links: &[LinkAddress], problems: &mut Vec<String>) {
    if links.len() > MAX_LINKS {
        problems.push(format!(
            "{path}: {} links: use {MAX_LINKS} at most",
            links.len()
        ));
    }
    for (at, link) in links.iter().enumerate() {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_good = (1..=MAX_NAME).contains(&link.name.len()) && link.name.chars().all(is_plain);
        if !is_good {
            problems.push(format!(
                "{path}[{at}].name: '{}': use 1 to {MAX_NAME} of a-z, 0-9 and -",
                link.name
            ));
        }
        if links[..at].iter().any(|other| other.name == link.name) {
            problems.push(format!(
                "{path}[{at}].name: {} stands there twice: names are unique",
                link.name
            ));
        }
        if link.address.ip().is_unspecified() || link.address.port() == 0 {
            problems.push(format!(
                "{path}[{at}].address: {}: write the address and port of this link",
                link.address
            ));
        }
    }
}

/// Two links at one address would be cut together.
fn check_addresses(file: &SidecarConfig, problems: &mut Vec<String>) {
    let mut known = Vec::new();
    for (at, node) in file.nodes.iter().enumerate() {
        for (number, link) in node.addresses.iter().enumerate() {
            if known.contains(&link.address) {
                problems.push(format!(
                    "nodes[{at}].addresses[{number}].address: {} stands there twice: each link of each node has its own",
                    link.address
                ));
            }
            known.push(link.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(nodes: &str, rest: &str) -> (Vec<LinkPlan>, String) {
        let text =
            format!("cluster: office\nnode: a\nnodes: {nodes}\nasterisk: {{userDirs: []}}\n{rest}");
        let file: SidecarConfig = serde_yaml::from_str(&text).unwrap();
        let mut problems = Vec::new();
        let links = plan(&file, 0, &mut problems);
        (links, problems.join("\n"))
    }

    const KEY: &str = "heartbeat: {keyFile: /key}";

    #[test]
    fn one_address_is_one_link_without_a_name() {
        let (links, problems) = planned(
            "[{name: a, address: '192.0.2.1:6940'}, {name: b, address: '192.0.2.2:6940'}]",
            KEY,
        );
        assert_eq!(problems, "");
        assert_eq!((links.len(), links[0].name.clone()), (1, None));
        assert_eq!(links[0].listen, ([0, 0, 0, 0], 6940).into());
        assert_eq!(links[0].peers[1], Some(([192, 0, 2, 2], 6940).into()));
        assert_eq!(link_name("b", None), "b");
    }

    #[test]
    fn links_are_numbered_by_name_whatever_their_order_in_the_file() {
        let (links, problems) = planned(
            "[{name: a, addresses: [{name: wan, address: '10.0.0.1:6940'}, {name: lan, address: '192.0.2.1:6940'}]}, \
              {name: b, addresses: [{name: lan, address: '192.0.2.2:6940'}, {name: wan, address: '[fd00::2]:6940'}]}]",
            KEY,
        );
        assert_eq!(problems, "");
        let names: Vec<_> = links.iter().map(|link| link.name.as_deref()).collect();
        assert_eq!(names, [Some("lan"), Some("wan")]);
        assert_eq!(links[0].listen, ([192, 0, 2, 1], 6940).into());
        assert_eq!(links[1].peers[1], Some("[fd00::2]:6940".parse().unwrap()));
        assert_eq!(link_name("b", Some("wan")), "b/wan");
    }

    #[test]
    fn every_problem_is_said_with_its_path() {
        let (_, problems) = planned(
            "[{name: a, address: '192.0.2.9:1', addresses: [{name: lan, address: '192.0.2.1:6940'}, {name: lan, address: '192.0.2.1:6940'}]}, \
              {name: b, addresses: [{name: WAN, address: '0.0.0.0:6940'}]}, {name: c}]",
            "heartbeat: {keyFile: /key, listen: '0.0.0.0:6940'}",
        );
        for part in [
            "heartbeat.listen",
            "nodes[0]: address and addresses",
            "nodes[0].addresses[1].name: lan stands there twice",
            "nodes[0].addresses[1].address: 192.0.2.1:6940 stands there twice",
            "nodes[1].addresses: every node needs",
            "nodes[1].addresses[0].name: 'WAN'",
            "nodes[1].addresses[0].address: 0.0.0.0:6940",
            "nodes[2].addresses: every node needs",
        ] {
            assert!(problems.contains(part), "{part} is not in\n{problems}");
        }
    }
}
