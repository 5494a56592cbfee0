//! The command line: what each mode takes. Pure.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::pbx::PbxOptions;
use crate::seed::Seed;

/// Kubernetes' own default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// A day; more is a mistake.
const MAX_GRACE_SECONDS: u64 = 86_400;

/// How to call this program.
pub const USAGE: &str = "\
usage: pbx-guard pbx --socket PATH [--grace SECONDS] -- ASTERISK [ARGUMENT...]
       pbx-guard sidecar -- SIDECAR [ARGUMENT...]
       pbx-guard install DIRECTORY
       pbx-guard seed SOURCE DESTINATION [SOURCE DESTINATION...]";

/// What the program is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// PID 1 of the PBX container.
    Pbx(PbxOptions),
    /// The leash (started by the guard only, its socket on standard input).
    Leash(Vec<OsString>),
    /// PID 1 of the sidecar's container.
    Sidecar(Vec<OsString>),
    /// Copy this binary into a directory.
    Install(PathBuf),
    /// Fill empty volumes.
    Seed(Vec<Seed>),
}

/// What is wrong with the command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgumentsError {
    /// No mode, or an unknown one.
    #[error("the first argument must be pbx, sidecar, install or seed")]
    Mode,
    /// Nothing after `--`.
    #[error("mode {mode} needs `-- PROGRAM [ARGUMENT...]` at its end")]
    NoCommand {
        /// The mode.
        mode: &'static str,
    },
    /// An argument that the mode does not know.
    #[error("mode {mode} does not know the argument {argument:?}")]
    Unknown {
        /// The mode.
        mode: &'static str,
        /// The argument.
        argument: OsString,
    },
    /// An option without its value.
    #[error("{option} needs a value")]
    NoValue {
        /// The option.
        option: &'static str,
    },
    /// `pbx` without its socket.
    #[error("mode pbx needs --socket PATH")]
    NoSocket,
    /// A grace period that is none.
    #[error("--grace {value:?} is not a number of seconds from 1 to {MAX_GRACE_SECONDS}")]
    BadGrace {
        /// What was given.
        value: OsString,
    },
    /// `install` takes one directory.
    #[error("mode install needs exactly one directory")]
    InstallDirectory,
    /// `seed` takes pairs.
    #[error("mode seed needs pairs of a source and a destination")]
    SeedPairs,
}

/// Reads the arguments after the program's name.
pub fn parse(arguments: &[OsString]) -> Result<Mode, ArgumentsError> {
    let (mode, rest) = arguments.split_first().ok_or(ArgumentsError::Mode)?;
    match mode.to_str() {
        Some("pbx") => parse_pbx(rest).map(Mode::Pbx),
        Some("leash") => parse_command("leash", rest).map(Mode::Leash),
        Some("sidecar") => parse_command("sidecar", rest).map(Mode::Sidecar),
        Some("install") => match rest {
            [directory] => Ok(Mode::Install(directory.into())),
            _ => Err(ArgumentsError::InstallDirectory),
        },
        Some("seed") => parse_seed(rest).map(Mode::Seed),
        _ => Err(ArgumentsError::Mode),
    }
}

fn parse_pbx(arguments: &[OsString]) -> Result<PbxOptions, ArgumentsError> {
    let (options, command) = split_command("pbx", arguments)?;
    let (mut socket, mut grace) = (None, DEFAULT_GRACE);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.to_str() {
            Some("--socket") => {
                let path = options
                    .next()
                    .ok_or(ArgumentsError::NoValue { option: "--socket" })?;
                socket = Some(PathBuf::from(path));
            }
            Some("--grace") => {
                let value = options
                    .next()
                    .ok_or(ArgumentsError::NoValue { option: "--grace" })?;
                grace = parse_grace(value)?;
            }
            _ => {
                return Err(ArgumentsError::Unknown {
                    mode: "pbx",
                    argument: option.clone(),
                });
            }
        }
    }
    Ok(PbxOptions {
        socket: socket.ok_or(ArgumentsError::NoSocket)?,
        grace,
        command,
    })
}

fn parse_grace(value: &OsString) -> Result<Duration, ArgumentsError> {
    let seconds = value.to_str().and_then(|value| value.parse().ok());
    match seconds {
        Some(seconds @ 1..=MAX_GRACE_SECONDS) => Ok(Duration::from_secs(seconds)),
        _ => Err(ArgumentsError::BadGrace {
            value: value.clone(),
        }),
    }
}

