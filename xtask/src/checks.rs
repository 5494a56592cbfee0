//! The steps of `cargo xtask ci` and `cargo xtask test`: each is run, timed and counted, a failed one explained, and the others run all
//! the same. Ends with a line as test runners print it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use pbx_tests::office::{chart, repository};
use pbx_tests::progress::{Step, output_of, tail};
use pbx_tests::tools::helm;

use crate::{generate, licences, tidy};

/// How much of a failed step's log is shown.
const TAIL_LINES: usize = 25;
/// How many failures are told with their reason, the first ones: later ones often follow from them.
const TOLD_PANICS: usize = 6;
/// Lines of a reason: where, what, the chain of its causes, and what the harness gathered as evidence.
const PANIC_LINES: usize = 40;
/// Compiled tests, images, a Kubernetes and its containers need about so much; with less, what fails is whatever comes last.
const WANTED_FREE_BYTES: u64 = 12 << 30;

/// What passed and what failed so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

/// Everything that needs neither root nor a cluster.
pub(crate) fn without_cluster(tally: &mut Tally) {
    warn_of_little_space();
    tally.check("Format", "2 s", || {
        output_of(cargo().args(["fmt", "--all", "--check"])).map(drop)
    });
    tally.check(
        "Tidy: files, functions, left-overs, purity",
        "1 s",
        tidy::check,
    );
    tally.check("Licences, bans, sources", "2 s", licences::check);
    tally.check("Generated files are fresh", "1 s", || generate::run(true));
    tally.cargo(
        "Clippy",
        "1 to 5 minutes",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            "pbx-tests/e2e",
            "--",
            "--deny",
            "warnings",
        ],
    );
    tally.cargo(
        "Unit tests",
        "2 to 8 minutes",
        &["test", "--workspace", "--no-fail-fast"],
    );
    tally.check("Helm: lint and template", "5 s", || {
        chart_is_sound().map(drop)
    });
}

/// Tests on the local cluster.
pub(crate) fn on_cluster(tally: &mut Tally) {
    tally.cargo(
        "End-to-end tests on a local Kubernetes",
        "10 to 20 minutes, 10 more the first time",
        &[
            "test",
            "--package",
            "pbx-tests",
            "--features",
            "e2e",
            "--test",
            "*",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ],
    );
}

impl Tally {
    /// Prints the closing line, and nothing may follow it.
    pub(crate) fn close(&self) -> ExitCode {
        println!("{} passed, {} failed", self.passed, self.failed);
        match self.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// One step that passes or fails as a whole.
    fn check(&mut self, title: &str, usually: &str, work: impl FnOnce() -> Result<()>) {
        let step = Step::begin(title, usually);
        match work() {
            Ok(()) => {
                step.done();
                self.passed += 1;
            }
            Err(error) => {
                drop(step);
                eprintln!("{title} failed: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// One run of cargo; the tests that it runs are counted one by one, and a run without tests as one.
    fn cargo(&mut self, title: &str, usually: &str, arguments: &[&str]) {
        let log = log_of(arguments);
        fs::remove_file(&log).ok();
        let step = Step::begin(title, usually);
        // A reason is read by people: the chain of causes says more than where in the harness it arose.
        let mut command = cargo();
        command.args(arguments).env("RUST_BACKTRACE", "0");
        let result = step.run(&mut command, &log);
        let counted = counts_in(&fs::read_to_string(&log).unwrap_or_default());
        self.passed += counted.passed;
        self.failed += counted.failed;
        if result.is_ok() {
            step.done();
            self.passed += usize::from(counted == Self::default());
        } else {
            drop(step);
            // What failed before any test ran, such as compiling, is a failure too.
            self.failed += usize::from(counted.failed == 0);
            explain(title, &log);
        }
    }
}

fn explain(title: &str, log: &std::path::Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    eprintln!("{title} failed; all of it is in {}", log.display());
    for line in text.lines().filter(|line| line.ends_with("... FAILED")) {
        eprintln!("  {line}");
    }
    for reason in panics_in(&text) {
        eprintln!("{reason}");
    }
    eprintln!("its end:\n{}", tail(log, TAIL_LINES));
    warn_of_little_space();
}

/// The first failures: where and why.
fn panics_in(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let is_panic = |line: &&str| line.starts_with("thread '") && line.contains("panicked at");
    let starts = (0..lines.len()).filter(|at| is_panic(&lines[*at]));
    let reason = |at: usize| {
        let is_next = |line: &&str| line.starts_with("test ") || is_panic(line);
        let own = lines[at + 1..].iter().copied();
        let told = own.take_while(|line| !is_next(line)).take(PANIC_LINES);
        let told: Vec<&str> = std::iter::once(lines[at]).chain(told).collect();
        told.join("\n")
    };
    starts.take(TOLD_PANICS).map(reason).collect()
}

fn warn_of_little_space() {
    let folder = repository();
    let Ok(found) = rustix::fs::statvfs(&folder) else {
        return;
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < WANTED_FREE_BYTES {
        eprintln!(
            "Only {} GiB are free in {}, and all tests need about {}: make room, or expect what comes last to fail.",
            free >> 30,
            folder.display(),
            WANTED_FREE_BYTES >> 30
        );
    }
}

/// Sums up the lines `test result: ok. 12 passed; 0 failed; ...`.
fn counts_in(log: &str) -> Tally {
    let mut tally = Tally::default();
    for line in log.lines().filter(|line| line.starts_with("test result: ")) {
        let mut counts = line.split(['.', ';']).filter_map(|part| {
            let (number, word) = part.trim().split_once(' ')?;
            Some((number.parse::<usize>().ok()?, word))
        });
        let mut of = |wanted: &str| {
            let found = counts.find(|(_, word)| *word == wanted);
            found.map_or(0, |(number, _)| number)
        };
        tally.passed += of("passed");
        tally.failed += of("failed");
    }
    tally
}

fn chart_is_sound() -> Result<String> {
    let (helm, chart) = (helm()?, chart()?);
    output_of(Command::new(&helm).args(["lint", "--strict", &chart])).context("helm lint")?;
    output_of(Command::new(&helm).args(["template", "pbx-ha", &chart])).context("helm template")
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    cargo
}

fn log_of(arguments: &[&str]) -> PathBuf {
    let name = arguments[..arguments.len().min(3)]
        .join("-")
        .replace("--", "");
    repository().join("target/test-logs").join(name + ".log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_summed() {
        let log = "running 2 tests\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
            test x ... FAILED\n\
            test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        let expected = Tally {
            passed: 15,
            failed: 2,
        };
        assert_eq!(counts_in(log), expected);
        assert_eq!(counts_in("nothing"), Tally::default());
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let log = "test x ... FAILED\n\
            thread 'x' (12) panicked at tests/x.rs:10:25:\n\
            the system can be made: install the chart\n\nCaused by:\n    no space left\n\n\
            thread 'y' (13) panicked at tests/y.rs:1:1:\nlate";
        let told = panics_in(log);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("thread 'x'"), "{}", told[0]);
        assert!(told[0].contains("no space left"), "{}", told[0]);
        assert!(panics_in("all is well").is_empty());
    }

    #[test]
    fn failed_step_is_counted_and_the_next_one_runs() {
        let mut tally = Tally::default();
        tally.check("one that fails", "0 s", || {
            Err(anyhow::anyhow!("on purpose"))
        });
        tally.check("one that passes", "0 s", || Ok(()));
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }
}
