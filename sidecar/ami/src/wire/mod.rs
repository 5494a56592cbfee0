//! AMI on the wire: bytes to actions (from clients) and to messages (from Asterisk), without a copy. No sockets and no clock.

pub mod action;
pub mod message;

pub use action::{ActionReader, Fault, Frame};
pub use message::{Message, MessageError, MessageReader};

/// A line of `bytes` from `start`: its end without the line end, and where the next begins. `None` while it is not whole.
fn line_at(bytes: &[u8], start: usize, search_from: usize) -> Option<(usize, usize)> {
    let newline = search_from + memchr::memchr(b'\n', &bytes[search_from..])?;
    let end = if newline > start && bytes[newline - 1] == b'\r' {
        newline - 1
    } else {
        newline
    };
    Some((end, newline + 1))
}

/// The value of a header if the line is that header: as Asterisk, the name ends at the colon, and blanks before the value do not count.
pub(crate) fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let found = line.get(..name.len())?;
    if line.get(name.len()) != Some(&b':') || !found.eq_ignore_ascii_case(name) {
        return None;
    }
    Some(line[name.len() + 1..].trim_ascii_start())
}

/// The lines of a whole frame or message, without line ends and without the empty last one.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

/// For fuzzers: any bytes, in two pieces, as a client's and as Asterisk's. What is read must not depend on where they are split.
pub fn fuzz_one(bytes: &[u8]) {
    let (whole, split) = (collect(&[bytes]), collect(&halves(bytes)));
    assert_eq!(whole, split, "the split changed what was read");
}

fn halves(bytes: &[u8]) -> [&[u8]; 2] {
    let at = bytes
        .first()
        .map_or(0, |byte| usize::from(*byte) % bytes.len());
    let (one, two) = bytes.split_at(at);
    [one, two]
}

fn collect(pieces: &[&[u8]]) -> (Vec<String>, Vec<String>) {
    let (mut actions, mut messages) = (Vec::new(), Vec::new());
    let mut from_client = ActionReader::default();
    let mut from_asterisk = MessageReader::default();
    for piece in pieces {
        from_client.push(piece);
        while from_client.fetch() {
            actions.push(match from_client.front().expect("just fetched") {
                Ok(frame) => format!("{frame:?}"),
                Err(fault) => fault.to_string(),
            });
            from_client.pop();
        }
        from_asterisk.push(piece);
        while let Ok(true) = from_asterisk.fetch() {
            messages.push(format!("{:?}", from_asterisk.front()));
            from_asterisk.pop();
        }
    }
    (actions, messages)
}
