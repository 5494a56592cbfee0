//! The few messages of nftables' netlink protocol that the fence needs, as bytes: refresh, close, read. Pure.
//!
//! Numbers are those of `linux/netlink.h` and `linux/netfilter/nf_tables.h`. All that is received is bounded by its buffer, and a
//! length that does not fit ends the reading.

use std::time::Duration;

use super::lease::Slot;

const NETLINK_HEADER_BYTES: usize = 16;
/// Behind it, every message of nftables has its family, a version and a resource number.
const HEADERS_BYTES: usize = NETLINK_HEADER_BYTES + 4;

const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const GET_TABLE: u16 = (NFTABLES << 8) + 1;
const GET_RULE: u16 = (NFTABLES << 8) + 7;
const NEW_ELEMENT: u16 = (NFTABLES << 8) + 12;
const GET_ELEMENT: u16 = (NFTABLES << 8) + 13;
const DELETE_ELEMENT: u16 = (NFTABLES << 8) + 14;
const GET_GENERATION: u16 = (NFTABLES << 8) + 16;

/// An attribute of the batch's first message.
const BATCH_GENERATION: u16 = 1;
/// How the kernel refuses a batch that was made for rule sets of another number (`ERESTART`).
pub const OVERTAKEN: i32 = -85;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const GOTO: i32 = -4;

/// A table of the fence, and what its sets and its map are keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `inet`: packets of IPv4 and IPv6.
    Inet,
    /// `netdev`: ARP, and neighbour messages of IPv6, on their link.
    Netdev,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Inet, Self::Netdev];

    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Netdev => 5,
        }
    }

    fn ether_types(self) -> [[u8; 2]; 2] {
        const IPV4: [u8; 2] = [0x08, 0x00];
        const ARP: [u8; 2] = [0x08, 0x06];
        const IPV6: [u8; 2] = [0x86, 0xdd];
        match self {
            Self::Inet => [IPV4, IPV6],
            Self::Netdev => [ARP, IPV6],
        }
    }
}

/// Messages for the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Numbers of the first and the last message; answers carry them.
    pub sequence: (u32, u32),
}

/// First phase: the element of the idle slot, with its timeout, in both tables at once. Refused ([`OVERTAKEN`]) unless the rule sets have
/// this number, if one is given.
pub fn fill(
    table: &str,
    slot: Slot,
    timeout: Duration,
    first: u32,
    generation: Option<u32>,
) -> Request {
    let set = match slot {
        Slot::A => "lease_a",
        Slot::B => "lease_b",
    };
    let mut batch = Builder::new(first);
    batch.begin_batch(generation);
    for family in Family::ALL {
        batch.flush(family, table, set);
        batch.elements(family, table, set, |element| {
            element.attribute(4, &(timeout.as_millis() as u64).to_be_bytes());
        });
    }
    batch.end_batch()
}

/// Second phase: everything goes to this slot. Carries no time. Refused as the first.
pub fn point(table: &str, slot: Slot, first: u32, generation: Option<u32>) -> Request {
    let chain: &[u8] = match slot {
        Slot::A => b"slot_a\0",
        Slot::B => b"slot_b\0",
    };
    let mut batch = Builder::new(first);
    batch.begin_batch(generation);
    for family in Family::ALL {
        batch.flush(family, table, "cur");
        batch.elements(family, table, "cur", |element| {
            element.nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.attribute(1, &GOTO.to_be_bytes());
                    verdict.attribute(2, chain);
                });
            });
        });
    }
    batch.end_batch()
}

/// Nothing passes any more.
pub fn close(table: &str, first: u32) -> Request {
    let mut batch = Builder::new(first);
    batch.begin_batch(None);
    for family in Family::ALL {
        batch.flush(family, table, "cur");
    }
    batch.end_batch()
}

/// Where `cur` points.
pub fn read_pointer(table: &str, first: u32) -> Request {
    let mut request = Builder::new(first);
    request.message(GET_ELEMENT, DUMP, Family::Inet.number(), 0);
    request.text(1, table);
    request.text(2, "cur");
    request.finish()
}

/// All rules of a table.
pub fn read_rules(family: Family, table: &str, first: u32) -> Request {
    let mut request = Builder::new(first);
    request.message(GET_RULE, DUMP, family.number(), 0);
    request.text(1, table);
    request.finish()
}

/// The table itself: whether it is there, and not made dormant.
pub fn read_table(family: Family, table: &str, first: u32) -> Request {
    let mut request = Builder::new(first);
    request.message(GET_TABLE, ACKNOWLEDGE, family.number(), 0);
    request.text(1, table);
    request.finish()
}

/// The number of the rule sets of this network namespace: one more with every change that anybody makes.
pub fn read_generation(first: u32) -> Request {
    let mut request = Builder::new(first);
    request.message(GET_GENERATION, ACKNOWLEDGE, 0, 0);
    request.finish()
}

/// A message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The request is done: zero, or a negative error number.
    Result(i32),
    /// The end of a dump.
    Done,
    /// Attributes of an object.
    Object(&'a [u8]),
}

/// The messages in what was received, each with its sequence number.
pub fn answers(received: &[u8]) -> impl Iterator<Item = (u32, Answer<'_>)> {
    let mut rest = received;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let sequence = u32_at(rest, 8)?;
        let message = rest.get(..length).filter(|_| length >= HEADERS_BYTES)?;
        rest = rest.get(padded(length)..).unwrap_or_default();
        let answer = match kind {
            MESSAGE_ERROR => Answer::Result(u32_at(message, NETLINK_HEADER_BYTES)?.cast_signed()),
            MESSAGE_DONE => Answer::Done,
            _ => Answer::Object(&message[HEADERS_BYTES..]),
        };
        Some((sequence, answer))
    })
}

