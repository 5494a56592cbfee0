//! Heartbeat's messages: an ordered list of named fields, in one of two written forms (`string_form`, `netstring`).
//!
//! Fields that this door does not look into keep the bytes they came with, so a message is handed on as it was sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::{netstring, string_form};

/// The most fields that a message may have.
pub const MAX_FIELDS: usize = 1000;

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines of `name=value`. What clients use by themselves, and all that this door says.
    #[default]
    Lines,
    /// Fields with their lengths: what clients change to when a message holds another.
    Netstring,
}

/// What a field holds, as its digit in the written form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// Text.
    pub const TEXT: Self = Self(0);
    /// Bytes, in base64 where the form is lines.
    pub const BINARY: Self = Self(1);

    /// Of a digit: 0 text, 1 binary, 2 a message, 3 a list, above these compressed messages.
    pub fn from_digit(digit: u8) -> Option<Self> {
        digit.is_ascii_digit().then(|| Self(digit - b'0'))
    }

    /// Its digit.
    pub fn digit(self) -> u8 {
        b'0' + self.0
    }
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it holds.
    pub kind: Kind,
    /// Its name: not empty, without `=`, line ends and NUL.
    pub name: Vec<u8>,
    /// Its value as written.
    pub value: Vec<u8>,
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    form: Form,
    fields: Vec<Field>,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// It begins like neither form.
    #[error("neither >>> nor ### begins the message")]
    Start,
    /// It ends too early.
    #[error("the message has no end")]
    End,
    /// A field is not written as the form demands.
    #[error("field {0} is malformed")]
    Field(usize),
    /// It has too many fields.
    #[error("more than {MAX_FIELDS} fields")]
    TooMany,
}

impl MessageError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Start => "BadStart",
            Self::End => "BadEnd",
            Self::Field(_) => "BadField",
            Self::TooMany => "TooManyFields",
        }
    }
}

impl Message {
    /// A message of a type (`t`), to be written as lines.
    pub fn of_type(kind: &str) -> Self {
        Self::default().with("t", kind)
    }

