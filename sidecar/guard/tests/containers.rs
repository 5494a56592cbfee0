//! The modes around Asterisk: `sidecar`, `install`, `seed`, and the command line.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pbx_guard::boot_now_ns;
use rustix::process::{Pid, Signal};
use support::{LIMIT, MS, alone, died_at_ns, kill};

/// A guard in sidecar mode; killed with its child when the test ends.
struct Keeper(Child);

impl Keeper {
    fn start(command: &[&str]) -> Self {
        let guard = guard()
            .args(["sidecar", "--"])
            .args(command)
            .spawn()
            .unwrap();
        Self(guard)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn exit_code(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the guard does not exit");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn guard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pbx-guard"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits until the file has this many lines and returns them.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(
            begin.elapsed() < LIMIT,
            "expected {count} lines, have {text:?}"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_killed_sidecar_runs_again_within_50_ms() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("echo $$ >> {}; exec sleep 60", pids.display());
    let _keeper = Keeper::start(&["sh", "-c", &script]);
    let mut all_ms: Vec<u64> = Vec::new();
    for starts in 1..=5 {
        let pid: i32 = lines(&pids, starts)[starts - 1].parse().unwrap();
        let killed_at = boot_now_ns();
        kill(Pid::from_raw(pid).unwrap(), Signal::KILL);
        lines(&pids, starts + 1);
        all_ms.push((boot_now_ns() - killed_at) / MS);
    }
    // A busy machine may hold up one of them.
    all_ms.sort_unstable();
    assert!(all_ms[2] < 50 && all_ms[4] < 1000, "{all_ms:?} ms");
}

#[test]
fn a_sidecar_that_refuses_its_configuration_is_not_restarted() {
    let _alone = alone();
    let mut keeper = Keeper::start(&["sh", "-c", "exit 2"]);
    assert_eq!(keeper.exit_code(), Some(2));
    let mut keeper = Keeper::start(&["/nowhere/pbx-sidecar"]);
    assert_eq!(keeper.exit_code(), Some(2));
}

#[test]
fn sigterm_is_forwarded_and_the_status_returned() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let started = directory.path().join("started");
    let script = format!(
        "trap 'exit 5' TERM; echo up > {}; while :; do sleep 0.01; done",
        started.display()
    );
    let mut keeper = Keeper::start(&["sh", "-c", &script]);
    lines(&started, 1);
    kill(keeper.pid(), Signal::TERM);
    assert_eq!(keeper.exit_code(), Some(5));
}

#[test]
fn a_sidecar_killed_by_the_forwarded_signal_is_reported_as_by_a_shell() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let started = directory.path().join("started");
    let script = format!("echo up > {}; exec sleep 60", started.display());
    let mut keeper = Keeper::start(&["sh", "-c", &script]);
    lines(&started, 1);
    kill(keeper.pid(), Signal::TERM);
    assert_eq!(keeper.exit_code(), Some(143));
}

#[test]
fn the_sidecar_dies_with_its_guard() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("echo $$ > {}; exec sleep 60", pids.display());
    let keeper = Keeper::start(&["sh", "-c", &script]);
    let pid = Pid::from_raw(lines(&pids, 1)[0].parse().unwrap()).unwrap();
    drop(keeper);
    assert!(died_at_ns(pid, LIMIT).is_some());
}

#[test]
fn install_replaces_an_older_binary() {
    let directory = tempfile::tempdir().unwrap();
    let installed = directory.path().join("pbx-guard");
    fs::write(&installed, "older").unwrap();
    assert!(
        guard()
            .arg("install")
            .arg(directory.path())
            .status()
            .unwrap()
            .success()
    );
    let binary = fs::read(env!("CARGO_BIN_EXE_pbx-guard")).unwrap();
    assert!(fs::read(&installed).unwrap() == binary);
    assert_eq!(
        fs::metadata(&installed).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn install_into_a_missing_directory_fails() {
    let status = guard()
        .args(["install", "/nowhere/at/all"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn seed_copies_a_tree_once() {
    let directory = tempfile::tempdir().unwrap();
    let (source, volume) = (
        directory.path().join("image"),
        directory.path().join("volume"),
    );
    fs::create_dir_all(source.join("sounds/en")).unwrap();
    fs::write(source.join("sounds/en/hello.gsm"), "hello").unwrap();
    fs::write(source.join("script"), "#!").unwrap();
    fs::set_permissions(source.join("script"), Permissions::from_mode(0o750)).unwrap();
    symlink("sounds/en", source.join("link")).unwrap();
    fs::set_permissions(source.join("sounds"), Permissions::from_mode(0o555)).unwrap();
    // What a fresh file system has does not count as content.
    fs::create_dir_all(volume.join("lost+found")).unwrap();

    assert_eq!(seed(&source, &volume), Some(0));
    assert_eq!(
        fs::read_to_string(volume.join("sounds/en/hello.gsm")).unwrap(),
        "hello"
    );
    assert_eq!(
        fs::read_link(volume.join("link")).unwrap(),
        Path::new("sounds/en")
    );
    let mode = |name: &str| {
        fs::metadata(volume.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!((mode("script"), mode("sounds")), (0o750, 0o555));

    fs::write(volume.join("script"), "changed by the user").unwrap();
    assert_eq!(seed(&source, &volume), Some(0));
    assert_eq!(
        fs::read_to_string(volume.join("script")).unwrap(),
        "changed by the user"
    );
}

#[test]
fn a_seeding_that_was_cut_off_is_done_again() {
    let directory = tempfile::tempdir().unwrap();
    let (source, volume) = (
        directory.path().join("image"),
        directory.path().join("volume"),
    );
    fs::create_dir_all(source.join("sounds")).unwrap();
    fs::write(source.join("sounds/a"), "whole").unwrap();
    fs::create_dir_all(volume.join("sounds")).unwrap();
    fs::write(volume.join("sounds/a"), "ha").unwrap();
    fs::write(volume.join(".pbx-guard-seeding"), "").unwrap();
    assert_eq!(seed(&source, &volume), Some(0));
    assert_eq!(
        fs::read_to_string(volume.join("sounds/a")).unwrap(),
        "whole"
    );
    assert!(!volume.join(".pbx-guard-seeding").exists());
}

#[test]
fn what_cannot_be_copied_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let (source, volume) = (
        directory.path().join("image"),
        directory.path().join("volume"),
    );
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "read").unwrap();
    // A socket stands for what is unreadable: root reads every file.
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    assert_eq!(seed(&source, &volume), Some(0));
    assert!(volume.join("file").exists() && !volume.join("socket").exists());
}

#[test]
fn a_missing_source_leaves_an_empty_volume() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    assert_eq!(seed(Path::new("/nowhere/at/all"), &volume), Some(0));
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
}

fn seed(source: &Path, volume: &Path) -> Option<i32> {
    guard()
        .arg("seed")
        .args([source, volume])
        .status()
        .unwrap()
        .code()
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&[][..], &["pbx"], &["sidecar", "--"], &["seed", "/a"]] {
        assert_eq!(
            guard().args(arguments).status().unwrap().code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_leash_without_a_guard_ends() {
    let status = guard()
        .args(["leash", "--", "sleep", "60"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
