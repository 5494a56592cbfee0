//! The questions of clients that the view alone answers. What changes a client's own state is in `hub`.

use jiff::Timestamp;

use super::message::Message;
use super::nodes;
use crate::view::{NodeView, View};

/// The version whose interface this is, with ours: some clients print it, some compare its beginning.
pub const VERSION: &str = concat!("3.0.6 (pbx-ha ", env!("CARGO_PKG_VERSION"), ")");
/// A request whose fields do not name something that there is.
pub const INVALID: &str = "EINVAL";

/// The replies to one request, in order; or why it is refused, in Heartbeat's words.
pub type Answer = Result<Vec<Message>, &'static str>;

/// What a request is answered from.
pub struct Question<'a> {
    /// The request.
    pub request: &'a Message,
    /// The cluster.
    pub view: &'a View,
    /// The port of the heartbeats between nodes: a parameter that clients may ask for.
    pub udp_port: u16,
    /// Wall clock.
    pub now: Timestamp,
}

/// An empty reply to a request of this type.
pub fn reply_to(request_type: &str) -> Message {
    Message::of_type("hbapi-resp").with("reqtype", request_type)
}

impl Question<'_> {
    /// The answer; a request of unknown type is refused.
    pub fn answer(&self, request_type: &str) -> Answer {
        let empty = reply_to(request_type);
        let one = |reply: Message| Ok(vec![reply.with("result", "OK")]);
        match request_type {
            "nodelist" => Ok(listed(
                self.view
                    .nodes
                    .iter()
                    .map(|node| self.describe(empty.clone(), node)),
            )),
            "iflist" => Ok(listed(nodes::links(self.view, self.node()?).iter().map(
                |link| {
                    empty
                        .clone()
                        .with("ifname", &link.name)
                        .with("st", link.state)
                },
            ))),
            "nodestatus" => one(empty.with("st", self.status(self.node()?))),
            "nodetype" => self
                .node()
                .and_then(|_| one(empty.with("nodetype", "normal"))),
            "nodeweight" => self.node().and_then(|_| one(empty.with("weight", "100"))),
            "nodesite" => self.node().and_then(|_| one(empty.with("site", ""))),
            "ifstatus" => one(empty.with("st", self.link_state()?)),
            "numnodes" => one(empty.with("numnodes", &self.view.nodes.len().to_string())),
            "getparm" => one(match self.parameter(self.field("pname")?) {
                Some(value) => empty.with("pvalue", &value),
                None => empty,
            }),
            "getrsc" => one(empty.with("rsc_hold", nodes::resources(self.view))),
            "getuuid" => one(match nodes::find(self.view, self.field("queryname")?) {
                Some(node) => empty.with_bytes("queryuuid", &nodes::uuid(self.view, node)),
                None => empty,
            }),
            "getnodename" => one(match self.name_of_uuid()? {
                Some(name) => empty.with("queryname", name),
                None => empty,
            }),
            _ => Err(INVALID),
        }
    }

    fn describe(&self, reply: Message, node: &NodeView) -> Message {
        reply
            .with("node", &node.name)
            .with("nodetype", "normal")
            .with("st", self.status(node))
    }

    fn status(&self, node: &NodeView) -> &'static str {
        nodes::status(self.view, node, self.now)
    }

    fn field(&self, name: &str) -> Result<&str, &'static str> {
        self.request.text(name).ok_or(INVALID)
    }

    fn node(&self) -> Result<&NodeView, &'static str> {
        nodes::find(self.view, self.field("node")?).ok_or(INVALID)
    }

    fn link_state(&self) -> Result<&'static str, &'static str> {
        let name = self.field("ifname")?;
        let links = nodes::links(self.view, self.node()?);
        let link = links.iter().find(|link| link.name == name);
        link.map(|link| link.state).ok_or(INVALID)
    }

    /// A parameter of Heartbeat's configuration, as its text stands there; `None` for those that mean nothing here.
    fn parameter(&self, name: &str) -> Option<String> {
        let view = self.view;
        let value = match name {
            "keepalive" => return Some(nodes::milliseconds(view.keepalive)),
            "warntime" => return Some(nodes::milliseconds(view.warntime)),
            "deadtime" | "deadping" => return Some(nodes::milliseconds(view.deadtime)),
            "initdead" => return Some(nodes::milliseconds(view.initdead)),
            "udpport" => return Some(self.udp_port.to_string()),
            "hbversion" => VERSION,
            "cluster" => &view.cluster,
            // What Heartbeat itself answers where nothing is configured.
            "auto_failback" | "crm" => "off",
            "autojoin" => "none",
            "baud" => "19200",
            "debug" => "0",
            "hbgenmethod" => "file",
            "hopfudge" => "1",
            "msgfmt" => "classic",
            "normalpoll" => "true",
            "realtime" => "false",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn name_of_uuid(&self) -> Result<Option<&str>, &'static str> {
        let asked = self.request.bytes("queryuuid").ok_or(INVALID)?;
        Ok(node_of_uuid(self.view, &asked).map(|node| node.name.as_str()))
    }
}

