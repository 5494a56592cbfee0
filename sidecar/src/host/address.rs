//! Links and addresses of the host, by rtnetlink: what is there, and putting a floating address on its link.
//!
//! A floating address stands on every node all the time, behind the fence: Asterisk can be bound to it before the node is active,
//! and taking over is one announcement. So it is no address that the host would choose by itself to send from (deprecated, and
//! without a route of its own), and IPv6 does not look for duplicates of it, since the other nodes have it too.

use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use thiserror::Error;

use super::plan::FloatingAddress;

const FOREVER: u32 = u32::MAX;

/// What failed.
#[derive(Debug, Error)]
pub enum AddressError {
    /// There is no such link.
    #[error("there is no link {interface}: create it, or correct network.vip[].interface")]
    NoLink {
        /// As configured.
        interface: String,
    },
    /// The addresses of a link cannot be read.
    #[error("cannot read the addresses of {interface}: {source}")]
    Read {
        /// The link.
        interface: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// An address cannot be added.
    #[error("cannot add {ip}/{prefix} to {interface}: {source} (the sidecar needs CAP_NET_ADMIN)")]
    Add {
        /// The address.
        ip: IpAddr,
        /// Its prefix.
        prefix: u8,
        /// The link.
        interface: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// An address cannot be removed.
    #[error("cannot remove {ip}: {source}")]
    Remove {
        /// The address.
        ip: IpAddr,
        /// Why not.
        source: rtnetlink::Error,
    },
}

/// A link as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its hardware address; links without one (such as point-to-point) are not announced on.
    pub hardware: Option<[u8; 6]>,
    /// It is up and has a carrier.
    pub is_up: bool,
    /// Its addresses, each with the length of its prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Link {
    /// Whether this address of the file stands on it.
    pub fn has(&self, address: &FloatingAddress) -> bool {
        self.addresses.contains(&(address.ip, address.prefix))
    }

    /// Whether one of the host's own addresses on it is in the same network: who is not has no neighbours there.
    pub fn is_on_link(&self, ip: IpAddr, floating: &[FloatingAddress]) -> bool {
        let is_own = |found: &IpAddr| !floating.iter().any(|address| address.ip == *found);
        let own = self.addresses.iter().filter(|(found, _)| is_own(found));
        own.into_iter()
            .any(|(found, prefix)| is_same_network(*found, ip, *prefix))
    }
}

/// Reads a link.
pub async fn read_link(handle: &Handle, interface: &str) -> Result<Link, AddressError> {
    let mut found = handle.link().get().match_name(interface).execute();
    let Ok(Some(message)) = found.try_next().await else {
        return Err(AddressError::NoLink {
            interface: interface.into(),
        });
    };
    let index = message.header.index;
    let hardware = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
    let messages = addresses_of(handle, index).await;
    let messages = messages.map_err(|source| AddressError::Read {
        interface: interface.into(),
        source,
    })?;
    Ok(Link {
        index,
        hardware,
        is_up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp),
        addresses: messages.iter().filter_map(parse_address).collect(),
    })
}

/// Puts the address on its link; one that is there already stays.
pub async fn add(
    handle: &Handle,
    index: u32,
    address: &FloatingAddress,
) -> Result<(), AddressError> {
    let mut request = handle
        .address()
        .add(index, address.ip, address.prefix)
        .replace();
    let attributes = &mut request.message_mut().attributes;
    attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Flags(_)));
    attributes.push(AddressAttribute::Flags(
        AddressFlags::Nodad | AddressFlags::Noprefixroute,
    ));
    let mut lifetimes = CacheInfo::default();
    (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, FOREVER);
    attributes.push(AddressAttribute::CacheInfo(lifetimes));
    request.execute().await.map_err(|source| AddressError::Add {
        ip: address.ip,
        prefix: address.prefix,
        interface: address.interface.clone(),
        source,
    })
}

/// Takes the address off its link, if it is there.
pub async fn remove(handle: &Handle, index: u32, ip: IpAddr) -> Result<(), AddressError> {
    let failed = |source| AddressError::Remove { ip, source };
    for message in addresses_of(handle, index).await.map_err(failed)? {
        if parse_address(&message).is_some_and(|(found, _)| found == ip) {
            handle
                .address()
                .del(message)
                .execute()
                .await
                .map_err(failed)?;
        }
    }
    Ok(())
}

async fn addresses_of(
    handle: &Handle,
    index: u32,
) -> Result<Vec<AddressMessage>, rtnetlink::Error> {
    let request = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute();
    let messages: Vec<_> = request.collect().await;
    messages.into_iter().collect()
}

fn parse_address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    // IPv6 has its own address there; IPv4 on a point-to-point link has the peer's, and its own in Local.
    let ip = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    });
    Some((ip?, message.header.prefix_len))
}

fn is_same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let network = |bits: u128, width: u32| bits >> (width - u32::from(prefix).min(width)).min(127);
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            network(u32::from(a).into(), 32) == network(u32::from(b).into(), 32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => network(a.into(), 128) == network(b.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(own: &[(&str, u8)]) -> Link {
        Link {
            index: 2,
            hardware: None,
            is_up: true,
            addresses: own
                .iter()
                .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix))
                .collect(),
        }
    }

    #[test]
    fn an_address_of_another_network_is_not_on_the_link() {
        let link = link(&[("192.0.2.11", 24), ("2001:db8::11", 64), ("fe80::1", 64)]);
        let is_on_link = |ip: &str| link.is_on_link(ip.parse().unwrap(), &[]);
        assert!(is_on_link("192.0.2.50") && is_on_link("2001:db8::50"));
        assert!(!is_on_link("192.0.3.50") && !is_on_link("2001:db9::50"));
    }

    #[test]
    fn the_floating_address_itself_proves_nothing() {
        let ip: IpAddr = "192.0.2.50".parse().unwrap();
        let floating = FloatingAddress {
            ip,
            prefix: 24,
            interface: "eth0".into(),
        };
        let link = link(&[("192.0.2.50", 24)]);
        assert!(link.has(&floating) && !link.is_on_link(ip, &[floating]));
    }
}
