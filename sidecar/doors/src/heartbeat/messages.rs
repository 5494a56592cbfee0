//! Messages between clients: to those of the same name on this node and the others, and questions whether a client is there.
//!
//! Between hubs a message travels as a body. The receiving hub believes only the channel about where it came from.

use jiff::Timestamp;

use super::hub::{ClientId, Hub, Output, send};
use super::message::Message;
use super::nodes;
use super::requests::{INVALID, node_of_uuid, reply_to};
use super::signon::{HANDLE_MARK, is_for_us};

const QUESTION: &str = "query-cstatus";
const ANSWER: &str = "respond-cstatus";

impl Hub {
    /// A client's message: to one node's client of the same name, or to all nodes', the sender among them.
    pub(super) fn on_message(
        &mut self,
        id: ClientId,
        name: &str,
        mut message: Message,
        outputs: &mut Vec<Output>,
    ) {
        if let Some(uuid) = message
            .bytes("destuuid")
            .filter(|_| message.text("dest").is_none())
        {
            let Some(node) = node_of_uuid(&self.view, &uuid) else {
                return;
            };
            let node = node.name.clone();
            message.set("dest", &node);
        }
        // Clients reorder what is numbered, and our order is right already.
        message.remove("seq");
        message.remove("hg");
        message.set("from_id", name);
        message.set("to_id", name);
        let own = self.view.own().name.clone();
        message.set("src", &own);
        let is_question = message.text("t") == Some(QUESTION);
        if is_question {
            message.set("from_id", &handle(id));
        }
        let to = message.text("dest").map(str::to_owned);
        if is_for_us(&self.view, to.as_deref()) {
            if is_question {
                let answer = self.client_status_message(&message);
                send(id, &answer.with("to_id", name), outputs);
            } else {
                self.deliver(name, &message, outputs);
            }
        }
        self.pass_on(to, &message, outputs);
    }

    /// A message of another node's hub.
    pub(super) fn on_peer(&mut self, from: &str, body: &[u8], outputs: &mut Vec<Output>) {
        let Some(from) = nodes::find(&self.view, from).map(|node| node.name.clone()) else {
            return;
        };
        let Ok(mut message) = Message::parse(body) else {
            return;
        };
        message.set("src", &from);
        if message.text("t") == Some(QUESTION) {
            let answer = self.client_status_message(&message);
            return outputs.push(Output::Peers {
                to: Some(from),
                body: answer.encode(),
            });
        }
        let Some(to) = message.text("to_id").map(str::to_owned) else {
            return;
        };
        match client_of_handle(&to) {
            Some(id) if self.clients.contains_key(&id) => send(id, &message, outputs),
            Some(_) => {}
            None => self.deliver(&to, &message, outputs),
        }
    }

    /// The request whether a client is there. About a living peer the answer comes from the peer.
    pub(super) fn on_client_status(
        &mut self,
        now: Timestamp,
        id: ClientId,
        message: &Message,
        outputs: &mut Vec<Output>,
    ) {
        let (Some(node), Some(client)) = (message.text("node"), message.text("cn")) else {
            return refuse_client_status(id, outputs);
        };
        let Some(node) = nodes::find(&self.view, node) else {
            return refuse_client_status(id, outputs);
        };
        let is_own = nodes::is_own(&self.view, node);
        if !is_own && nodes::status(&self.view, node, now) == "active" {
            let question = Message::of_type(QUESTION)
                .with("cn", client)
                .with("from_id", &handle(id));
            return outputs.push(Output::Peers {
                to: Some(node.name.clone()),
                body: question.encode(),
            });
        }
        let reply = reply_to("clientstatus")
            .with("subt", ANSWER)
            .with("cs", word(is_own && self.named(client).is_some()))
            .with("result", "OK");
        send(id, &reply, outputs);
    }

    fn client_status_message(&self, question: &Message) -> Message {
        let client = question.text("cn").unwrap_or_default();
        Message::of_type(ANSWER)
            .with("cn", client)
            .with("cs", word(self.named(client).is_some()))
            .with("src", &self.view.own().name)
            .with("to_id", question.text("from_id").unwrap_or_default())
            .with("result", "OK")
    }

    fn pass_on(&self, to: Option<String>, message: &Message, outputs: &mut Vec<Output>) {
        let to = match to {
            None => None,
            Some(name) => match nodes::find(&self.view, &name) {
                Some(node) if !nodes::is_own(&self.view, node) => Some(node.name.clone()),
                _ => return,
            },
        };
        outputs.push(Output::Peers {
            to,
            body: message.encode(),
        });
    }
}

/// The library tells this reply by its subtype: without it, it waits until its time is up.
fn refuse_client_status(id: ClientId, outputs: &mut Vec<Output>) {
    let reply = reply_to("clientstatus")
        .with("subt", ANSWER)
        .with("result", "badreq")
        .with("info", INVALID);
    send(id, &reply, outputs);
}

/// What a hub calls one of its clients towards others: casual clients have no name of their own.
fn handle(client: ClientId) -> String {
    format!("{HANDLE_MARK}{}", client.0)
}

fn client_of_handle(handle: &str) -> Option<ClientId> {
    let number = handle.strip_prefix(HANDLE_MARK)?;
    number.parse().ok().map(ClientId)
}

fn word(is_there: bool) -> &'static str {
    if is_there { "online" } else { "offline" }
}
