//! SysAdm's messages: JSON texts of a websocket. Pure; bounded by the size of a text and the depth that `serde_json` allows.
//!
//! What a client sends is one [`Request`]; what is not understood is one too, so that it is answered with an error under its own
//! id. `events/subscribe` and `events/unsubscribe` take a text or a list, with hyphens or underscores.

use serde_json::{Value, json};

/// The longest text of a client.
pub const MAX_TEXT_BYTES: usize = 64 << 10;
/// Longer ids, bridge ids and tokens are not echoed or compared.
const MAX_WORD_BYTES: usize = 1024;
/// As SysAdm's own server has it: no end within the life of a connection.
const TOKEN_SECONDS: u64 = 900;

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Jobs: what was asked of the cluster, and how far it has come.
    Dispatcher,
    /// Snapshots and replication.
    LifePreserver,
    /// The host name and the storage.
    SystemState,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dispatcher, Self::LifePreserver, Self::SystemState];

    /// As clients ask for it; underscores are taken for hyphens.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_asked = |topic: &Self| {
            let known = topic.name().chars();
            known.eq(name.chars().map(|c| if c == '-' { '_' } else { c }))
        };
        Self::ALL.into_iter().find(is_asked)
    }

    /// The name of its events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::LifePreserver => "life_preserver",
            Self::SystemState => "system_state",
        }
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its id, echoed as it came; null when it had none.
    pub id: Value,
    /// Its namespace, echoed.
    pub namespace: String,
    /// What it wants.
    pub kind: Kind,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// To be told of these from now on; unknown names were left out.
    Subscribe(Vec<Topic>),
    /// To be told of these no more.
    Unsubscribe(Vec<Topic>),
    /// To be let in, with this token.
    Authenticate(String),
    /// To be let out.
    Forget,
    /// To know who this is.
    Identify,
    /// Nothing that is known here.
    Unknown,
    /// It is no request at all.
    Malformed,
}

/// How a refused request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It is not understood.
    BadRequest,
    /// A token is needed.
    Unauthorized,
    /// It is understood and not known here.
    NotFound,
}

impl Code {
    fn number_and_message(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BADREQUEST"),
            Self::Unauthorized => (401, "UNAUTHORIZED"),
            Self::NotFound => (404, "NOTFOUND"),
        }
    }
}

/// A relayed text: the node it is for, or from, and what is said. `None`: it is said to whoever reads it.
pub fn split_bridge(text: &str) -> (Option<&str>, &str) {
    match text.split_once('\n') {
        Some((id, rest)) if is_bridge_id(id) => (Some(id), rest),
        _ => (None, text),
    }
}

/// A text for a client behind a bridge, or from a node behind it.
pub fn join_bridge(id: &str, text: &str) -> String {
    format!("{id}\n{text}")
}

