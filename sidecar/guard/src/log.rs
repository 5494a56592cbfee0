//! The guard's log: one `key=value` line per event on standard error.
//!
//! PID 1 must not wait for a reader of its log, and must not die because nobody reads it: a line
//! that standard error cannot take at once is dropped. Hence neither `eprintln!` (it panics) nor
//! a logging library.

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What happened.
    Info,
    /// Something failed, and the guard goes on by itself.
    Warn,
    /// A human must act.
    Error,
}

/// Writes one line: a constant message and its fields.
pub fn log(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    let line = build_line(level, message, fields);
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut ready, Some(&now)) == Ok(1) {
        // Nowhere to report it: the line is lost.
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}

/// Writes one line about an error: its stable reason, and the error with its sources.
pub fn log_error(level: Level, message: &str, reason: &str, error: &dyn Error) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    log(level, message, &[("reason", &reason), ("error", &text)]);
}

fn build_line(level: Level, message: &str, fields: &[(&str, &dyn Display)]) -> String {
    let level = match level {
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    };
    let mut line = format!("level={level} target=pbx_guard message={message:?}");
    for (key, value) in fields {
        let value = value.to_string();
        let is_plain = value
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=');
        // Writing to a String cannot fail.
        let _ = if is_plain && !value.is_empty() {
            write!(line, " {key}={value}")
        } else {
            write!(line, " {key}={value:?}")
        };
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let line = build_line(
            Level::Warn,
            "lost",
            &[("error", &"a b\n\"c\""), ("pid", &7)],
        );
        let expected = "level=WARN target=pbx_guard message=\"lost\" \
                        error=\"a b\\n\\\"c\\\"\" pid=7\n";
        assert_eq!(line, expected);
    }
}
