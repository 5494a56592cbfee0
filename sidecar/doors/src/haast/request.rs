//! Commands of HAAst's socket: lines of `key: value`, ended by an empty line. Bytes in, commands out.

use thiserror::Error;

use crate::job::{Action, Strategy};

/// The longest line, without its end.
pub const MAX_LINE_BYTES: usize = 1000;
/// The most lines of one command.
pub const MAX_LINES: usize = 32;
/// What a client can ask for, as `help` and every refusal list it.
pub const COMMANDS: [&str; 8] = [
    "demote",
    "getstatus",
    "help",
    "promote",
    "restart",
    "start",
    "stop",
    "switchover",
];

/// A command and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the client calls it, to be repeated in the answer.
    pub id: Option<String>,
    /// What proves that a client over the network may ask.
    pub token: Option<String>,
    /// What it asks for, or why that cannot be.
    pub command: Result<Command, Problem>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The state of the cluster, with this node as the remote one if it is named.
    GetStatus {
        /// Name of a node.
        peer: Option<String>,
    },
    /// The list of commands.
    Help,
    /// A change.
    Act(Action),
}

/// Why a request cannot be answered as it wishes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// No such command, or a line that is none.
    #[error("invalid command")]
    Unknown,
    /// A key that may come once came twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A value that is not among those there are.
    #[error("strategy {0} is unknown: immediate, drain or whenidle")]
    Strategy(String),
}

/// A client that does not keep to the format. It is told so and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Flood {
    /// A line without end.
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    Line,
    /// A command without end.
    #[error("a command has more than {MAX_LINES} lines")]
    Lines,
}