/// Reads a client's text.
pub fn parse(text: &str) -> Request {
    let malformed = |id| Request {
        id,
        namespace: "events".into(),
        kind: Kind::Malformed,
    };
    if text.len() > MAX_TEXT_BYTES {
        return malformed(Value::Null);
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(text) else {
        return malformed(Value::Null);
    };
    let id = fields.remove("id").filter(is_short).unwrap_or(Value::Null);
    let word = |value: Option<Value>| match value {
        Some(Value::String(word)) if word.len() <= MAX_WORD_BYTES => Some(word),
        _ => None,
    };
    let namespace = word(fields.remove("namespace"));
    let name = word(fields.remove("name"));
    let args = fields.remove("args").unwrap_or(Value::Null);
    match (namespace, name) {
        (Some(namespace), Some(name)) => Request {
            id,
            kind: kind(&namespace, &name, &args),
            namespace,
        },
        _ => malformed(id),
    }
}

fn kind(namespace: &str, name: &str, args: &Value) -> Kind {
    match (namespace.to_ascii_lowercase().as_str(), name) {
        ("events", "subscribe") => topics(args).map_or(Kind::Malformed, Kind::Subscribe),
        ("events", "unsubscribe") => topics(args).map_or(Kind::Malformed, Kind::Unsubscribe),
        ("rpc", "auth_token") => token(args, "token").map_or(Kind::Malformed, Kind::Authenticate),
        ("rpc", "auth") => token(args, "password").map_or(Kind::Malformed, Kind::Authenticate),
        ("rpc", "auth_clear") => Kind::Forget,
        ("rpc", "identify") => Kind::Identify,
        ("events", _) => Kind::Malformed,
        _ => Kind::Unknown,
    }
}

/// The topics of a text or of a list; `None` without any.
fn topics(args: &Value) -> Option<Vec<Topic>> {
    let names: Vec<&str> = match args {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut topics: Vec<Topic> = names.into_iter().filter_map(Topic::from_name).collect();
    topics.sort_unstable();
    topics.dedup();
    (!topics.is_empty()).then_some(topics)
}

fn token(args: &Value, field: &str) -> Option<String> {
    let token = args.get(field)?.as_str()?;
    (token.len() <= MAX_WORD_BYTES).then(|| token.to_owned())
}

fn is_short(id: &Value) -> bool {
    match id {
        Value::String(id) => id.len() <= MAX_WORD_BYTES,
        Value::Number(_) | Value::Bool(_) | Value::Null => true,
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn is_bridge_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 253 && !id.contains(|c: char| c == '{' || c.is_whitespace())
}

/// An event; its id is `none`, and that of a bridge event is empty.
pub fn event(name: &str, id: &str, args: &Value) -> String {
    json!({"namespace": "events", "name": name, "id": id, "args": args}).to_string()
}

/// The answer to a request that was done.
pub fn response(request: &Request, args: &Value) -> String {
    json!({"namespace": request.namespace, "name": "response", "id": request.id, "args": args})
        .to_string()
}

/// The answer to a request that was refused.
pub fn error(request: &Request, code: Code) -> String {
    let (number, message) = code.number_and_message();
    let args = json!({"code": number, "message": message});
    json!({"namespace": request.namespace, "name": "error", "id": request.id, "args": args})
        .to_string()
}

/// The arguments of the answer to a subscription: a text for one topic, a list for more.
pub fn topic_args(verb: &str, topics: &[Topic]) -> Value {
    let names: Vec<String> = topics
        .iter()
        .map(|topic| topic.name().replace('_', "-"))
        .collect();
    match &names[..] {
        [one] => json!({ verb: one }),
        _ => json!({ verb: names }),
    }
}

/// The arguments of the answer to an authentication: the token to use again, and for how many seconds.
pub fn token_args(token: &str) -> Value {
    json!([token, TOKEN_SECONDS])
}

/// Any text: no panic, and an answer that is JSON.
pub fn fuzz_one(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (_, said) = split_bridge(text);
    let request = parse(said);
    for answer in [
        error(&request, Code::BadRequest),
        response(&request, &json!({})),
    ] {
        let read: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert_eq!(read["id"], request.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind_of(text: &str) -> Kind {
        parse(text).kind
    }

    #[test]
    fn a_list_or_a_text_with_hyphens_or_underscores_is_a_subscription() {
        let all = vec![Topic::Dispatcher, Topic::LifePreserver, Topic::SystemState];
        for (args, expected) in [
            (
                r#"["dispatcher", "life-preserver", "system-state"]"#,
                all.clone(),
            ),
            (r#"["system_state", "life_preserver", "dispatcher"]"#, all),
            (r#""system-state""#, vec![Topic::SystemState]),
            (r#"["dispatcher", "weather", 7]"#, vec![Topic::Dispatcher]),
        ] {
            let text = format!(
                r#"{{"namespace": "events", "name": "subscribe", "id": "sampleID", "args": {args}}}"#
            );
            let request = parse(&text);
            assert_eq!(request.kind, Kind::Subscribe(expected), "{args}");
            assert_eq!(request.id, "sampleID");
        }
    }

    #[test]
    fn what_is_no_request_is_answered_under_its_id() {
        for text in [
            "",
            "7",
            r#"{"id": "a"}"#,
            r#"{"namespace": "events", "name": "subscribe", "id": "a"}"#,
            r#"{"namespace": "events", "name": "subscribe", "id": "a", "args": []}"#,
            r#"{"namespace": "events", "name": "subscribe", "id": "a", "args": ["weather"]}"#,
            r#"{"namespace": "events", "name": "shout", "id": "a"}"#,
        ] {
            assert_eq!(kind_of(text), Kind::Malformed, "{text}");
        }
        let request = parse(r#"{"namespace": "events", "name": "shout", "id": "a"}"#);
        assert_eq!(
            error(&request, Code::BadRequest),
            r#"{"args":{"code":400,"message":"BADREQUEST"},"id":"a","name":"error","namespace":"events"}"#
        );
    }

    #[test]
    fn the_auth_messages_carry_a_token() {
        let token = Kind::Authenticate("secret".into());
        for (text, expected) in [
            (
                r#"{"namespace":"rpc","name":"auth_token","id":"1","args":{"token":"secret"}}"#,
                token.clone(),
            ),
            (
                r#"{"namespace":"rpc","name":"auth","id":"1","args":{"username":"u","password":"secret"}}"#,
                token,
            ),
            (
                r#"{"namespace":"rpc","name":"auth_clear","id":"1"}"#,
                Kind::Forget,
            ),
            (
                r#"{"namespace":"sysadm","name":"zfs","id":"1"}"#,
                Kind::Unknown,
            ),
        ] {
            assert_eq!(kind_of(text), expected);
        }
    }

    #[test]
    fn a_bridged_text_names_its_node_first() {
        assert_eq!(split_bridge("office-1\n{}"), (Some("office-1"), "{}"));
        assert_eq!(split_bridge("{\n}"), (None, "{\n}"));
        assert_eq!(join_bridge("office-1", "{}"), "office-1\n{}");
    }

    #[test]
    fn a_deep_or_long_text_is_malformed() {
        assert_eq!(kind_of(&"[".repeat(60_000)), Kind::Malformed);
        assert_eq!(kind_of(&" ".repeat(MAX_TEXT_BYTES + 1)), Kind::Malformed);
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(text in "[\\{\\}\\[\\]\":,a-z\n ]{0,200}") {
            fuzz_one(text.as_bytes());
        }
    }
}
