//! AMI on the wire: bytes to messages and actions to bytes. No sockets and no clock.
//!
//! Asterisk reads a line of at most 1022 bytes, and a longer one spoils the next action too; CR or
//! LF in a value would begin another header or action. Both are refused before they are sent.

/// The longest line that is sent; Asterisk takes 1022 bytes.
const LINE_SENT_LIMIT_BYTES: usize = 1000;
/// Asterisk passes over the headers of an action beyond the 128th.
const HEADERS_SENT_LIMIT: usize = 100;
/// The longest line that is taken from Asterisk.
const LINE_LIMIT_BYTES: usize = 64 << 10;
/// The most headers of one message; a command's output has one for each line.
const HEADERS_LIMIT: usize = 64 << 10;
/// The most bytes of one message.
const MESSAGE_LIMIT_BYTES: usize = 16 << 20;

/// Why bytes are no message, or an action is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A name or value with a line end in it would be read as another header.
    #[error("header {name} has a line end in it: remove it")]
    LineEndInHeader {
        /// The header's name, as far as it can be shown.
        name: String,
    },
    /// A line that Asterisk would cut.
    #[error("header {name} is longer than {LINE_SENT_LIMIT_BYTES} bytes: shorten its value")]
    SentLineTooLong {
        /// The header's name.
        name: String,
    },
    /// More headers than Asterisk reads.
    #[error("action has more than {HEADERS_SENT_LIMIT} headers: split it")]
    TooManySentHeaders,
    /// Asterisk sent something larger than anything it is known to send.
    #[error("asterisk sent a message beyond the limit of {limit} {unit}")]
    MessageTooLarge {
        /// The limit that was crossed.
        limit: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// What answered on this port is no AMI.
    #[error("the banner is not AMI's: {banner:?}")]
    NotAmi {
        /// The first line received.
        banner: String,
    },
}

/// One event or response: headers in the order of their arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    headers: Vec<(String, String)>,
}

impl Message {
    /// The first value of a header; names differ in no case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a header, in order.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The event's name, if it is one. (`OriginateResponse` is an event with a `Response` header.)
    pub fn event(&self) -> Option<&str> {
        self.get("Event")
    }
}

/// Collects bytes and gives messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Before this, `buffer` has been read; after it, no line end has been looked for before
    /// `searched`.
    read: usize,
    searched: usize,
    banner: Option<String>,
    message: Message,
    message_bytes: usize,
}

impl Decoder {
    /// Takes bytes as they arrive, split anywhere.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.searched -= self.read;
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// What Asterisk greets with, once it has arrived: `Asterisk Call Manager/<version of AMI>`.
    pub(super) fn banner(&self) -> Option<&str> {
        self.banner.as_deref()
    }

