//! The cluster in Heartbeat's words: which nodes there are, whether they live, over which links they are heard, who holds the
//! resources. Heartbeat's `active` means alive: our standby is `active` too.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pbx_crds::status::{LinkState, LinkStatus};
use sha2::{Digest, Sha256};

use crate::view::{NodeView, View};

/// The name of the one link of a node that has no named links.
pub const ONLY_LINK: &str = "udp";

/// A link to a node and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// `up` or `dead`.
    pub state: &'static str,
}

/// The node of that name, case aside: clients write node names in lower case.
pub fn find<'v>(view: &'v View, name: &str) -> Option<&'v NodeView> {
    view.nodes
        .iter()
        .find(|node| node.name.eq_ignore_ascii_case(name))
}

/// Whether `node` is this one.
pub fn is_own(view: &View, node: &NodeView) -> bool {
    view.own().name == node.name
}

/// `active`: heard. `dead`: not heard any more. `init`: never heard, and this sidecar began less than initdead ago.
pub fn status(view: &View, node: &NodeView, now: Timestamp) -> &'static str {
    if node.is_up || is_own(view, node) {
        "active"
    } else if !node.is_known && now < never_heard_are_dead_at(view) {
        "init"
    } else {
        "dead"
    }
}

/// When a node that was never heard is called dead.
pub fn never_heard_are_dead_at(view: &View) -> Timestamp {
    let initdead = SignedDuration::try_from(view.initdead).unwrap_or(SignedDuration::MAX);
    view.started_at
        .checked_add(initdead)
        .unwrap_or(Timestamp::MAX)
}

/// The links over which this node hears `node`; of itself, those over which it hears anybody. Never none: a client that
/// walks an empty list waits for ever.
pub fn links(view: &View, node: &NodeView) -> Vec<Link> {
    let all = &view.own_report().links;
    let mut links: Vec<Link> = Vec::new();
    for link in all {
        let (peer, name) = link.name.split_once('/').unwrap_or((&link.name, ONLY_LINK));
        if !is_own(view, node) && peer != node.name {
            continue;
        }
        match links.iter_mut().find(|known| known.name == name) {
            Some(known) if is_up(link) => known.state = "up",
            Some(_) => {}
            None => links.push(Link {
                name: name.to_owned(),
                state: word(is_up(link)),
            }),
        }
    }
    if links.is_empty() {
        links.push(Link {
            name: ONLY_LINK.to_owned(),
            state: word(node.is_up || is_own(view, node)),
        });
    }
    links
}

/// What this node holds: `all` as the active, `none` while another is, `transition` while nobody is.
pub fn resources(view: &View) -> &'static str {
    match view.active {
        Some(active) if active == view.own => "all",
        Some(_) => "none",
        None => "transition",
    }
}

/// What a node tells of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// `all` or `none`.
    pub resources: &'static str,
    /// Somebody is the active, as this node knows.
    pub is_stable: bool,
}

/// What the node at place `at` holds.
pub fn held(view: &View, at: usize) -> Held {
    Held {
        resources: if view.active == Some(at) {
            "all"
        } else {
            "none"
        },
        is_stable: view.active.is_some(),
    }
}

/// The identity of a node: made from its name, so that it is the same on all nodes and for each pod of that name (RFC 9562,
/// version 8).
pub fn uuid(view: &View, node: &NodeView) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(view.cluster.as_bytes())
        .chain_update([0])
        .chain_update(node.name.as_bytes())
        .finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

/// A duration as Heartbeat's configuration has it.
pub fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn is_up(link: &LinkStatus) -> bool {
    link.state == LinkState::Up
}

fn word(is_up: bool) -> &'static str {
    if is_up { "up" } else { "dead" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, at};

    #[test]
    fn a_standby_lives_and_the_silent_is_dead() {
        let mut view = fixtures::two_nodes();
        assert_eq!(status(&view, &view.nodes[0], at(0)), "active");
        assert_eq!(status(&view, &view.nodes[1], at(0)), "active");
        view.nodes[1].is_up = false;
        assert_eq!(status(&view, &view.nodes[1], at(0)), "dead");
    }

    #[test]
    fn who_was_never_heard_is_dead_after_initdead() {
        let mut view = fixtures::two_nodes();
        view.nodes[1].is_up = false;
        view.nodes[1].is_known = false;
        let began = view.started_at.as_second();
        assert_eq!(status(&view, &view.nodes[1], at(began + 29)), "init");
        assert_eq!(status(&view, &view.nodes[1], at(began + 30)), "dead");
    }

    #[test]
    fn links_are_the_peers_own_and_never_none() {
        let mut view = fixtures::two_nodes();
        let up = |name: &str| Link {
            name: name.into(),
            state: "up",
        };
        assert_eq!(links(&view, &view.nodes[1]), [up(ONLY_LINK)]);
        fixtures::set_links(
            &mut view,
            &[
                ("office-1/eth0", LinkState::Up),
                ("office-1/eth1", LinkState::Down),
                ("office-2/eth1", LinkState::Up),
            ],
        );
        let down = Link {
            name: "eth1".into(),
            state: "dead",
        };
        assert_eq!(links(&view, &view.nodes[1]), [up("eth0"), down]);
        assert_eq!(links(&view, &view.nodes[0]), [up("eth0"), up("eth1")]);
    }

    #[test]
    fn resources_follow_the_role() {
        let mut view = fixtures::two_nodes();
        assert_eq!(resources(&view), "all");
        view.active = Some(1);
        assert_eq!(resources(&view), "none");
        view.active = None;
        assert_eq!(resources(&view), "transition");
    }

    #[test]
    fn each_node_has_its_own_uuid() {
        let view = fixtures::two_nodes();
        let (a, b) = (uuid(&view, &view.nodes[0]), uuid(&view, &view.nodes[1]));
        assert_ne!(a, b);
        assert_eq!((a[6] >> 4, a[8] >> 6), (8, 2));
    }
}
