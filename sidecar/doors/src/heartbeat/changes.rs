//! What a change of the view tells clients: nodes and links whose state, and living nodes whose role, is another than was told last.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::message::Message;
use super::nodes;
use crate::view::View;

/// What clients were told last.
#[derive(Debug)]
pub struct Told {
    nodes: BTreeMap<String, &'static str>,
    /// Of the living.
    roles: BTreeMap<String, nodes::Held>,
    links: BTreeMap<(String, String), &'static str>,
}

impl Told {
    /// All as it stands now: whoever signs on asks for it.
    pub fn of(view: &View, now: Timestamp) -> Self {
        let nodes = view
            .nodes
            .iter()
            .map(|node| (node.name.clone(), nodes::status(view, node, now)));
        let links = view.nodes.iter().flat_map(|node| {
            let links = nodes::links(view, node).into_iter();
            links.map(|link| ((node.name.clone(), link.name), link.state))
        });
        let roles = view.nodes.iter().enumerate().filter_map(|(at, node)| {
            let lives = nodes::status(view, node, now) == "active";
            lives.then(|| (node.name.clone(), nodes::held(view, at)))
        });
        Self {
            nodes: nodes.collect(),
            roles: roles.collect(),
            links: links.collect(),
        }
    }

    /// Takes the state of `view` over; returns what has changed, nodes first: they are waited for.
    pub fn update(&mut self, view: &View, now: Timestamp) -> Vec<Message> {
        let current = Self::of(view, now);
        let nodes = current
            .nodes
            .iter()
            .filter(|(name, status)| self.nodes.get(*name) != Some(*status))
            .map(|(name, status)| status_message(name, status, now));
        let roles = current
            .roles
            .iter()
            .filter(|(name, held)| self.roles.get(*name) != Some(*held))
            .map(|(name, held)| role_message(name, *held));
        let links = current
            .links
            .iter()
            .filter(|(name, state)| self.links.get(*name) != Some(*state))
            .map(|((node, link), state)| link_message(node, link, state));
        let messages = nodes.chain(roles).chain(links).collect();
        *self = current;
        messages
    }
}

/// The state of every living node: what Heartbeat's own packets told at each keepalive.
pub fn beats(view: &View, now: Timestamp) -> Vec<Message> {
    let living = view.nodes.iter().filter_map(|node| {
        let status = nodes::status(view, node, now);
        (status == "active").then(|| status_message(&node.name, status, now))
    });
    living.collect()
}

fn status_message(node: &str, status: &str, now: Timestamp) -> Message {
    Message::of_type("status")
        .with("st", status)
        .with("src", node)
        .with("ts", &format!("{:x}", now.as_second()))
}

/// What Heartbeat's nodes tell each other when resources move; their clients hear it.
fn role_message(node: &str, held: nodes::Held) -> Message {
    Message::of_type("resource")
        .with("rsc_hold", held.resources)
        .with("rtype", "full")
        .with("isstable", if held.is_stable { "1" } else { "0" })
        .with("src", node)
}

fn link_message(node: &str, link: &str, state: &str) -> Message {
    Message::of_type("ifstat")
        .with("node", node)
        .with("ifname", link)
        .with("st", state)
}

#[cfg(test)]
mod tests {
    use pbx_crds::status::LinkState;

    use super::*;
    use crate::fixtures::{self, at};

    fn shown(messages: &[Message]) -> Vec<String> {
        let body = |message: &Message| {
            let body = String::from_utf8(message.encode()).unwrap();
            let fields = body.lines().filter(|line| line.contains('='));
            fields.collect::<Vec<_>>().join(" ")
        };
        messages.iter().map(body).collect()
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let mut view = fixtures::two_nodes();
        fixtures::set_links(&mut view, &[("office-1/eth0", LinkState::Up)]);
        let mut told = Told::of(&view, at(0x10));
        assert!(told.update(&view, at(0x11)).is_empty());
        view.nodes[1].is_up = false;
        fixtures::set_links(&mut view, &[("office-1/eth0", LinkState::Down)]);
        assert_eq!(
            shown(&told.update(&view, at(0x12))),
            [
                "t=status st=dead src=office-1 ts=12",
                "t=ifstat node=office-0 ifname=eth0 st=dead",
                "t=ifstat node=office-1 ifname=eth0 st=dead",
            ]
        );
        view.nodes[1].is_up = true;
        assert_eq!(
            shown(&told.update(&view, at(0x13))),
            [
                "t=status st=active src=office-1 ts=13",
                "t=resource rsc_hold=none rtype=full isstable=1 src=office-1",
            ]
        );
        assert!(told.update(&view, at(0x14)).is_empty());
    }

    #[test]
    fn a_move_of_the_role_is_told_for_each_living_node() {
        let mut view = fixtures::two_nodes();
        let mut told = Told::of(&view, at(0x10));
        view.active = None;
        assert_eq!(
            shown(&told.update(&view, at(0x11))),
            [
                "t=resource rsc_hold=none rtype=full isstable=0 src=office-0",
                "t=resource rsc_hold=none rtype=full isstable=0 src=office-1",
            ]
        );
        view.active = Some(1);
        assert_eq!(
            shown(&told.update(&view, at(0x12))),
            [
                "t=resource rsc_hold=none rtype=full isstable=1 src=office-0",
                "t=resource rsc_hold=all rtype=full isstable=1 src=office-1",
            ]
        );
        assert!(told.update(&view, at(0x13)).is_empty());
    }

    #[test]
    fn beats_come_from_the_living() {
        let mut view = fixtures::two_nodes();
        view.nodes[1].is_up = false;
        assert_eq!(
            shown(&beats(&view, at(0xff))),
            ["t=status st=active src=office-0 ts=ff"]
        );
    }
}