/// The node of that identity.
pub fn node_of_uuid<'v>(view: &'v View, uuid: &[u8]) -> Option<&'v NodeView> {
    view.nodes
        .iter()
        .find(|node| nodes::uuid(view, node) == uuid)
}

/// The replies of a walk: all say that more follow, the last that it is the last.
fn listed(replies: impl Iterator<Item = Message>) -> Vec<Message> {
    let mut replies: Vec<Message> = replies
        .map(|reply| reply.with("result", "ok/more"))
        .collect();
    if let Some(last) = replies.last_mut() {
        last.set("result", "OK");
    }
    replies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn ask(request_type: &str, fields: Fields) -> Result<Vec<String>, &'static str> {
        let request = fields
            .iter()
            .fold(Message::of_type("hbapi-req"), |message, (name, value)| {
                message.with(name, value)
            });
        answer(request_type, &request)
    }

    fn answer(request_type: &str, request: &Message) -> Result<Vec<String>, &'static str> {
        let view = fixtures::two_nodes();
        let question = Question {
            request,
            view: &view,
            udp_port: 694,
            now: view.started_at,
        };
        let replies = question.answer(request_type)?;
        let start = reply_to(request_type).fields().len();
        let shown = |reply: &Message| {
            let fields = reply.fields()[start..].iter().map(|field| {
                let name = String::from_utf8_lossy(&field.name);
                format!("{name}={}", String::from_utf8_lossy(&field.value))
            });
            fields.collect::<Vec<_>>().join(" ")
        };
        Ok(replies.iter().map(shown).collect())
    }

    #[test]
    fn walks_end_with_ok() {
        assert_eq!(
            ask("nodelist", &[]).unwrap(),
            [
                "node=office-0 nodetype=normal st=active result=ok/more",
                "node=office-1 nodetype=normal st=active result=OK"
            ]
        );
        assert_eq!(
            ask("iflist", &[("node", "office-1")]).unwrap(),
            ["ifname=udp st=up result=OK"]
        );
    }

    #[test]
    fn one_reply_for_each_question() {
        let node = ("node", "OFFICE-1");
        let cases: [(&str, Fields, &str); 11] = [
            ("nodestatus", &[node], "st=active result=OK"),
            ("nodetype", &[node], "nodetype=normal result=OK"),
            ("nodeweight", &[node], "weight=100 result=OK"),
            ("nodesite", &[node], "site= result=OK"),
            ("ifstatus", &[node, ("ifname", "udp")], "st=up result=OK"),
            ("numnodes", &[], "numnodes=2 result=OK"),
            (
                "getparm",
                &[("pname", "deadtime")],
                "pvalue=800ms result=OK",
            ),
            ("getparm", &[("pname", "watchdog")], "result=OK"),
            ("getparm", &[("pname", "udpport")], "pvalue=694 result=OK"),
            ("getrsc", &[], "rsc_hold=all result=OK"),
            ("getuuid", &[("queryname", "nobody")], "result=OK"),
        ];
        for (request_type, fields, expected) in cases {
            assert_eq!(
                ask(request_type, fields).unwrap(),
                [expected],
                "{request_type}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_invalid() {
        for request_type in ["nodestatus", "nodetype", "nodeweight", "nodesite", "iflist"] {
            assert_eq!(ask(request_type, &[("node", "nobody")]), Err(INVALID));
            assert_eq!(ask(request_type, &[]), Err(INVALID));
        }
        assert_eq!(
            ask("ifstatus", &[("node", "office-1"), ("ifname", "x")]),
            Err(INVALID)
        );
        assert_eq!(ask("getparm", &[]), Err(INVALID));
        assert_eq!(ask("dance", &[]), Err(INVALID));
    }

    #[test]
    fn a_uuid_names_its_node() {
        let view = fixtures::two_nodes();
        let uuid = nodes::uuid(&view, &view.nodes[1]);
        let request = Message::default().with_bytes("queryuuid", &uuid);
        assert_eq!(
            answer("getnodename", &request).unwrap(),
            ["queryname=office-1 result=OK"]
        );
        let request = Message::default().with_bytes("queryuuid", &[0; 16]);
        assert_eq!(answer("getnodename", &request).unwrap(), ["result=OK"]);
    }
}
