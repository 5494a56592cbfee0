//! Droonga's messages: a request in a record, and its one response. Pure.

use rmp::encode::{write_array_len, write_map_len, write_sint, write_str, write_uint};

use super::msgpack;
use super::status::Status;

/// What is echoed of a request is no longer than this.
const MAX_ECHO_BYTES: usize = 1024;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its id, as bytes of MessagePack, to be echoed; nil when it had none.
    pub id: Vec<u8>,
    /// What it asks for.
    pub kind: String,
    /// Where the response goes; `None`: back over the connection.
    pub reply_to: Option<ReplyTo>,
}

/// `host:port/tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The tag; the response is sent under `tag.message`.
    pub tag: String,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The status.
    Done(Status),
    /// Refused, with an error of Droonga's general form.
    Refused {
        /// HTTP's number for it.
        code: u16,
        /// Its name.
        name: &'static str,
        /// What to change.
        message: String,
    },
}

/// The request of a record; `None`: it is none, such as a line of a log.
pub fn parse(record: &[u8]) -> Option<Request> {
    let text = |key| {
        let value = msgpack::field(record, key).ok()??;
        let text = msgpack::text(value).ok()?;
        (text.len() <= MAX_ECHO_BYTES).then(|| text.to_owned())
    };
    let kind = text("type")?;
    let id = msgpack::field(record, "id").ok()?;
    let id = id.filter(|id| id.len() <= MAX_ECHO_BYTES);
    Some(Request {
        id: id.unwrap_or(&[0xc0]).to_vec(),
        kind,
        reply_to: reply_to(record),
    })
}

/// A text, or a map with the text under `to`.
fn reply_to(record: &[u8]) -> Option<ReplyTo> {
    let value = msgpack::field(record, "replyTo").ok()??;
    let text = match msgpack::text(value) {
        Ok(text) => text,
        Err(_) => msgpack::text(msgpack::field(value, "to").ok()??).ok()?,
    };
    let (host_and_port, tag) = text.split_once('/')?;
    let (host, port) = host_and_port.rsplit_once(':')?;
    let tag = tag.split_once('?').map_or(tag, |(tag, _)| tag);
    let is_short = text.len() <= MAX_ECHO_BYTES && !tag.is_empty();
    is_short.then_some(ReplyTo {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().ok()?,
        tag: tag.to_owned(),
    })
}

/// What `request` comes to, with `status` made when it is asked for.
pub fn outcome(request: &Request, status: impl FnOnce() -> Status) -> Outcome {
    if request.kind == "system.status" {
        return Outcome::Done(status());
    }
    Outcome::Refused {
        code: 400,
        name: "UnknownType",
        message: format!("there is no {}: ask for system.status", request.kind),
    }
}

/// The response as a message of the forward protocol, under `tag`, at `seconds` since 1970.
pub fn response(request: &Request, outcome: &Outcome, tag: &str, seconds: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_response(&mut out, request, outcome, tag, seconds).expect("a vector takes bytes");
    out
}

type Written<T = ()> = Result<T, rmp::encode::ValueWriteError>;

fn write_response(
    out: &mut Vec<u8>,
    request: &Request,
    outcome: &Outcome,
    tag: &str,
    seconds: i64,
) -> Written {
    write_array_len(out, 3)?;
    write_str(out, &format!("{tag}.message"))?;
    write_sint(out, seconds)?;
    write_map_len(out, 4)?;
    write_str(out, "inReplyTo")?;
    out.extend_from_slice(&request.id);
    write_str(out, "type")?;
    write_str(out, &format!("{}.result", request.kind))?;
    write_str(out, "statusCode")?;
    match outcome {
        Outcome::Done(status) => {
            write_uint(out, 200)?;
            write_str(out, "body")?;
            write_status(out, status)
        }
        Outcome::Refused {
            code,
            name,
            message,
        } => {
            write_uint(out, (*code).into())?;
            write_str(out, "body")?;
            write_map_len(out, 2)?;
            write_str(out, "name")?;
            write_str(out, name)?;
            write_str(out, "message")?;
            write_str(out, message)
        }
    }
}

fn write_status(out: &mut Vec<u8>, status: &Status) -> Written {
    write_map_len(out, 2)?;
    write_str(out, "nodes")?;
    write_map_len(out, status.nodes.len() as u32)?;
    for (identifier, node) in &status.nodes {
        write_str(out, identifier)?;
        write_map_len(out, 1)?;
        write_str(out, "status")?;
        write_str(out, node.status)?;
    }
    write_str(out, "reporter")?;
    write_str(out, &status.reporter)
}

#[cfg(test)]
mod tests {
    use super::super::status::{status, tests::example};
    use super::*;

    fn record(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        write_map_len(&mut out, fields.len() as u32).unwrap();
        for (key, value) in fields {
            write_str(&mut out, key).unwrap();
            write_str(&mut out, value).unwrap();
        }
        out
    }

    #[test]
    fn a_request_says_where_its_response_goes() {
        let request = parse(&record(&[
            ("id", "7"),
            ("type", "system.status"),
            ("replyTo", "127.0.0.1:24225/client?x=y"),
        ]));
        let request = request.unwrap();
        assert_eq!(request.id, b"\xa17");
        assert_eq!(
            request.reply_to,
            Some(ReplyTo {
                host: "127.0.0.1".into(),
                port: 24225,
                tag: "client".into()
            })
        );
        assert_eq!(parse(&record(&[("message", "a line of a log")])), None);
        let nowhere = parse(&record(&[
            ("type", "system.status"),
            ("replyTo", "nonsense"),
        ]));
        assert_eq!(nowhere.unwrap().reply_to, None);
    }

    #[test]
    fn the_response_is_one_message_with_the_id_of_the_request() {
        let (view, naming) = example();
        let request = parse(&record(&[("id", "7"), ("type", "system.status")])).unwrap();
        let now = jiff::Timestamp::from_second(1_800_000_010).unwrap();
        let outcome = outcome(&request, || status(&view, &naming, now));
        let bytes = response(&request, &outcome, "droonga", 5);
        let parts = msgpack::array(&bytes).unwrap();
        assert_eq!(msgpack::text(parts[0]), Ok("droonga.message"));
        let field = |key| msgpack::field(parts[2], key).unwrap().unwrap();
        assert_eq!(field("inReplyTo"), b"\xa17");
        assert_eq!(msgpack::text(field("type")), Ok("system.status.result"));
        assert_eq!(field("statusCode"), b"\xcc\xc8");
        let nodes = msgpack::field(field("body"), "nodes").unwrap().unwrap();
        let node = msgpack::field(nodes, "192.168.0.10:10031/droonga");
        let state = msgpack::field(node.unwrap().unwrap(), "status")
            .unwrap()
            .unwrap();
        assert_eq!(msgpack::text(state), Ok("active"));
    }

    #[test]
    fn another_type_gets_the_general_error() {
        let request = parse(&record(&[("type", "search")])).unwrap();
        let outcome = outcome(&request, || unreachable!("nobody asked for the status"));
        let bytes = response(&request, &outcome, "droonga", 5);
        let parts = msgpack::array(&bytes).unwrap();
        let body = msgpack::field(parts[2], "body").unwrap().unwrap();
        let name = msgpack::field(body, "name").unwrap().unwrap();
        assert_eq!(msgpack::text(name), Ok("UnknownType"));
    }
}
