//! Responses and events as Asterisk sends them, with the few headers found that the hub decides by.

use std::ops::Range;

use super::{line_at, value_of};

/// The longest line that is taken from Asterisk.
const LINE_LIMIT_BYTES: usize = 64 << 10;
/// The most bytes of one message: a command's output is one.
const MESSAGE_LIMIT_BYTES: usize = 16 << 20;
/// An idle buffer is given back beyond this.
const IDLE_CAPACITY_BYTES: usize = 256 << 10;

/// Why the connection to Asterisk is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Something larger than anything that Asterisk is known to send.
    #[error("asterisk sent a message beyond the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The answer of an action.
    Response,
    /// An event, or an entry of a list.
    Event,
    /// Neither: text of an action that is older than the protocol.
    #[default]
    Other,
}

/// What an `EventList` header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListMark {
    /// A list follows.
    Start,
    /// The list is over.
    End,
}

/// A whole message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// All its lines, the empty one at its end included.
    pub bytes: &'a [u8],
    /// Response or event.
    pub kind: Kind,
    /// The value of the first `Response` or `Event` header.
    pub name: &'a [u8],
    /// Asterisk's echo of the identifier, and where its line is in `bytes`.
    pub action_id: Option<(&'a [u8], usize, usize)>,
    /// The classes that may hear it.
    pub privilege: Option<&'a [u8]>,
    /// Begin or end of a list.
    pub list: Option<ListMark>,
}

impl<'a> Message<'a> {
    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        super::lines(self.bytes).find_map(|line| value_of(line, name.as_bytes()))
    }

    /// Appends it with another identifier; with none if `id` is empty.
    pub fn write_with_id(&self, id: &[u8], out: &mut Vec<u8>) {
        let Some((_, start, end)) = self.action_id else {
            out.extend_from_slice(self.bytes);
            return;
        };
        out.extend_from_slice(&self.bytes[..start]);
        if !id.is_empty() {
            out.extend_from_slice(b"ActionID: ");
            out.extend_from_slice(id);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.bytes[end..]);
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(self.bytes);
        formatter.debug_tuple("Message").field(&text).finish()
    }
}

/// Collects bytes and gives messages. `fetch` until it says no, `front` what was fetched, `pop` it.
#[derive(Debug, Default)]
pub struct MessageReader {
    buffer: Vec<u8>,
    start: usize,
    line: usize,
    searched: usize,
    scan: Scan,
    front: Option<usize>,
}

impl MessageReader {
    /// Takes bytes as they arrive, split anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.line -= self.start;
            self.searched -= self.start;
            self.front = self.front.map(|end| end - self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line alone, without its end: the banner. `None` while it is not whole.
    pub fn banner(&mut self) -> Option<Vec<u8>> {
        let (end, next) = line_at(&self.buffer, self.line, self.searched)?;
        let banner = self.buffer[self.line..end].to_vec();
        (self.start, self.line, self.searched) = (next, next, next);
        Some(banner)
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether a message is at the front, reading on where necessary. After an error the connection is of no more use.
    pub fn fetch(&mut self) -> Result<bool, MessageError> {
        while self.front.is_none() {
            let Some((end, next)) = line_at(&self.buffer, self.line, self.searched) else {
                self.searched = self.buffer.len();
                let unended = self.searched - self.line;
                return if unended > LINE_LIMIT_BYTES {
                    Err(MessageError::TooLarge {
                        limit: LINE_LIMIT_BYTES,
                    })
                } else {
                    Ok(false)
                };
            };
            if next - self.start > MESSAGE_LIMIT_BYTES || next - self.line > LINE_LIMIT_BYTES + 2 {
                let limit = MESSAGE_LIMIT_BYTES;
                return Err(MessageError::TooLarge { limit });
            }
            self.take_line(end, next);
        }
        Ok(true)
    }

    fn take_line(&mut self, end: usize, next: usize) {
        let is_empty = end == self.line;
        if !is_empty {
            let offset = self.line - self.start;
            let (line, whole) = (&self.buffer[self.line..end], next - self.line);
            self.scan.add_line(line, offset, whole);
        } else if self.line == self.start {
            self.start = next;
        } else {
            self.front = Some(next);
        }
        (self.line, self.searched) = (next, next);
    }

    /// The message at the front, once [`Self::fetch`] said yes.
    pub fn front(&self) -> Option<Message<'_>> {
        let bytes = &self.buffer[self.start..self.front?];
        let scan = &self.scan;
        let value = |range: &Range<usize>| &bytes[range.clone()];
        Some(Message {
            bytes,
            kind: scan.kind,
            name: value(&scan.name),
            action_id: scan
                .action_id
                .as_ref()
                .map(|(id, line)| (value(id), line.start, line.end)),
            privilege: scan.privilege.as_ref().map(value),
            list: scan.list,
        })
    }

    /// Goes on behind the message at the front.
    pub fn pop(&mut self) {
        if let Some(end) = self.front.take() {
            self.start = end;
        }
        self.scan = Scan::default();
        if self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.line, self.searched) = (0, 0, 0);
            if self.buffer.capacity() > IDLE_CAPACITY_BYTES {
                self.buffer.shrink_to(0);
            }
        }
    }
}

