//! The rules of the fence, as text for `nft`. Pure.
//!
//! Everything to and from a floating address goes through `gate`, in both directions: what a frozen server had queued is
//! answered after the thaw, so the way out is fenced as well. `gate` follows `cur` to one of two slots, and a slot lets pass
//! only while the kernel has not timed out the element of its set. ARP, and the neighbour messages of IPv6, are fenced on the
//! link itself, so that the address can stay configured on every node.
//!
//! ```text
//!   in, out ──► gate ──cur──► slot_a: in set lease_a? pass : drop
//!                 │     └───► slot_b: in set lease_b? pass : drop
//!                 └ cur is empty: drop
//! ```
//!
//! Loading it again replaces the rules and keeps the elements: a sidecar that was restarted does not interrupt its service.

use std::fmt::Write;
use std::net::IpAddr;

use crate::host::plan::{FloatingAddress, Plan, PortRange};

/// Before connection tracking and everybody else's rules, which are at -300 and later.
const PRIORITY: i32 = -310;
/// The link's hooks have no other users that matter; the earliest usual place.
const LINK_PRIORITY: i32 = -500;

/// The whole rule set: a transaction that replaces what stands, and keeps the elements.
pub fn rules(plan: &Plan) -> String {
    let mut text = String::new();
    write_address_table(&mut text, plan);
    write_link_table(&mut text, plan);
    text
}

/// Takes the tables away, as far as they exist.
pub fn removal(plan: &Plan) -> String {
    let mut text = String::new();
    for family in ["inet", "netdev"] {
        let table = &plan.table;
        line(&mut text, &format!("add table {family} {table}"));
        line(&mut text, &format!("delete table {family} {table}"));
    }
    text
}

fn write_address_table(text: &mut String, plan: &Plan) {
    let table = format!("inet {}", plan.table);
    write_gate(text, &table);
    for (chain, hook) in [("in", "prerouting"), ("out", "output")] {
        add_chain(
            text,
            &format!("{table} {chain}"),
            &format!(" {{ type filter hook {hook} priority {PRIORITY}; policy accept; }}"),
        );
    }
    for address in &plan.addresses {
        let family = if address.ip.is_ipv4() { "ip" } else { "ip6" };
        let ip = address.ip;
        line(
            text,
            &format!("add rule {table} in {family} daddr {ip} jump gate"),
        );
        line(
            text,
            &format!("add rule {table} out {family} saddr {ip} jump gate"),
        );
    }
    for ports in &plan.ports {
        let (protocol, range) = port_words(*ports);
        line(
            text,
            &format!("add rule {table} in iifname != \"lo\" {protocol} dport {range} jump gate"),
        );
        line(
            text,
            &format!("add rule {table} out oifname != \"lo\" {protocol} sport {range} jump gate"),
        );
    }
}

fn write_link_table(text: &mut String, plan: &Plan) {
    let table = format!("netdev {}", plan.table);
    write_gate(text, &table);
    for (at, interface) in plan.interfaces().into_iter().enumerate() {
        for (chain, hook) in [("in", "ingress"), ("out", "egress")] {
            add_chain(
                text,
                &format!("{table} {chain}{at}"),
                &format!(
                    " {{ type filter hook {hook} device \"{interface}\" priority {LINK_PRIORITY}; policy accept; }}"
                ),
            );
        }
        let is_here = |address: &&FloatingAddress| address.interface == interface;
        for address in plan.addresses.iter().filter(is_here) {
            write_neighbour_rules(text, &table, at, address.ip);
        }
    }
}

/// Who asks for the address is not heard, and nothing is said of it.
fn write_neighbour_rules(text: &mut String, table: &str, at: usize, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            line(
                text,
                &format!("add rule {table} in{at} arp daddr ip {ip} jump gate"),
            );
            line(
                text,
                &format!("add rule {table} out{at} arp saddr ip {ip} jump gate"),
            );
        }
        IpAddr::V6(ip) => {
            // The target stands eight bytes into the message; nft of Debian 12 has no name for it.
            let target = format!("@th,64,128 {:#034x}", u128::from(ip));
            line(
                text,
                &format!(
                    "add rule {table} in{at} icmpv6 type nd-neighbor-solicit {target} jump gate"
                ),
            );
            line(
                text,
                &format!(
                    "add rule {table} out{at} icmpv6 type nd-neighbor-advert {target} jump gate"
                ),
            );
        }
    }
}

fn write_gate(text: &mut String, table: &str) {
    line(text, &format!("add table {table}"));
    line(text, &format!("add counter {table} dropped"));
    for set in ["lease_a", "lease_b"] {
        line(
            text,
            &format!("add set {table} {set} {{ type ether_type; flags timeout; }}"),
        );
    }
    line(
        text,
        &format!("add map {table} cur {{ type ether_type : verdict; }}"),
    );
    for chain in ["slot_a", "slot_b", "gate"] {
        add_chain(text, &format!("{table} {chain}"), "");
    }
    for (chain, set) in [("slot_a", "lease_a"), ("slot_b", "lease_b")] {
        line(
            text,
            &format!("add rule {table} {chain} meta protocol @{set} accept"),
        );
        line(
            text,
            &format!("add rule {table} {chain} counter name dropped drop"),
        );
    }
    line(
        text,
        &format!("add rule {table} gate meta protocol vmap @cur"),
    );
    line(
        text,
        &format!("add rule {table} gate counter name dropped drop"),
    );
}

fn add_chain(text: &mut String, chain: &str, kind: &str) {
    line(text, &format!("add chain {chain}{kind}"));
    line(text, &format!("flush chain {chain}"));
}

fn port_words(ports: PortRange) -> (String, String) {
    let range = if ports.first == ports.last {
        ports.first.to_string()
    } else {
        format!("{}-{}", ports.first, ports.last)
    };
    (ports.protocol.as_str().to_lowercase(), range)
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a text can grow");
}

#[cfg(test)]
mod tests {
    use super::*;
    use pbx_crds::cluster::Protocol;

    fn plan() -> Plan {
        let address = |ip: &str, interface: &str| FloatingAddress {
            ip: ip.parse().unwrap(),
            prefix: 24,
            interface: interface.into(),
        };
        Plan {
            table: "pbxha_office".into(),
            addresses: vec![address("192.0.2.50", "eth0"), address("fd00::50", "eth1")],
            ports: vec![PortRange {
                protocol: Protocol::Udp,
                first: 10_000,
                last: 20_000,
            }],
        }
    }

    #[test]
    fn each_address_is_fenced_in_both_directions_and_on_its_own_link() {
        let text = rules(&plan());
        for rule in [
            "add rule inet pbxha_office in ip daddr 192.0.2.50 jump gate",
            "add rule inet pbxha_office out ip6 saddr fd00::50 jump gate",
            "add rule inet pbxha_office in iifname != \"lo\" udp dport 10000-20000 jump gate",
            "add rule netdev pbxha_office out0 arp saddr ip 192.0.2.50 jump gate",
            "add rule netdev pbxha_office in1 icmpv6 type nd-neighbor-solicit @th,64,128 0xfd000000000000000000000000000050 jump gate",
        ] {
            assert!(text.contains(rule), "{rule} is missing in\n{text}");
        }
        assert!(!text.contains("in0 icmpv6"), "{text}");
    }

    #[test]
    fn loading_never_deletes_a_set_or_a_table() {
        let text = rules(&plan());
        assert!(
            !text.contains("delete") && !text.contains("flush set") && !text.contains("flush map")
        );
    }
}