fn parse_command(
    mode: &'static str,
    arguments: &[OsString],
) -> Result<Vec<OsString>, ArgumentsError> {
    match split_command(mode, arguments)? {
        ([], command) => Ok(command),
        ([argument, ..], _) => Err(ArgumentsError::Unknown {
            mode,
            argument: argument.clone(),
        }),
    }
}

/// Splits at the first `--`.
fn split_command<'a>(
    mode: &'static str,
    arguments: &'a [OsString],
) -> Result<(&'a [OsString], Vec<OsString>), ArgumentsError> {
    let no_command = ArgumentsError::NoCommand { mode };
    match arguments.iter().position(|argument| argument == "--") {
        Some(at) if at + 1 < arguments.len() => Ok((&arguments[..at], arguments[at + 1..].into())),
        _ => Err(no_command),
    }
}

fn parse_seed(arguments: &[OsString]) -> Result<Vec<Seed>, ArgumentsError> {
    let (pairs, rest) = arguments.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(ArgumentsError::SeedPairs);
    }
    let to_seed = |[source, destination]: &[OsString; 2]| Seed {
        source: source.into(),
        destination: destination.into(),
    };
    Ok(pairs.iter().map(to_seed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Mode, ArgumentsError> {
        parse(
            &line
                .split_whitespace()
                .map(OsString::from)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn pbx_takes_its_socket_its_grace_and_a_command_with_dashes() {
        let mode = parse_line("pbx --socket /run/g.sock --grace 45 -- asterisk -f -- -x").unwrap();
        assert_eq!(
            mode,
            Mode::Pbx(PbxOptions {
                socket: "/run/g.sock".into(),
                grace: Duration::from_secs(45),
                command: ["asterisk", "-f", "--", "-x"].map(OsString::from).into(),
            })
        );
    }

    #[test]
    fn the_grace_is_30_s_unless_said_otherwise() {
        let Ok(Mode::Pbx(options)) = parse_line("pbx --socket s -- a") else {
            panic!("a complete command line");
        };
        assert_eq!(options.grace, DEFAULT_GRACE);
    }

    #[test]
    fn the_other_modes_are_read() {
        let command = ["a", "-b"].map(OsString::from).to_vec();
        assert_eq!(
            parse_line("leash -- a -b"),
            Ok(Mode::Leash(command.clone()))
        );
        assert_eq!(parse_line("sidecar -- a -b"), Ok(Mode::Sidecar(command)));
        assert_eq!(
            parse_line("install /guard"),
            Ok(Mode::Install("/guard".into()))
        );
        let seed = |source: &str, destination: &str| Seed {
            source: source.into(),
            destination: destination.into(),
        };
        let seeds = vec![seed("/a", "/b"), seed("/c", "/d")];
        assert_eq!(parse_line("seed /a /b /c /d"), Ok(Mode::Seed(seeds)));
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, error) in [
            ("", ArgumentsError::Mode),
            ("serve", ArgumentsError::Mode),
            ("pbx --socket s", ArgumentsError::NoCommand { mode: "pbx" }),
            (
                "pbx --socket s --",
                ArgumentsError::NoCommand { mode: "pbx" },
            ),
            ("pbx -- a", ArgumentsError::NoSocket),
            (
                "pbx --socket -- a",
                ArgumentsError::NoValue { option: "--socket" },
            ),
            (
                "pbx --socket s --grace 0 -- a",
                ArgumentsError::BadGrace { value: "0".into() },
            ),
            (
                "pbx --socket s --grace 1m -- a",
                ArgumentsError::BadGrace { value: "1m".into() },
            ),
            (
                "pbx -v -- a",
                ArgumentsError::Unknown {
                    mode: "pbx",
                    argument: "-v".into(),
                },
            ),
            (
                "sidecar x -- a",
                ArgumentsError::Unknown {
                    mode: "sidecar",
                    argument: "x".into(),
                },
            ),
            ("install", ArgumentsError::InstallDirectory),
            ("seed", ArgumentsError::SeedPairs),
            ("seed /a /b /c", ArgumentsError::SeedPairs),
        ] {
            assert_eq!(parse_line(line), Err(error), "{line}");
        }
    }
}
