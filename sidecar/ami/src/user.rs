//! Who may use the hub: names, secrets, permission classes, addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use md5::{Digest, Md5};
use tokio::sync::watch;

use crate::class::Classes;
use crate::filter::Filters;

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The secret.
    pub secret: Secret,
    /// What events it hears.
    pub read: Classes,
    /// What actions it may ask for.
    pub write: Classes,
    /// The networks it may come from; empty: any. The unix socket's file says who may use it.
    pub permit: Vec<Network>,
    /// What is kept from it besides.
    pub filters: Filters,
}

/// A secret, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From its text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// As it travels between the nodes of a cluster.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads it; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("{text}: write a network as 10.0.0.0/8 or fd00::/8"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            "" => longest,
            digits => digits.parse().unwrap_or(u8::MAX),
        };
        if prefix > longest {
            return Err(format!("{text}: the prefix is at most {longest}"));
        }
        Ok(Self { address, prefix })
    }

    fn contains(self, peer: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(four) => (u128::from(four.to_bits()) << 96, true),
            IpAddr::V6(six) => (six.to_bits(), false),
        };
        let ((own, own_is_four), (peer, peer_is_four)) =
            (bits(self.address), bits(peer.to_canonical()));
        let shift = 128 - u32::from(self.prefix);
        let same = |shift| own.checked_shr(shift) == peer.checked_shr(shift);
        own_is_four == peer_is_four && same(shift)
    }
}

/// All users, by name. Clones share one list.
#[derive(Clone, Debug)]
pub struct Users(watch::Sender<ByName>);

type ByName = HashMap<String, Arc<User>>;

impl Users {
    /// From a list; the last of a name counts.
    pub fn new(users: impl IntoIterator<Item = User>) -> Self {
        Self(watch::Sender::new(by_name(users)))
    }

    /// Another list, from now on and for all clones. Who is logged in keeps the rights that it has.
    pub fn replace(&self, users: impl IntoIterator<Item = User>) {
        self.0.send_replace(by_name(users));
    }

    /// The user of this name, if it may come from `peer` (`None`: a unix socket) and knows the secret.
    pub fn authenticate(
        &self,
        name: &str,
        proof: Proof<'_>,
        peer: Option<IpAddr>,
    ) -> Option<Arc<User>> {
        let user = self.get(name)?;
        let is_near = match peer {
            Some(peer) if !user.permit.is_empty() => {
                user.permit.iter().any(|network| network.contains(peer))
            }
            _ => true,
        };
        let is_proven = match proof {
            Proof::Secret(secret) => is_same(secret, user.secret.text().as_bytes()),
            Proof::Md5 { challenge, key } => {
                let expected = md5_key(challenge, user.secret.text());
                is_same(&key.to_ascii_lowercase(), expected.as_bytes())
            }
        };
        (is_near && is_proven).then_some(user)
    }

    /// The user of this name, unasked.
    pub fn get(&self, name: &str) -> Option<Arc<User>> {
        self.0.borrow().get(name).cloned()
    }
}

fn by_name(users: impl IntoIterator<Item = User>) -> ByName {
    let named = |user: User| (user.name.clone(), Arc::new(user));
    users.into_iter().map(named).collect()
}

/// What a client shows.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// The secret itself.
    Secret(&'a [u8]),
    /// MD5 of challenge and secret, in hexadecimal.
    Md5 {
        /// What it was given.
        challenge: &'a str,
        /// What it made of it.
        key: &'a [u8],
    },
}

/// What a client answers to a challenge.
pub(crate) fn md5_key(challenge: &str, secret: &str) -> String {
    let digest = Md5::new()
        .chain_update(challenge)
        .chain_update(secret)
        .finalize();
    digest.iter().fold(String::new(), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("four bits"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("four bits"));
        text
    })
}

/// Compares without telling by its duration where the difference is.
fn is_same(found: &[u8], expected: &[u8]) -> bool {
    let difference = found
        .iter()
        .zip(expected)
        .fold(0, |sum, (one, other)| sum | (one ^ other));
    found.len() == expected.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::new([User {
            name: "desk".into(),
            secret: Secret::new("s3cret".into()),
            read: Classes::ALL,
            write: Classes::NONE,
            permit: vec![
                Network::parse("10.0.0.0/8").unwrap(),
                Network::parse("fd00::1").unwrap(),
            ],
            filters: Filters::default(),
        }])
    }

    #[test]
    fn both_proofs_and_the_address_are_checked() {
        let users = users();
        let near = Some("10.2.3.4".parse().unwrap());
        let is = |proof, peer| users.authenticate("desk", proof, peer).is_some();
        assert!(is(Proof::Secret(b"s3cret"), near));
        assert!(!is(Proof::Secret(b"s3cre"), near) && !is(Proof::Secret(b""), near));
        // As `printf 42s3cret | md5sum` has it.
        let key = md5_key("42", "s3cret");
        assert_eq!(key, "ab35787319fcffb0ce02b404ba6e7eda");
        let proof = |challenge| Proof::Md5 {
            challenge,
            key: key.as_bytes(),
        };
        assert!(is(proof("42"), near) && !is(proof("43"), near));
        assert!(!is(
            Proof::Secret(b"s3cret"),
            Some("11.0.0.1".parse().unwrap())
        ));
        assert!(is(
            Proof::Secret(b"s3cret"),
            Some("::ffff:10.1.1.1".parse().unwrap())
        ));
        assert!(is(
            Proof::Secret(b"s3cret"),
            Some("fd00::1".parse().unwrap())
        ));
        assert!(is(Proof::Secret(b"s3cret"), None));
        assert!(
            users
                .authenticate("none", Proof::Secret(b""), near)
                .is_none()
        );
    }

    #[test]
    fn a_bad_network_is_named() {
        assert!(
            Network::parse("10.0.0.0/33")
                .unwrap_err()
                .contains("at most 32")
        );
        assert!(Network::parse("ten").unwrap_err().contains("10.0.0.0/8"));
        assert!(
            Network::parse("0.0.0.0/0")
                .unwrap()
                .contains("9.9.9.9".parse().unwrap())
        );
    }
}
