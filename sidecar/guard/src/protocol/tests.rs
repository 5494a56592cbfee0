//! Tests of the codec: round trips, frames in pieces, and hostile bytes.

use super::*;

const RUN: RunId = RunId(u64::MAX - 1);

fn commands() -> Vec<Command> {
    vec![
        Command::Hello,
        Command::Start { deadline_ns: None },
        Command::Start {
            deadline_ns: Some(7),
        },
        Command::Arm {
            run: RUN,
            deadline_ns: u64::MAX,
        },
        Command::Stop { run: RUN },
        Command::Exit,
        Command::Extend {
            run: RUN,
            deadline_ns: 7,
        },
    ]
}

fn events() -> Vec<Event> {
    let state = |run, terminating| Event::State {
        run,
        pid: u32::MAX,
        deadline_ns: 5,
        terminating,
        boot_now_ns: 6,
    };
    let exited = |status, asked| Event::Exited {
        run: RUN,
        status,
        at_ns: 9,
        asked,
    };
    let refused = |reason| Event::StartRefused { reason };
    vec![
        state(None, true),
        state(Some(RUN), false),
        Event::Started { run: RUN, pid: 3 },
        refused(StartRefusal::AlreadyRunning),
        refused(StartRefusal::DeadlinePassed),
        refused(StartRefusal::SpawnFailed),
        Event::Armed {
            run: RUN,
            deadline_ns: 1,
        },
        Event::ArmRefused {
            run: RUN,
            deadline_ns: 2,
        },
        exited(ExitKind::Code(255), true),
        exited(ExitKind::Signal(9), false),
        exited(ExitKind::SpawnError(2), false),
        Event::Terminating {
            at_ns: 1,
            grace_ends_ns: u64::MAX,
        },
        Event::Doomed {
            run: RUN,
            at_ns: 4,
            asked: true,
        },
    ]
}

fn command_bytes(command: Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes
}

fn event_bytes(event: Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    bytes
}

#[test]
fn every_command_survives_the_round_trip() {
    for command in commands() {
        let bytes = command_bytes(command);
        assert_eq!(Command::decode(&bytes), Ok(Some((command, bytes.len()))));
    }
}

#[test]
fn every_event_survives_the_round_trip() {
    for event in events() {
        let bytes = event_bytes(event);
        assert_eq!(Event::decode(&bytes), Ok(Some((event, bytes.len()))));
        assert!(bytes.len() <= MAX_FRAME_SIZE);
    }
}

#[test]
fn a_stream_is_read_frame_by_frame() {
    let mut stream = Vec::new();
    for command in commands() {
        command.encode(&mut stream);
    }
    let mut seen = Vec::new();
    let mut rest = stream.as_slice();
    while let Some((command, size)) = Command::decode(rest).unwrap() {
        seen.push(command);
        rest = &rest[size..];
    }
    assert_eq!(seen, commands());
    assert!(rest.is_empty());
}

#[test]
fn an_incomplete_frame_asks_for_more() {
    for event in events() {
        let bytes = event_bytes(event);
        for cut in 0..bytes.len() {
            assert_eq!(
                Event::decode(&bytes[..cut]),
                Ok(None),
                "{event:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn a_frame_with_a_field_missing_or_too_many_is_refused() {
    for event in events() {
        let mut bytes = event_bytes(event);
        let tag = bytes[3];
        bytes.push(0);
        bytes[0] += 1;
        assert_eq!(Event::decode(&bytes), Err(ProtocolError::WrongSize { tag }));
        bytes.truncate(bytes.len() - 2);
        bytes[0] -= 2;
        assert_eq!(Event::decode(&bytes), Err(ProtocolError::WrongSize { tag }));
    }
}

#[test]
fn lengths_out_of_bounds_are_refused_before_the_frame_is_there() {
    for length in [0_u16, 1, 127, u16::MAX] {
        let error = ProtocolError::BadLength {
            length: usize::from(length),
        };
        assert_eq!(Command::decode(&length.to_le_bytes()), Err(error));
    }
}

#[test]
fn another_version_is_refused() {
    let mut bytes = command_bytes(Command::Hello);
    bytes[2] = 2;
    assert_eq!(
        Command::decode(&bytes),
        Err(ProtocolError::UnknownVersion { version: 2 })
    );
}

#[test]
fn commands_and_events_are_not_taken_for_each_other() {
    for event in events() {
        let tag = event_bytes(event)[3];
        assert_eq!(
            Command::decode(&event_bytes(event)),
            Err(ProtocolError::UnknownTag { tag })
        );
    }
    assert!(Event::decode(&command_bytes(Command::Exit)).is_err());
}

#[test]
fn flags_other_than_yes_and_no_are_refused() {
    let mut bytes = command_bytes(Command::Start {
        deadline_ns: Some(1),
    });
    bytes[4] = 2;
    assert_eq!(
        Command::decode(&bytes),
        Err(ProtocolError::UnknownValue { tag: 2, value: 2 })
    );
}

#[test]
fn hostile_bytes_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = [0_u8; 96];
    for _ in 0..200_000 {
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 56) as u8;
        }
        // Most of them get past the header, so that the fields are reached too.
        let header = [bytes[0] % 64, 0, VERSION, bytes[3] % 80];
        bytes[..4].copy_from_slice(&header);
        for message in [&bytes[..], &bytes[..40]] {
            if let Ok(Some((_, size))) = Command::decode(message) {
                assert!(size <= message.len());
            }
            if let Ok(Some((_, size))) = Event::decode(message) {
                assert!(size <= message.len());
            }
        }
    }
}
