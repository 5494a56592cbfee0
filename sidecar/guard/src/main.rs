//! The guard's binary: reads the command line, runs the mode, turns its outcome into an exit code
//! (0: done, 1: failed, 2: wrong command line; `sidecar`: the sidecar's own).

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use pbx_guard::arguments::{self, Mode, USAGE};
use pbx_guard::log::{Level, log, log_error};
use pbx_guard::seed::{self, Seed, SeedError};
use pbx_guard::{install, leash, pbx, sidecar};

/// The exit code of a wrong command line.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments::parse(&arguments) {
        Ok(mode) => run(mode),
        Err(error) => {
            // Standard error may be closed; the exit code still says it.
            let text = format!("pbx-guard: {error}\n{USAGE}\n");
            let _ = rustix::io::write(std::io::stderr(), text.as_bytes());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(mode: Mode) -> ExitCode {
    match mode {
        Mode::Pbx(options) => exit_code(pbx::run(options), pbx::PbxError::reason),
        Mode::Leash(command) => exit_code(leash::run(&command), leash::LeashError::reason),
        Mode::Sidecar(command) => match sidecar::run(&command) {
            Ok(code) => code,
            Err(error) => exit_code(Err(error), sidecar::SidecarError::reason),
        },
        Mode::Install(directory) => {
            exit_code(install::run(&directory), install::InstallError::reason)
        }
        Mode::Seed(seeds) => exit_code(seeds.iter().try_for_each(fill), SeedError::reason),
    }
}

fn fill(seed: &Seed) -> Result<(), SeedError> {
    let destination = seed.destination.display();
    match seed::run(seed)? {
        Some(seeded) => {
            log(
                Level::Info,
                "volume seeded",
                &[
                    ("destination", &destination),
                    ("copied", &seeded.copied),
                    ("left_out", &seeded.left_out),
                ],
            );
        }
        None => log(
            Level::Info,
            "volume has content",
            &[("destination", &destination)],
        ),
    }
    Ok(())
}

fn exit_code<E: Error>(outcome: Result<(), E>, reason: fn(&E) -> &'static str) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log_error(Level::Error, "failed", reason(&error), &error);
            ExitCode::FAILURE
        }
    }
}