    /// Reads either form.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let (form, fields) = if body.starts_with(string_form::START) {
            (Form::Lines, string_form::parse(body)?)
        } else if body.starts_with(netstring::START) {
            (Form::Netstring, netstring::parse(body)?)
        } else {
            return Err(MessageError::Start);
        };
        Ok(Self { form, fields })
    }

    /// Writes it in its form.
    pub fn encode(&self) -> Vec<u8> {
        match self.form {
            Form::Lines => string_form::encode(&self.fields),
            Form::Netstring => netstring::encode(&self.fields),
        }
    }

    /// Adds a text. Line ends and NUL would end it early: they become 0x13, as Heartbeat writes a line end.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a text, in place where there is one of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        let value = value.bytes().map(string_form::harmless).collect();
        let field = Field {
            kind: Kind::TEXT,
            name: name.into(),
            value,
        };
        match self.find(name) {
            Some(place) => self.fields[place] = field,
            None => self.fields.push(field),
        }
    }

    /// Adds bytes.
    #[must_use]
    pub fn with_bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        let value = match self.form {
            Form::Lines => STANDARD.encode(bytes).into_bytes(),
            Form::Netstring => bytes.to_vec(),
        };
        self.fields.push(Field {
            kind: Kind::BINARY,
            name: name.into(),
            value,
        });
        self
    }

    /// Takes a field away, if there is one.
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|field| field.name != name.as_bytes());
    }

    /// A text; `None` also if it is not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        let field = &self.fields[self.find(name)?];
        (field.kind == Kind::TEXT)
            .then(|| std::str::from_utf8(&field.value).ok())
            .flatten()
    }

    /// Bytes.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let field = &self.fields[self.find(name)?];
        match (field.kind, self.form) {
            (Kind::BINARY, Form::Lines) => STANDARD.decode(&field.value).ok(),
            (Kind::BINARY, Form::Netstring) => Some(field.value.clone()),
            _ => None,
        }
    }

    /// All fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.fields
            .iter()
            .position(|field| field.name == name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_written_as_libplumb_does() {
        let message = Message::of_type("hbapi-req")
            .with("reqtype", "signon")
            .with("info", "")
            .with_bytes("queryuuid", &[0, 1, 2, 255]);
        let body = b">>>\nt=hbapi-req\nreqtype=signon\ninfo=\n(1)queryuuid=AAEC/w==\n<<<\n\0";
        assert_eq!(message.encode(), body);
        assert_eq!(Message::parse(body).unwrap(), message);
        assert_eq!(message.bytes("queryuuid").unwrap(), [0, 1, 2, 255]);
    }

    #[test]
    fn a_netstring_is_read_and_written_back() {
        let body = b"###\n14:(0)t=hbapi-req,17:(1)queryuuid=\0\n,=,%%%\n";
        let message = Message::parse(body).unwrap();
        assert_eq!(message.text("t"), Some("hbapi-req"));
        assert_eq!(message.bytes("queryuuid").unwrap(), b"\0\n,=");
        assert_eq!(message.encode(), body);
    }

    #[test]
    fn a_nested_message_passes_unchanged() {
        let body = b"###\n8:(0)t=abc,28:(2)child=###\n8:(0)x=yyy,%%%\n,%%%\n";
        let mut message = Message::parse(body).unwrap();
        message.set("from_id", "me");
        let expected = b"###\n8:(0)t=abc,28:(2)child=###\n8:(0)x=yyy,%%%\n,13:(0)from_id=me,%%%\n";
        assert_eq!(
            String::from_utf8_lossy(&message.encode()),
            String::from_utf8_lossy(expected)
        );
    }

    #[test]
    fn the_first_equals_sign_splits() {
        let message = Message::parse(b">>>\na=b=c\n<<<\n\0").unwrap();
        assert_eq!(message.text("a"), Some("b=c"));
    }

    #[test]
    fn values_cannot_break_out_of_their_line() {
        let message = Message::of_type("x").with("a", "1\nresult=OK\0");
        let read = Message::parse(&message.encode()).unwrap();
        assert_eq!(read.fields().len(), 2);
        assert_eq!(read.text("a"), Some("1\u{13}result=OK\u{13}"));
    }

    #[test]
    fn malformed_messages_are_told_apart() {
        let cases: [(&[u8], MessageError); 10] = [
            (b"", MessageError::Start),
            (b"hello", MessageError::Start),
            (b">>>\na=b\n", MessageError::End),
            (b">>>\na=b", MessageError::End),
            (b">>>\n=b\n<<<\n\0", MessageError::Field(0)),
            (b">>>\na=b\nc\n<<<\n\0", MessageError::Field(1)),
            (b">>>\na=b\n<<<\nx", MessageError::End),
            (b"###\n99:(0)a=b,%%%\n", MessageError::Field(0)),
            (b"###\n6:(x)a=b,%%%\n", MessageError::Field(0)),
            (b"###\n6:(0)a=b,", MessageError::End),
        ];
        for (body, error) in cases {
            let text = String::from_utf8_lossy(body).into_owned();
            assert_eq!(Message::parse(body), Err(error), "{text:?}");
        }
        let many = [b">>>\n".to_vec(), b"a=b\n".repeat(MAX_FIELDS + 1)].concat();
        assert_eq!(Message::parse(&many), Err(MessageError::TooMany));
    }

    fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let name = "[a-z_(][a-z0-9_)]{0,8}";
        let value = proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec((name, value), 0..12)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in fields(), digit in b'0'..=b'6', lines: bool) {
            let form = if lines { Form::Lines } else { Form::Netstring };
            let fields = fields.into_iter().map(|(name, mut value)| {
                if lines {
                    value = value.into_iter().map(string_form::harmless).collect();
                }
                Field { kind: Kind::from_digit(digit).unwrap(), name: name.into_bytes(), value }
            });
            let message = Message { form, fields: fields.collect() };
            // A text whose name looks like the mark of a kind is read as that kind.
            prop_assume!(!message.fields.iter().any(|field| string_form::looks_marked(&field.name)));
            prop_assert_eq!(Message::parse(&message.encode()).unwrap(), message);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::super::fuzz_one(&bytes);
        }
    }
}
