//! The body of `system.status`, as this node sees the others. Pure.
//!
//! | a node that | is |
//! |---|---|
//! | is active | `active`: in service |
//! | is heard, and not active | `inactive`: works, and is not in service |
//! | was never heard since this node began, less than initdead ago | `inactive`: may be starting |
//! | is not heard | `dead` |

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::view::{NodeView, View};

/// The body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// By identifier, `host:port/tag`.
    pub nodes: BTreeMap<String, NodeStatus>,
    /// `<internal identifier> @ <identifier>` of this node.
    pub reporter: String,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// `active`, `inactive` or `dead`.
    pub status: &'static str,
}

/// How nodes are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The port of the forward protocol, the same on all nodes.
    pub port: u16,
    /// The port that the nodes speak to each other by.
    pub internal_port: u16,
    /// The tag.
    pub tag: String,
}

impl Naming {
    fn identifier(&self, node: &NodeView, port: u16) -> String {
        let host = match node.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(IpAddr::V4(address)) => address.to_string(),
            None => node.name.clone(),
        };
        format!("{host}:{port}/{}", self.tag)
    }
}

/// The body as of `view` and `now`.
pub fn status(view: &View, naming: &Naming, now: Timestamp) -> Status {
    let is_starting = now.duration_since(view.started_at) < to_signed(view.initdead);
    let nodes = view.nodes.iter().enumerate().map(|(at, node)| {
        let status = match (view.active == Some(at), node.is_up) {
            (true, true) => "active",
            (false, true) => "inactive",
            (_, false) if !node.is_known && is_starting => "inactive",
            (_, false) => "dead",
        };
        (naming.identifier(node, naming.port), NodeStatus { status })
    });
    let own = view.own();
    Status {
        nodes: nodes.collect(),
        reporter: format!(
            "{} @ {}",
            naming.identifier(own, naming.internal_port),
            naming.identifier(own, naming.port)
        ),
    }
}

fn to_signed(duration: std::time::Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub fn example() -> (View, Naming) {
        let node = |name: &str, last: u8, is_up: bool, is_known: bool| NodeView {
            name: name.into(),
            address: Some(IpAddr::from([192, 168, 0, last])),
            is_up,
            is_known,
            report: None,
        };
        let started_at = Timestamp::from_second(1_800_000_000).unwrap();
        let view = View {
            cluster: "office".into(),
            cluster_started_at: started_at,
            started_at,
            own: 1,
            nodes: vec![
                node("a", 10, true, true),
                node("b", 11, true, true),
                node("c", 12, false, true),
                node("d", 13, false, false),
            ],
            active: Some(0),
            epoch: 3,
            keepalive: Duration::from_millis(100),
            warntime: Duration::from_millis(400),
            deadtime: Duration::from_millis(800),
            initdead: Duration::from_secs(30),
        };
        let naming = Naming {
            port: 10031,
            internal_port: 6940,
            tag: "droonga".into(),
        };
        (view, naming)
    }

    #[test]
    fn each_node_is_as_the_reporter_sees_it() {
        let (view, naming) = example();
        let now = Timestamp::from_second(1_800_000_010).unwrap();
        let told = serde_json::to_value(status(&view, &naming, now)).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "nodes": {
                    "192.168.0.10:10031/droonga": {"status": "active"},
                    "192.168.0.11:10031/droonga": {"status": "inactive"},
                    "192.168.0.12:10031/droonga": {"status": "dead"},
                    "192.168.0.13:10031/droonga": {"status": "inactive"},
                },
                "reporter": "192.168.0.11:6940/droonga @ 192.168.0.11:10031/droonga",
            })
        );
    }

    #[test]
    fn a_node_that_was_never_heard_is_dead_after_initdead() {
        let (view, naming) = example();
        let now = Timestamp::from_second(1_800_000_031).unwrap();
        let told = status(&view, &naming, now);
        assert_eq!(told.nodes["192.168.0.13:10031/droonga"].status, "dead");
    }
}