/// Cuts a stream into requests. Holds at most one command.
///
/// ```text
///          key: value                    empty line
///  Empty ─────────────► Gathering ─────────────────────► (a request) ──► Empty
///    │  └───────────────────┴── a line without colon ──► (a refusal) ──► Empty
///    └── empty line: nothing
/// ```
#[derive(Debug, Default)]
pub struct RequestReader {
    line: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl RequestReader {
    /// Takes one byte of the stream; returns a request that it completes.
    pub fn push(&mut self, byte: u8) -> Result<Option<Request>, Flood> {
        if byte != b'\n' {
            if self.line.len() == MAX_LINE_BYTES {
                return Err(Flood::Line);
            }
            self.line.push(byte);
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.on_line(text.trim())
    }

    fn on_line(&mut self, line: &str) -> Result<Option<Request>, Flood> {
        if line.is_empty() {
            let headers = std::mem::take(&mut self.headers);
            return Ok((!headers.is_empty()).then(|| Request::of(&headers)));
        }
        let Some((key, value)) = line.split_once(':') else {
            let headers = std::mem::take(&mut self.headers);
            let refused = Request {
                command: Err(Problem::Unknown),
                ..Request::of(&headers)
            };
            return Ok(Some(refused));
        };
        if self.headers.len() == MAX_LINES {
            return Err(Flood::Lines);
        }
        let key = key.trim().to_ascii_lowercase();
        self.headers.push((key, value.trim().to_owned()));
        Ok(None)
    }
}

impl Request {
    fn of(headers: &[(String, String)]) -> Self {
        Self {
            id: last(headers, "id"),
            token: last(headers, "token"),
            command: command_of(headers),
        }
    }
}

fn command_of(headers: &[(String, String)]) -> Result<Command, Problem> {
    for key in ["command", "to", "strategy", "peer"] {
        if headers.iter().filter(|(known, _)| known == key).count() > 1 {
            return Err(Problem::Twice(key));
        }
    }
    let name = last(headers, "command").unwrap_or_default();
    let action = match name.to_ascii_lowercase().as_str() {
        "getstatus" => {
            return Ok(Command::GetStatus {
                peer: last(headers, "peer"),
            });
        }
        "help" => return Ok(Command::Help),
        "promote" => Action::Promote,
        "demote" => Action::Demote,
        "switchover" => Action::Switchover {
            to: last(headers, "to"),
            strategy: last(headers, "strategy").map(strategy_of).transpose()?,
        },
        "start" => Action::StartAsterisk,
        "stop" => Action::StopAsterisk,
        "restart" => Action::RestartAsterisk,
        _ => return Err(Problem::Unknown),
    };
    Ok(Command::Act(action))
}

fn strategy_of(name: String) -> Result<Strategy, Problem> {
    match name.to_ascii_lowercase().as_str() {
        "immediate" => Ok(Strategy::Immediate),
        "drain" => Ok(Strategy::Drain),
        "whenidle" => Ok(Strategy::WhenIdle),
        _ => Err(Problem::Strategy(name)),
    }
}

fn last(headers: &[(String, String)], key: &str) -> Option<String> {
    let mut found = headers.iter().rev().filter(|(known, _)| known == key);
    found.next().map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::Strategy;

    fn read(stream: &str) -> Vec<Result<Request, Flood>> {
        let mut reader = RequestReader::default();
        let results = stream
            .bytes()
            .filter_map(|byte| reader.push(byte).transpose());
        results.collect()
    }

    fn only(stream: &str) -> Request {
        let mut requests = read(stream);
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0).unwrap()
    }

    #[test]
    fn the_published_request_is_read_with_and_without_a_space() {
        let expected = Request {
            id: Some("123".into()),
            token: None,
            command: Ok(Command::GetStatus { peer: None }),
        };
        assert_eq!(only("id: 123\ncommand:getstatus\n\n"), expected);
        assert_eq!(only("id:123\r\nCOMMAND:  GetStatus\r\n\r\n"), expected);
    }

    #[test]
    fn a_line_without_colon_is_refused_at_once_with_its_id() {
        let refused = only("id: 7\nYYYY\n\n\n");
        assert_eq!(refused.id.as_deref(), Some("7"));
        assert_eq!(refused.command, Err(Problem::Unknown));
    }

    #[test]
    fn headers_without_a_command_are_refused() {
        assert_eq!(only("id: 7\n\n").command, Err(Problem::Unknown));
    }

    #[test]
    fn a_switchover_names_its_heir_and_strategy() {
        let request = only("command: switchover\nto: office-1\nstrategy: Drain\ntoken: s\n\n");
        assert_eq!(request.token.as_deref(), Some("s"));
        let action = Action::Switchover {
            to: Some("office-1".into()),
            strategy: Some(Strategy::Drain),
        };
        assert_eq!(request.command, Ok(Command::Act(action)));
        let wrong = only("command: switchover\nstrategy: soon\n\n").command;
        assert_eq!(wrong, Err(Problem::Strategy("soon".into())));
        let twice = only("command: stop\ncommand: start\n\n").command;
        assert_eq!(twice, Err(Problem::Twice("command")));
    }

    #[test]
    fn every_listed_command_is_known() {
        for name in COMMANDS {
            let request = only(&format!("command: {name}\n\n"));
            assert!(request.command.is_ok(), "{name}");
        }
    }

    #[test]
    fn floods_end() {
        let line = "x".repeat(MAX_LINE_BYTES + 1);
        assert_eq!(read(&line), [Err(Flood::Line)]);
        let fits = format!("{}\n", "x".repeat(MAX_LINE_BYTES));
        assert_eq!(only(&fits).command, Err(Problem::Unknown));
        let lines = "a: b\n".repeat(MAX_LINES + 1);
        assert_eq!(read(&lines), [Err(Flood::Lines)]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            super::super::fuzz_one(&bytes);
        }

        #[test]
        fn ids_come_back_as_they_were(id in "[!-~]([ -~]{0,30}[!-~])?") {
            let request = only(&format!("id: {id}\ncommand: help\n\n"));
            prop_assert_eq!(request.id, Some(id));
        }
    }
}
