//! Slow steps, shown while they run: a spinner with the time and the last line of output on a
//! terminal, plain lines elsewhere. A step that fails says so with the end of its log.
//! Leaves out what the steps do.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a running command is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Without a terminal, a long step gives a sign of life this often.
const PLAIN_INTERVAL: Duration = Duration::from_mins(1);
/// How much of a log's end is read for the last line and for the tail of a failure.
const TAIL_BYTES: u64 = 8192;
const TAIL_LINES: usize = 15;

static SPINNERS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// One slow step, announced when begun and closed by [`Step::done`]; dropped without it, it is
/// shown as failed.
pub struct Step {
    title: String,
    started_at: Instant,
    spinner: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Announces a step. `usually` says how long it takes as a rule, such as "6 to 11 minutes".
    pub fn begin(title: impl Into<String>, usually: &str) -> Self {
        let title = title.into();
        let spinner = std::io::stderr()
            .is_terminal()
            .then(|| spinner(&title, usually));
        if spinner.is_none() {
            eprintln!("==> {title} (usually {usually})");
        }
        Self {
            title,
            started_at: Instant::now(),
            spinner,
            finished: false,
        }
    }

    /// Runs `command` to its end, its output appended to `log`.
    ///
    /// Fails with the tail of the log and its path when the command does not exit with 0.
    pub fn run(&self, command: &mut Command, log: &Path) -> Result<()> {
        let status = self.wait(command, log)?;
        if !status.success() {
            bail!(
                "{}: `{}` ended with {status}; the end of {}:\n{}",
                self.title,
                command.get_program().to_string_lossy(),
                log.display(),
                tail(log, TAIL_LINES)
            );
        }
        Ok(())
    }

    /// Closes the step as done.
    pub fn done(mut self) {
        self.close("ok");
    }

    fn wait(&self, command: &mut Command, log: &Path) -> Result<ExitStatus> {
        let output = open_log(log)?;
        let errors = output
            .try_clone()
            .context("share the log between stdout and stderr")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        let mut last_sign_at = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("wait for a child process")? {
                return Ok(status);
            }
            self.show_life(log, &mut last_sign_at);
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn show_life(&self, log: &Path, last_sign_at: &mut Instant) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(tail(log, 1));
        } else if last_sign_at.elapsed() >= PLAIN_INTERVAL {
            *last_sign_at = Instant::now();
            let seconds = self.started_at.elapsed().as_secs();
            eprintln!(
                "    {} still runs after {seconds} s: {}",
                self.title,
                tail(log, 1)
            );
        }
    }

    fn close(&mut self, outcome: &str) {
        self.finished = true;
        let seconds = self.started_at.elapsed().as_secs_f64();
        let line = format!(" {outcome:>2} {} ({seconds:.1} s)", self.title);
        match self.spinner.take() {
            Some(spinner) => {
                spinner.finish_and_clear();
                // A terminal that refuses a line is no reason to fail the step.
                let _ = SPINNERS.println(line);
            }
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.close("FAILED");
        }
    }
}

/// Runs a short command to its end and returns its stdout; fails with its stderr.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `lines` lines of a log, as far as its last 8 KiB hold them; empty if unreadable.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = read_end(log).unwrap_or_default();
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn read_end(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open the log {}", log.display()))
}

fn spinner(title: &str, usually: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
        .expect("the template is valid");
    let spinner = SPINNERS.add(ProgressBar::new_spinner().with_style(style));
    spinner.set_prefix(format!("{title} (usually {usually})"));
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("pbxha-progress-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn failed_step_names_its_log_and_shows_its_end() {
        let log = log("failed");
        let step = Step::begin("a step", "1 s");
        let error = step
            .run(
                Command::new("sh").args(["-c", "echo first; echo the reason >&2; exit 3"]),
                &log,
            )
            .unwrap_err()
            .to_string();
        assert!(error.contains("the reason"), "{error}");
        assert!(error.contains(&log.display().to_string()), "{error}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn tail_keeps_the_last_lines_that_say_something() {
        let log = log("tail");
        fs::write(&log, "one\ntwo\n\nthree\n\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
        assert_eq!(tail(&log, 9), "one\ntwo\nthree");
        fs::remove_file(log).unwrap();
    }
}
