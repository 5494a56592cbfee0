//! What the kernel must be set to for a floating address, checked at the start: a line for each setting that is not so.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::plan::Plan;

/// What is wrong with the settings below `root` (`/proc/sys/net`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The service cannot work.
    pub errors: Vec<String>,
    /// It works, but not as well as it should.
    pub warnings: Vec<String>,
}

/// Looks at the settings that matter for the plan.
pub fn check(plan: &Plan, root: &Path) -> Findings {
    let mut findings = Findings::default();
    let links = fs::read_dir(root.join("ipv4/conf")).map_or(0, |entries| {
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|name| !["all", "default", "lo"].contains(&name.as_str()))
            .count()
    });
    for interface in plan.interfaces() {
        let mut of_link = plan
            .addresses
            .iter()
            .filter(|address| address.interface == interface);
        let has =
            |is_wanted: fn(&IpAddr) -> bool| of_link.clone().any(|address| is_wanted(&address.ip));
        if has(IpAddr::is_ipv6) && read(root, "ipv6", interface, "disable_ipv6") == Some(1) {
            findings.errors.push(format!(
                "IPv6 is off on {interface}, which has a floating IPv6 address: sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0"
            ));
        }
        let is_quiet = || {
            let own = read(root, "ipv4", interface, "arp_ignore");
            own.max(read(root, "ipv4", "all", "arp_ignore")) > Some(0)
        };
        if of_link.any(|address| address.ip.is_ipv4()) && links > 1 && !is_quiet() {
            findings.warnings.push(format!(
                "this host has {links} links, and answers ARP for an address of {interface} on all of them, where nothing is fenced: \
                 sysctl -w net.ipv4.conf.all.arp_ignore=1"
            ));
        }
    }
    findings
}

fn read(root: &Path, family: &str, interface: &str, name: &str) -> Option<u32> {
    let text =
        fs::read_to_string(root.join(family).join("conf").join(interface).join(name)).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::plan::FloatingAddress;

    fn found(settings: &[(&str, &str)]) -> Findings {
        let root = tempfile::tempdir().unwrap();
        for (path, value) in settings {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        let address = |ip: &str| FloatingAddress {
            ip: ip.parse().unwrap(),
            prefix: 24,
            interface: "eth0".into(),
        };
        let plan = Plan {
            table: "pbxha_office".into(),
            addresses: vec![address("192.0.2.50"), address("2001:db8::50")],
            ports: Vec::new(),
        };
        check(&plan, root.path())
    }

    #[test]
    fn a_host_with_one_link_needs_nothing() {
        let one_link = [
            ("ipv4/conf/eth0/arp_ignore", "0\n"),
            ("ipv4/conf/lo/arp_ignore", "0\n"),
        ];
        assert_eq!(found(&one_link), Findings::default());
    }

    #[test]
    fn a_second_link_needs_arp_ignore() {
        let links = [
            ("ipv4/conf/eth0/arp_ignore", "0\n"),
            ("ipv4/conf/eth1/arp_ignore", "0\n"),
        ];
        assert!(found(&links).warnings[0].contains("arp_ignore=1"));
        let quiet = [links[0], links[1], ("ipv4/conf/all/arp_ignore", "1\n")];
        assert_eq!(found(&quiet), Findings::default());
    }

    #[test]
    fn ipv6_that_is_off_is_an_error() {
        let off = [("ipv6/conf/eth0/disable_ipv6", "1\n")];
        assert!(found(&off).errors[0].contains("disable_ipv6=0"));
    }
}
