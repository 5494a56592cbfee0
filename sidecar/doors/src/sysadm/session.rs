//! A client's dialogue: pure, texts in, texts out.
//!
//! ```text
//!  Stranger ──(token, or none is asked for)──► Guest ──subscribe──► Guest with topics
//!     ▲                                          │  ◄─unsubscribe──
//!     └───────────────auth_clear─────────────────┘
//! ```

use std::collections::BTreeSet;

use serde_json::json;

use super::codec::{Code, Kind, Request, Topic, error, parse, response, token_args, topic_args};

/// One client.
#[derive(Debug)]
pub struct Session {
    is_guest: bool,
    topics: BTreeSet<Topic>,
}

/// What a session needs to know of the world.
pub trait House {
    /// Whether `token` lets a client in.
    fn is_token(&self, token: &str) -> bool;
    /// The last event of `topic`.
    fn last_event(&self, topic: Topic) -> Option<String>;
    /// Name of the host.
    fn hostname(&self) -> String;
}

impl Session {
    /// A client that has just come; a guest may subscribe at once.
    pub fn new(is_guest: bool) -> Self {
        Self {
            is_guest,
            topics: BTreeSet::new(),
        }
    }

    /// Whether it has shown a token, or none is asked for.
    pub fn is_guest(&self) -> bool {
        self.is_guest
    }

    /// Whether it wants events of `topic`.
    pub fn wants(&self, topic: Topic) -> bool {
        self.is_guest && self.topics.contains(&topic)
    }

    /// The texts to send, in order, when `text` has come.
    pub fn on_text(&mut self, text: &str, house: &impl House) -> Vec<String> {
        let request = parse(text);
        match &request.kind {
            Kind::Malformed => vec![error(&request, Code::BadRequest)],
            Kind::Identify => {
                let args = json!({"type": "server", "hostname": house.hostname()});
                vec![response(&request, &args)]
            }
            Kind::Authenticate(token) => vec![self.authenticate(&request, token, house)],
            Kind::Forget => {
                self.is_guest = false;
                Vec::new()
            }
            _ if !self.is_guest => vec![error(&request, Code::Unauthorized)],
            Kind::Subscribe(topics) => self.subscribe(&request, topics, house),
            Kind::Unsubscribe(topics) => {
                self.topics.retain(|topic| !topics.contains(topic));
                vec![response(&request, &topic_args("unsubscribe", topics))]
            }
            Kind::Unknown => vec![error(&request, Code::NotFound)],
        }
    }

    fn authenticate(&mut self, request: &Request, token: &str, house: &impl House) -> String {
        self.is_guest = house.is_token(token);
        if self.is_guest {
            response(request, &token_args(token))
        } else {
            error(request, Code::Unauthorized)
        }
    }

    /// The answer, and of each topic that is new the last event.
    fn subscribe(
        &mut self,
        request: &Request,
        topics: &[Topic],
        house: &impl House,
    ) -> Vec<String> {
        let mut texts = vec![response(request, &topic_args("subscribe", topics))];
        for topic in topics {
            if self.topics.insert(*topic) {
                texts.extend(house.last_event(*topic));
            }
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example;

    impl House for Example {
        fn is_token(&self, token: &str) -> bool {
            token == "right"
        }
        fn last_event(&self, topic: Topic) -> Option<String> {
            (topic != Topic::LifePreserver).then(|| format!("last {}", topic.name()))
        }
        fn hostname(&self) -> String {
            "office-0".into()
        }
    }

    const SUBSCRIBE: &str = r#"{"namespace":"events","name":"subscribe","id":"1","args":["dispatcher","life-preserver"]}"#;

    #[test]
    fn a_stranger_is_unauthorized_until_the_token_is_right() {
        let mut session = Session::new(false);
        let refused = r#"{"args":{"code":401,"message":"UNAUTHORIZED"},"id":"1","name":"error","namespace":"events"}"#;
        assert_eq!(session.on_text(SUBSCRIBE, &Example), [refused]);
        let auth = |token: &str| {
            format!(
                r#"{{"namespace":"rpc","name":"auth_token","id":"2","args":{{"token":"{token}"}}}}"#
            )
        };
        assert!(session.on_text(&auth("wrong"), &Example)[0].contains("UNAUTHORIZED"));
        assert!(session.on_text(&auth("right"), &Example)[0].contains("response"));
        assert_eq!(session.on_text(SUBSCRIBE, &Example).len(), 2);
        session.on_text(
            r#"{"namespace":"rpc","name":"auth_clear","id":"3"}"#,
            &Example,
        );
        assert!(!session.wants(Topic::Dispatcher));
    }

    #[test]
    fn a_subscription_is_answered_and_followed_by_the_last_events_once() {
        let mut session = Session::new(true);
        let first = session.on_text(SUBSCRIBE, &Example);
        assert!(first[0].contains(r#""name":"response""#));
        assert_eq!(&first[1..], ["last dispatcher"]);
        assert_eq!(session.on_text(SUBSCRIBE, &Example).len(), 1);
        assert!(session.wants(Topic::LifePreserver) && !session.wants(Topic::SystemState));
        session.on_text(
            r#"{"namespace":"events","name":"unsubscribe","args":"life_preserver"}"#,
            &Example,
        );
        assert!(session.wants(Topic::Dispatcher) && !session.wants(Topic::LifePreserver));
    }
}