/// The slot that an answer to [`read_pointer`] names, if the map is not empty.
pub fn pointer_of(object: &[u8]) -> Option<Slot> {
    let element = find(find(object, 3)?, 1)?;
    let verdict = find(find(element, 2)?, 2)?;
    match find(verdict, 2)? {
        b"slot_a\0" => Some(Slot::A),
        b"slot_b\0" => Some(Slot::B),
        _ => None,
    }
}

/// The number in an answer to [`read_generation`].
pub fn generation_of(object: &[u8]) -> Option<u32> {
    let bytes = find(object, 1)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// The content of the first attribute of this kind.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !NESTED;
        let content = rest.get(4..length)?;
        if found == kind {
            return Some(content);
        }
        rest = rest.get(padded(length)..)?;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Appends messages; the lengths are filled in when what they count is complete.
struct Builder {
    bytes: Vec<u8>,
    message_at: usize,
    first: u32,
    next: u32,
}

impl Builder {
    fn new(first: u32) -> Self {
        Self {
            bytes: Vec::with_capacity(512),
            message_at: 0,
            first,
            next: first,
        }
    }

    fn begin_batch(&mut self, generation: Option<u32>) {
        self.message(BATCH_BEGIN, 0, 0, NFTABLES);
        if let Some(number) = generation {
            self.attribute(BATCH_GENERATION, &number.to_be_bytes());
        }
    }

    /// The last message of the batch asks for the acknowledgement.
    fn end_batch(mut self) -> Request {
        self.ask_acknowledgement();
        let last = self.next - 1;
        self.message(BATCH_END, 0, 0, NFTABLES);
        self.close_message();
        Request {
            bytes: self.bytes,
            sequence: (self.first, last),
        }
    }

    fn finish(mut self) -> Request {
        self.close_message();
        Request {
            bytes: self.bytes,
            sequence: (self.first, self.next - 1),
        }
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.close_message();
        self.message_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.next.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.next = self.next.wrapping_add(1);
    }

    fn ask_acknowledgement(&mut self) {
        let at = self.message_at + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ACKNOWLEDGE;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    fn close_message(&mut self) {
        let length = self.bytes.len() - self.message_at;
        if length > 0 {
            let at = self.message_at;
            self.bytes[at..at + 4].copy_from_slice(&(length as u32).to_ne_bytes());
        }
    }

    fn flush(&mut self, family: Family, table: &str, set: &str) {
        self.message(DELETE_ELEMENT, 0, family.number(), 0);
        self.text(1, table);
        self.text(2, set);
    }

    /// One element for each ether type, all with the same content.
    fn elements(&mut self, family: Family, table: &str, set: &str, content: impl Fn(&mut Self)) {
        self.message(NEW_ELEMENT, CREATE, family.number(), 0);
        self.text(1, table);
        self.text(2, set);
        self.nest(3, |list| {
            for key in family.ether_types() {
                list.nest(1, |element| {
                    element.nest(1, |data| data.attribute(1, &key));
                    content(element);
                });
            }
        });
    }

    fn text(&mut self, kind: u16, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn attribute(&mut self, kind: u16, content: &[u8]) {
        let length = (4 + content.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        content(self);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_batch_is_a_row_of_whole_messages_and_its_last_is_acknowledged() {
        let request = fill(
            "pbxha_office",
            Slot::B,
            Duration::from_millis(300),
            7,
            Some(9),
        );
        let mut rest = &request.bytes[..];
        let mut kinds = Vec::new();
        while let Some(length) = u32_at(rest, 0) {
            kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
            rest = &rest[padded(length as usize)..];
        }
        assert_eq!(
            kinds,
            [
                BATCH_BEGIN,
                DELETE_ELEMENT,
                NEW_ELEMENT,
                DELETE_ELEMENT,
                NEW_ELEMENT,
                BATCH_END
            ]
        );
        assert_eq!(request.sequence, (7, 11));
        let milliseconds = 300u64.to_be_bytes();
        let count = request
            .bytes
            .windows(8)
            .filter(|bytes| *bytes == milliseconds)
            .count();
        assert_eq!(count, 4, "two ether types in each of two tables");
    }

    #[test]
    fn the_pointer_is_read_from_what_point_writes() {
        for slot in [Slot::A, Slot::B] {
            let request = point("pbxha_office", slot, 1, None);
            // The third message of the batch is the map of the first table, in the form in which the kernel tells it.
            let objects: Vec<_> = answers(&request.bytes)
                .filter_map(|(_, answer)| match answer {
                    Answer::Object(object) => pointer_of(object),
                    _ => None,
                })
                .collect();
            assert_eq!(objects, [slot, slot]);
        }
        assert_eq!(pointer_of(&[]), None);
    }

    #[test]
    fn an_error_is_told_with_its_number() {
        let mut message = vec![36, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&(-2i32).to_ne_bytes());
        message.resize(36, 0);
        let found: Vec<_> = answers(&message).collect();
        assert_eq!(found, [(9, Answer::Result(-2))]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_end_the_reading_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, answer) in answers(&bytes) {
                if let Answer::Object(object) = answer {
                    pointer_of(object);
                    generation_of(object);
                }
            }
        }
    }
}
