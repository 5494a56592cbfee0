//! A command of the user's: bounded in time and in what it may say, and ended with all that it started.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::super::score::{Reading, Verdict};
use super::super::watch::Patient;

/// What is kept of what a command says; the rest is read and thrown away.
const KEPT_BYTES: usize = 4096;
const SHOWN_CHARACTERS: usize = 200;
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    /// It could not be started.
    NotStarted(std::io::Error),
    /// It did not end in time, and was killed with all that it started.
    TimedOut,
    /// It ended; `None`: by a signal.
    Ended {
        /// Exit code.
        code: Option<i32>,
        /// The beginning of what it said.
        said: String,
    },
}

/// Runs a sensor's command: exit code 0 is well, 1 a warning, others critical.
pub(super) async fn read(command: &[String], limit: Duration) -> Reading {
    match run_bounded(command, &[], b"", limit).await {
        Outcome::NotStarted(error) => {
            let program = command.first().map_or("", String::as_str);
            let text = format!("{program} cannot be started: {error}");
            Reading::new(Verdict::Critical, text)
        }
        Outcome::TimedOut => {
            let text = format!("killed: it did not end within {limit:?}");
            Reading::new(Verdict::Critical, text)
        }
        Outcome::Ended { code, said } => judge(code, &said),
    }
}

/// Runs `command` in a process group of its own with `input` on its standard input, and kills the group at the end of `limit`.
pub async fn run_bounded(
    command: &[String],
    environment: &[(&str, &str)],
    input: &[u8],
    limit: Duration,
) -> Outcome {
    let [program, arguments @ ..] = command else {
        return Outcome::NotStarted(std::io::ErrorKind::InvalidInput.into());
    };
    let started = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Outcome::NotStarted(error),
    };
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let ended = Patient::wait(limit, follow(&mut child, input)).await;
    // What it started may live on, and hold its output open: the group goes in any case.
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let Some((code, said)) = ended else {
        // Killed just now; without this it would stay a zombie.
        let _ = child.wait().await;
        return Outcome::TimedOut;
    };
    Outcome::Ended { code, said }
}

async fn follow(child: &mut Child, input: &[u8]) -> (Option<i32>, String) {
    let output = child.stdout.take();
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not want to be told is no error.
        let _ = stdin.write_all(input).await;
    }
    let mut said = Vec::new();
    let status = {
        let reading = async {
            match output {
                Some(output) => drain(output, &mut said).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(reading);
        tokio::select! {
            () = &mut reading => child.wait().await,
            status = child.wait() => {
                // What it said last; a process that it left behind may keep the pipe open.
                let _ = tokio::time::timeout(LAST_WORDS, &mut reading).await;
                status
            }
        }
    };
    let code = status.ok().and_then(|status| status.code());
    (code, String::from_utf8_lossy(&said).into_owned())
}

async fn drain(mut output: impl AsyncRead + Unpin, said: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        let room = KEPT_BYTES - said.len();
        said.extend_from_slice(&buffer[..length.min(room)]);
    }
}

fn judge(code: Option<i32>, said: &str) -> Reading {
    let line = said.lines().next().unwrap_or_default();
    let verdict = match code {
        Some(0) => Verdict::Good,
        Some(1) => Verdict::Warning,
        _ => Verdict::Critical,
    };
    let text = line.split('|').next().unwrap_or_default().trim();
    let text: String = text.chars().take(SHOWN_CHARACTERS).collect();
    let code = code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
    Reading {
        verdict,
        text: format!("{code}: {text}"),
        value: value(line),
    }
}

/// Nagios: `text | label=12.5MB;…`.
fn value(line: &str) -> Option<f64> {
    let (_, data) = line.split_once('|')?;
    let (_, figure) = data.split_once('=')?;
    let is_part = |char: char| char.is_ascii_digit() || matches!(char, '.' | '-');
    let end = figure.find(|char| !is_part(char)).unwrap_or(figure.len());
    figure[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).into()
    }

    async fn reading(script: &str) -> Reading {
        read(&shell(script), Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn exit_code_and_value_are_nagios() {
        let well = reading("echo 'DISK OK | free=12.5MB;1;2'").await;
        assert_eq!((well.verdict, well.value), (Verdict::Good, Some(12.5)));
        assert_eq!(well.text, "exit code 0: DISK OK");
        assert_eq!(reading("exit 1").await.verdict, Verdict::Warning);
        assert_eq!(reading("exit 2").await.verdict, Verdict::Critical);
        assert_eq!(reading("kill -9 $$").await.verdict, Verdict::Critical);
    }

    #[tokio::test]
    async fn one_that_never_ends_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 100 & echo $! > {}; wait", pid_file.display());
        let began = std::time::Instant::now();
        let slow = reading(&script).await;
        assert!(slow.text.starts_with("killed"), "{slow:?}");
        assert!(began.elapsed() < Duration::from_secs(3));
        let pid = std::fs::read_to_string(pid_file).unwrap();
        // Gone, or a zombie that waits for its new parent.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| !stat.contains(") Z"))
        };
        while lives() {
            assert!(began.elapsed() < Duration::from_secs(10), "it lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_flood_is_read_and_mostly_thrown_away() {
        let flood = run_bounded(
            &shell("head -c 3000000 /dev/zero"),
            &[],
            b"",
            Duration::from_secs(5),
        )
        .await;
        let Outcome::Ended { code, said } = flood else {
            panic!("{flood:?}");
        };
        assert_eq!((code, said.len()), (Some(0), KEPT_BYTES));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let reading = read(&["/no/such".to_owned()], Duration::from_secs(1)).await;
        assert!(reading.text.contains("/no/such"), "{reading:?}");
    }

    #[tokio::test]
    async fn input_and_environment_arrive() {
        let told = run_bounded(
            &shell("echo $WORD; cat"),
            &[("WORD", "hear")],
            b"this",
            Duration::from_secs(2),
        )
        .await;
        let Outcome::Ended { said, .. } = told else {
            panic!("{told:?}");
        };
        assert_eq!(said, "hear\nthis");
    }
}
