//! The first request of a client: who it is, and whether it may.

use super::message::Message;
use super::nodes;
use super::permission::{ApiAuth, Credentials};
use super::requests::{INVALID, VERSION, reply_to};
use crate::view::View;

/// Heartbeat's own bound on the name of a client.
const MAX_NAME_BYTES: usize = 31;
/// Begins what one hub calls a client of another (see `messages`): no client's name does.
pub const HANDLE_MARK: char = '#';

/// Who a client says to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It only looks: Heartbeat's "casual" client, whose name is its process number.
    Casual,
    /// A service of this name; one at a time on each node.
    Named(String),
}

impl Identity {
    /// The name of a service.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Casual => None,
            Self::Named(name) => Some(name),
        }
    }
}

/// The reply to a signon, without its result: it tells the timing in any case.
pub fn reply(view: &View) -> Message {
    let hex = |duration: std::time::Duration| format!("{:x}", duration.as_millis());
    reply_to("signon")
        .with("deadtime", &hex(view.deadtime))
        .with("keepalive", &hex(view.keepalive))
        .with("node", &view.own().name)
        .with("hbversion", VERSION)
        .with("pacemaker", "off")
        .with("logfacility", "-1")
}

/// Who signs on with `message`, or why nobody does. `taken`: whether a client of that name is here already.
pub fn admit(
    message: &Message,
    peer: Credentials,
    auth: &ApiAuth,
    taken: impl Fn(&str) -> bool,
) -> Result<Identity, &'static str> {
    let pid: u32 = number(message, "pid")?;
    if number(message, "uid") != Ok(peer.uid) || number(message, "gid") != Ok(peer.gid) {
        return Err("incorrect/false credentials");
    }
    let identity = match message.text("from_id") {
        Some(name) if name.parse() != Ok(pid) => Identity::Named(name.to_owned()),
        _ => Identity::Casual,
    };
    if let Some(name) = identity.name() {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with(HANDLE_MARK) {
            return Err(INVALID);
        }
        if taken(name) {
            return Err("duplicate add request");
        }
    }
    if auth.permits(identity.name(), peer) {
        Ok(identity)
    } else {
        Err("client failed authorization")
    }
}

fn number(message: &Message, name: &str) -> Result<u32, &'static str> {
    let text = message.text(name).ok_or(INVALID)?;
    text.parse().map_err(|_| INVALID)
}

/// Whether `node` in a message names this node, or all.
pub fn is_for_us(view: &View, node: Option<&str>) -> bool {
    node.is_none_or(|name| nodes::find(view, name).is_some_and(|node| nodes::is_own(view, node)))
}
