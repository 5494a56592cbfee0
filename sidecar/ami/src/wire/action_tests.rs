//! Actions, good and bad, in any pieces.

use proptest::prelude::*;

use super::*;

/// Each action, or what is wrong with it and its identifier.
fn read(pieces: &[&[u8]]) -> Vec<Result<String, (Fault, String)>> {
    let mut reader = ActionReader::default();
    let mut found = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while reader.fetch() {
            let id = String::from_utf8_lossy(reader.front_id()).into_owned();
            let front = reader.front().unwrap();
            found.push(
                front
                    .map(|frame| String::from_utf8_lossy(frame.bytes).into_owned())
                    .map_err(|fault| (fault.clone(), id)),
            );
            reader.pop();
        }
        assert!(reader.held() <= FRAME_LIMIT_BYTES + piece.len());
    }
    found
}

fn fault(bytes: &[u8]) -> (Fault, String) {
    let next = b"Action: Ping\r\n\r\n";
    let mut found = read(&[bytes, next]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found.pop().unwrap(), Ok("Action: Ping\r\n\r\n".into()));
    found.pop().unwrap().unwrap_err()
}

#[test]
fn an_action_is_read_with_either_line_end_and_its_values_as_asterisk_reads_them() {
    let mut reader = ActionReader::default();
    reader
        .push(b"\r\naction:  Originate\nACTIONID: 7\r\nAsync: Yes\r\nChannel:\r\nChannel: x\r\n\n");
    assert!(reader.fetch());
    let frame = reader.front().unwrap().unwrap();
    assert_eq!(
        (frame.action, frame.action_id),
        (&b"Originate"[..], &b"7"[..])
    );
    assert_eq!(frame.get("channel"), Some(&b"x"[..]));
    assert!(frame.is_true("Async") && !frame.is_true("Channel"));
}

#[test]
fn each_fault_is_named_and_the_next_action_is_read() {
    let id = "ActionID: 9\r\n";
    let is = |body: &str, expected: Fault| {
        let bytes = format!("{id}{body}\r\n\r\n");
        assert_eq!(fault(bytes.as_bytes()), (expected, "9".into()));
    };
    let long = format!("Action: Ping\r\nX: {}", "x".repeat(1_000_000));
    is(&long, Fault::LineTooLong { line: 3 });
    let just_too_long = format!("Action: Ping\r\nX: {}", "x".repeat(998));
    is(&just_too_long, Fault::LineTooLong { line: 3 });
    is(&["A: b"; 127].join("\r\n"), Fault::TooManyHeaders);
    is(
        "Action: Ping\rAction: Logoff",
        Fault::ControlCharacter { line: 2 },
    );
    is("Action: Ping\r\nhalf a line", Fault::NoColon { line: 3 });
    is(
        "Action: Ping\r\naction: Logoff",
        Fault::Repeated { line: 3 },
    );
    is("Channel: x", Fault::NoAction);
}

#[test]
fn the_longest_allowed_action_is_taken() {
    let line = format!("X: {}\r\n", "x".repeat(LINE_LIMIT_BYTES - 3));
    let action = format!("Action: Ping\r\n{}\r\n", line.repeat(HEADERS_LIMIT - 1));
    assert_eq!(read(&[action.as_bytes()]), [Ok(action)]);
}

#[test]
fn a_bad_action_without_an_end_is_given_up_and_costs_no_memory() {
    let mut reader = ActionReader::default();
    let piece = vec![b'x'; 64 << 10];
    let mut pieces = 0;
    while !reader.fetch() {
        reader.push(&piece);
        pieces += 1;
        assert!(reader.held() <= piece.len() + LINE_LIMIT_BYTES + 2);
    }
    assert_eq!(reader.front(), Some(Err(&Fault::Endless)));
    assert!(pieces <= DISCARD_LIMIT_BYTES / piece.len() + 2);
}

#[test]
fn an_action_at_the_front_stays_there_while_more_arrives() {
    let mut reader = ActionReader::default();
    reader.push(b"Action: One\r\n\r\nAction: Two\r\n\r\n");
    assert!(reader.fetch());
    reader.pop();
    assert!(reader.fetch());
    reader.push(b"Action: Three\r\n\r\n");
    for name in ["Two", "Three"] {
        assert!(reader.fetch());
        assert_eq!(reader.front().unwrap().unwrap().action, name.as_bytes());
        reader.pop();
    }
}

#[test]
fn one_action_alone_is_parsed() {
    let frame = Frame::parse(b"Action: Ping\r\nActionID: 1\r\n\r\n").unwrap();
    assert_eq!((frame.action, frame.action_id), (&b"Ping"[..], &b"1"[..]));
    assert_eq!(
        Frame::parse(b"Ping\r\n\r\n"),
        Err(Fault::NoColon { line: 1 })
    );
}

proptest! {
    #[test]
    fn splitting_the_bytes_changes_nothing(bytes in "(Action: [a-z]{1,9}\r?\n|ActionID: [0-9]{0,3}\r?\n|[A-z: \r]{0,20}\n|\r\n){0,12}", at in any::<prop::sample::Index>()) {
        let (one, two) = bytes.as_bytes().split_at(at.index(bytes.len() + 1));
        prop_assert_eq!(read(&[one, two]), read(&[bytes.as_bytes()]));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        super::super::fuzz_one(&bytes);
    }
}