/// What is known of the message that is being read; ranges count from its beginning.
#[derive(Debug, Default)]
struct Scan {
    kind: Kind,
    name: Range<usize>,
    action_id: Option<(Range<usize>, Range<usize>)>,
    privilege: Option<Range<usize>>,
    list: Option<ListMark>,
}

impl Scan {
    /// A line that begins `offset` into the message and takes `whole` bytes with its end.
    fn add_line(&mut self, line: &[u8], offset: usize, whole: usize) {
        let end = offset + line.len();
        let range = |value: &[u8]| end - value.len()..end;
        match line[0] {
            b'R' if offset == 0 => {
                if let Some(value) = value_of(line, b"Response") {
                    (self.kind, self.name) = (Kind::Response, range(value));
                }
            }
            b'E' if offset == 0 => {
                if let Some(value) = value_of(line, b"Event") {
                    (self.kind, self.name) = (Kind::Event, range(value));
                }
            }
            b'E' if self.list.is_none() => {
                if let Some(value) = value_of(line, b"EventList") {
                    self.list = Some(list_mark(value));
                }
            }
            b'A' if self.action_id.is_none() => {
                if let Some(value) = value_of(line, b"ActionID") {
                    self.action_id = Some((range(value), offset..offset + whole));
                }
            }
            b'P' if self.privilege.is_none() => {
                self.privilege = value_of(line, b"Privilege").map(range);
            }
            _ => {}
        }
    }
}

fn list_mark(value: &[u8]) -> ListMark {
    if value.eq_ignore_ascii_case(b"start") {
        return ListMark::Start;
    }
    // `Cancelled` ends a list too.
    ListMark::End
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Asterisk 22.10.1 sent it.
    const ANSWERS: &str = "Response: Success\r\nActionID: 1.7.x\r\nEventList: start\r\nMessage: Peer list will follow\r\n\r\n\
        Event: PeerEntry\r\nActionID: 1.7.x\r\nObjectName: a\r\n\r\nEvent: PeerlistComplete\r\nActionID: 1.7.x\r\nEventList: Complete\r\nListItems: 1\r\n\r\n\
        Event: Hangup\r\nPrivilege: call,all\r\nChannel: Local/1\r\n\r\n";

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, MessageError> {
        let mut reader = MessageReader::default();
        let mut found = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while reader.fetch()? {
                let message = reader.front().unwrap();
                let mut text = Vec::new();
                message.write_with_id(b"own", &mut text);
                let text = String::from_utf8_lossy(&text).into_owned();
                found.push(format!("{:?} {:?} {text}", message.kind, message.list));
                reader.pop();
            }
        }
        Ok(found)
    }

    #[test]
    fn messages_are_told_apart_and_their_identifier_is_replaced() {
        let found = read(&[ANSWERS.as_bytes()]).unwrap();
        assert_eq!(
            found[0],
            "Response Some(Start) Response: Success\r\nActionID: own\r\nEventList: start\r\nMessage: Peer list will follow\r\n\r\n"
        );
        assert!(found[1].starts_with("Event None ") && found[1].contains("ActionID: own\r\n"));
        assert!(found[2].starts_with("Event Some(End) "));
        assert!(
            found[3].ends_with("Event: Hangup\r\nPrivilege: call,all\r\nChannel: Local/1\r\n\r\n")
        );
    }

    #[test]
    fn what_decides_is_found() {
        let mut reader = MessageReader::default();
        reader.push(b"Asterisk Call Manager/11.0.0\r\nEvent: Hangup\r\nPrivilege: call,all\r\nChannel: x\r\n\r\n");
        assert_eq!(reader.banner().unwrap(), b"Asterisk Call Manager/11.0.0");
        assert!(reader.fetch().unwrap());
        let message = reader.front().unwrap();
        assert_eq!(
            (message.name, message.privilege),
            (&b"Hangup"[..], Some(&b"call,all"[..]))
        );
        assert_eq!(
            (message.get("channel"), message.action_id),
            (Some(&b"x"[..]), None)
        );
    }

    #[test]
    fn endless_lines_and_messages_are_refused() {
        assert!(read(&[&vec![b'x'; LINE_LIMIT_BYTES + 1]]).is_err());
        let line = [vec![b'x'; LINE_LIMIT_BYTES - 1], b"\n".to_vec()].concat();
        assert!(read(&[&line.repeat(MESSAGE_LIMIT_BYTES / LINE_LIMIT_BYTES + 1)]).is_err());
    }

    proptest! {
        #[test]
        fn splitting_the_bytes_changes_nothing(at in 0..ANSWERS.len()) {
            let (one, two) = ANSWERS.as_bytes().split_at(at);
            prop_assert_eq!(read(&[one, two]), read(&[ANSWERS.as_bytes()]));
        }
    }
}