    /// The next whole message, or nothing until more bytes are pushed. After an error the
    /// connection is of no more use.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, CodecError> {
        while let Some(line) = self.next_line()? {
            if self.banner.is_none() {
                self.greet(line)?;
            } else if !line.is_empty() {
                self.add_header(&line)?;
            } else if !self.message.headers.is_empty() {
                self.message_bytes = 0;
                return Ok(Some(std::mem::take(&mut self.message)));
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<String>, CodecError> {
        let Some(length) = self.buffer[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n')
        else {
            self.searched = self.buffer.len();
            return if self.searched - self.read > LINE_LIMIT_BYTES {
                Err(too_large(LINE_LIMIT_BYTES, "bytes a line"))
            } else {
                Ok(None)
            };
        };
        let end = self.searched + length;
        let line = &self.buffer[self.read..end];
        if line.len() > LINE_LIMIT_BYTES {
            return Err(too_large(LINE_LIMIT_BYTES, "bytes a line"));
        }
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
        self.read = end + 1;
        self.searched = self.read;
        Ok(Some(line))
    }

    fn greet(&mut self, line: String) -> Result<(), CodecError> {
        if !line.starts_with("Asterisk Call Manager/") {
            let banner = line.chars().take(80).collect();
            return Err(CodecError::NotAmi { banner });
        }
        self.banner = Some(line);
        Ok(())
    }

    fn add_header(&mut self, line: &str) -> Result<(), CodecError> {
        self.message_bytes += line.len();
        if self.message_bytes > MESSAGE_LIMIT_BYTES {
            return Err(too_large(MESSAGE_LIMIT_BYTES, "bytes"));
        }
        if self.message.headers.len() == HEADERS_LIMIT {
            return Err(too_large(HEADERS_LIMIT, "headers"));
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        // Only one blank belongs to the protocol: the output of a command may begin with more.
        let value = value.strip_prefix(' ').unwrap_or(value);
        self.message
            .headers
            .push((name.to_owned(), value.to_owned()));
        Ok(())
    }
}

fn too_large(limit: usize, unit: &'static str) -> CodecError {
    CodecError::MessageTooLarge { limit, unit }
}

/// An action with its identifier, ready to send.
pub(super) fn encode(
    action: &str,
    id: &str,
    headers: &[(&str, &str)],
) -> Result<Vec<u8>, CodecError> {
    if headers.len() > HEADERS_SENT_LIMIT {
        return Err(CodecError::TooManySentHeaders);
    }
    let mut bytes = Vec::new();
    for (name, value) in [("Action", action), ("ActionID", id)].iter().chain(headers) {
        if name.contains(['\r', '\n', ':']) || value.contains(['\r', '\n', '\0']) {
            return Err(CodecError::LineEndInHeader {
                name: name.escape_debug().to_string(),
            });
        }
        if name.len() + 2 + value.len() > LINE_SENT_LIMIT_BYTES {
            return Err(CodecError::SentLineTooLong {
                name: (*name).to_owned(),
            });
        }
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Asterisk 22.10.1 sent it.
    const LOGIN: &str = "Asterisk Call Manager/11.0.0\r\nResponse: Success\r\nActionID: 1\r\nMessage: Authentication accepted\r\n\r\n\
        Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 0\r\nLastReload: 0\r\nStatus: Fully Booted\r\n\r\n";
    const COMMAND: &str = "Response: Success\r\nActionID: 2\r\nMessage: Command output follows\r\nOutput: \r\nOutput:  <Registration>: x\r\n\r\n";

    fn decode(chunks: &[&[u8]]) -> Result<Vec<Message>, CodecError> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(message) = decoder.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn a_login_and_a_commands_answer_are_read() {
        let messages = decode(&[LOGIN.as_bytes(), COMMAND.as_bytes()]).unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!(messages[0].get("response"), Some("Success"));
        assert_eq!(messages[1].event(), Some("FullyBooted"));
        assert_eq!(
            messages[2].all("Output").collect::<Vec<_>>(),
            ["", " <Registration>: x"]
        );
    }

    #[test]
    fn what_is_not_ami_is_named() {
        let error = decode(&[b"SSH-2.0-OpenSSH\r\n"]).unwrap_err();
        assert_eq!(
            error,
            CodecError::NotAmi {
                banner: "SSH-2.0-OpenSSH".into()
            }
        );
    }

    #[test]
    fn endless_lines_and_messages_are_refused() {
        let banner = b"Asterisk Call Manager/11.0.0\r\n";
        let line = vec![b'x'; LINE_LIMIT_BYTES + 1];
        assert!(decode(&[banner, &line]).is_err());
        let headers = b"a: b\r\n".repeat(HEADERS_LIMIT + 1);
        assert!(decode(&[banner, &headers]).is_err());
        let long = [vec![b'x'; LINE_LIMIT_BYTES - 1], b"\n".to_vec()]
            .concat()
            .repeat(MESSAGE_LIMIT_BYTES / LINE_LIMIT_BYTES + 2);
        assert!(decode(&[banner, &long]).is_err());
    }

    #[test]
    fn a_value_cannot_begin_another_action() {
        let error = encode("Command", "1", &[("Command", "x\r\n\r\nAction: Logoff")]).unwrap_err();
        assert_eq!(
            error,
            CodecError::LineEndInHeader {
                name: "Command".into()
            }
        );
        assert!(encode("Ping\n", "1", &[]).is_err());
        assert!(encode("Ping", "1", &[("a:b", "")]).is_err());
    }

    #[test]
    fn an_action_is_bounded_as_asterisk_bounds_it() {
        let value = "x".repeat(LINE_SENT_LIMIT_BYTES - 3);
        assert!(encode("A", "1", &[("k", &value)]).is_ok());
        assert!(encode("A", "1", &[("kk", &value)]).is_err());
        assert_eq!(
            encode("A", "1", &vec![("k", "v"); 101]).unwrap_err(),
            CodecError::TooManySentHeaders
        );
        assert_eq!(
            encode("Ping", "7", &[]).unwrap(),
            b"Action: Ping\r\nActionID: 7\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn splitting_the_bytes_changes_nothing(at in 0..LOGIN.len()) {
            let (one, two) = LOGIN.as_bytes().split_at(at);
            prop_assert_eq!(decode(&[one, two]), decode(&[LOGIN.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&[b"Asterisk Call Manager/1\r\n", &bytes]);
        }
    }
}
