//! A real Asterisk and the AMI hub in front of it, in a network namespace of their own: for the benchmark and the tests of the hub.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::asterisk_chroot;
use crate::certificate::self_signed;
use crate::cluster::{Process, wait_until};
use crate::images::{Profile, build_ami_hub};
use crate::netns::{Lan, processes_in, run_in};
use crate::progress::output_of;

pub mod abuse;
pub mod client;
pub mod crash;
pub mod fanout;
pub mod others;
pub mod ping;

/// Asterisk's own manager.
pub const DIRECT: Door = Door {
    address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5038),
    user: "hub",
};
/// The hub.
pub const HUB: Door = Door {
    address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5039),
    user: "desk",
};
/// The hub over TLS.
pub const TLS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5040);
/// The hub's transactions.
pub const HTTP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8099);
/// Of every user.
pub const SECRET: &str = "s3cret";
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 68, 0);
/// With all modules, on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_mins(2);
/// Asterisk's files of the stand: dialplan, queues, a conference, voicemail and so on.
const CONFIG: [(&str, &str); 7] = [
    ("manager.conf", include_str!("../assets/ami/manager.conf")),
    (
        "extensions.conf",
        include_str!("../assets/ami/extensions.conf"),
    ),
    ("queues.conf", include_str!("../assets/ami/queues.conf")),
    ("iax.conf", include_str!("../assets/ami/iax.conf")),
    (
        "voicemail.conf",
        include_str!("../assets/ami/voicemail.conf"),
    ),
    (
        "confbridge.conf",
        include_str!("../assets/ami/confbridge.conf"),
    ),
    (
        "musiconhold.conf",
        include_str!("../assets/ami/musiconhold.conf"),
    ),
];
/// Ten seconds of silence in 16-bit samples: music enough to be on hold with.
const MUSIC_BYTES: usize = 10 * 8000 * 2;
const AGI: &str = include_str!("../assets/ami/client.agi");

/// A place where AMI is spoken.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// Where.
    pub address: SocketAddrV4,
    /// As whom.
    pub user: &'static str,
}

/// Asterisk and hub, gone when dropped.
#[derive(Debug)]
pub struct Stand {
    lan: Lan,
    folder: PathBuf,
    program: PathBuf,
    asterisk: Child,
    hub: Option<Child>,
}

impl Stand {
    /// Starts both, and waits until both are ready. `name` (at most 8 bytes) must be the caller's own.
    pub fn start(name: &str) -> Result<Self> {
        let program = build_ami_hub(Profile::Local)?;
        let rootfs = asterisk_chroot::rootfs()?;
        let lan = Lan::create(name, NETWORK, 1)?;
        let folder = std::env::temp_dir().join(format!("pbxha-{name}"));
        prepare(&folder, &rootfs)?;
        let asterisk = start_asterisk(&lan, &folder)?;
        let mut stand = Self {
            lan,
            folder,
            program,
            asterisk,
            hub: None,
        };
        stand.wait_ready(DIRECT, "asterisk")?;
        stand.start_hub()?;
        stand.wait_ready(HUB, "the hub")?;
        Ok(stand)
    }

    /// Runs something in the namespace of both.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(&self.lan.hosts()[0].path(), work)
    }

    /// A command that will run there.
    pub fn command(&self, program: &str) -> Command {
        self.lan.hosts()[0].command(program)
    }

    /// Starts the hub; returns at once.
    pub fn start_hub(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("hub.log"))
            .context("open the hub's log")?;
        let mut command = self.command(&self.program.to_string_lossy());
        command.arg(self.folder.join("hub.yaml"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.hub = Some(command.spawn().context("start the hub")?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill_hub(&mut self) -> Result<()> {
        let hub = self.hub.as_mut().context("the hub does not run")?;
        hub.kill().context("kill the hub")?;
        hub.wait().context("wait for the killed hub")?;
        self.hub = None;
        Ok(())
    }

    /// Waits until a Ping is answered there.
    pub fn wait_ready(&self, door: Door, name: &str) -> Result<()> {
        wait_until(name, BOOT_TIMEOUT, || {
            let answer = self.run(|| client::Client::connect(door)?.ask("Ping", &[]))?;
            Ok(answer.is_ok_and(|answer| answer.contains("Pong")))
        })
    }

    /// The hub's process.
    pub fn hub(&self) -> Result<u32> {
        Ok(self.hub.as_ref().context("the hub does not run")?.id())
    }

    /// Asterisk's process.
    pub fn asterisk(&self) -> u32 {
        self.asterisk.id()
    }

    /// Sends Asterisk a signal.
    pub fn signal_asterisk(&self, signal: Signal) -> Result<()> {
        let arguments = Vec::new();
        let pid = self.asterisk.id();
        Process { pid, arguments }.signal(signal)
    }

    /// The folder of action files.
    pub fn spool(&self) -> PathBuf {
        self.folder.join("spool")
    }

    /// The hub's unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("ami.sock")
    }

    /// Where Asterisk's root is.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The hub's log.
    pub fn hub_log(&self) -> String {
        fs::read_to_string(self.folder.join("hub.log")).unwrap_or_default()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(hub) = &mut self.hub {
            hub.kill().ok();
            hub.wait().ok();
        }
        self.asterisk.kill().ok();
        self.asterisk.wait().ok();
        for process in processes_in(&self.lan.hosts()[0].namespace).unwrap_or_default() {
            process.signal(Signal::KILL).ok();
        }
        unmount(&self.folder);
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn unmount(folder: &Path) {
    // Absent is as good.
    output_of(Command::new("umount").arg(folder.join("root"))).ok();
}

fn prepare(folder: &Path, rootfs: &Path) -> Result<()> {
    unmount(folder);
    fs::remove_dir_all(folder).ok();
    for part in ["root", "upper", "work", "spool"] {
        let path = folder.join(part);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.display(),
        folder.join("upper").display(),
        folder.join("work").display()
    );
    let mut overlay = Command::new("mount");
    overlay.args(["-t", "overlay", "overlay", "-o", &layers]);
    output_of(overlay.arg(folder.join("root")))?;
    let root = folder.join("root");
    for (name, text) in CONFIG {
        write(&root.join("etc/asterisk").join(name), text)?;
    }
    for part in [
        "run/asterisk",
        "var/log/asterisk",
        "usr/share/asterisk/agi-bin",
        "var/lib/asterisk/moh",
    ] {
        let path = root.join(part);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let music = root.join("var/lib/asterisk/moh/silence.sln");
    fs::write(&music, vec![0; MUSIC_BYTES])
        .with_context(|| format!("write {}", music.display()))?;
    let agi = root.join("usr/share/asterisk/agi-bin/client.agi");
    write(&agi, AGI)?;
    crate::tools::make_executable(&agi)?;
    write(&folder.join("secret"), SECRET)?;
    self_signed(folder, (*TLS.ip()).into())?;
    write(&folder.join("hub.yaml"), &hub_config(folder))
}

fn hub_config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "asterisk: {{address: '{}', user: {}, secretFile: {folder}/secret}}\n\
         http: {HTTP}\n\
         hub:\n\
         \x20 listen: ['{}']\n\
         \x20 tls: {{listen: ['{TLS}'], certificate: {folder}/certificate.pem, key: {folder}/key.pem}}\n\
         \x20 socket: {folder}/ami.sock\n\
         \x20 queueFile: {folder}/queue.redb\n\
         \x20 spool: {{dir: {folder}/spool}}\n\
         \x20 users:\n\
         \x20 - {{name: {}, secretFile: {folder}/secret, read: all, write: all}}\n\
         \x20 - {{name: weak, secretFile: {folder}/secret, read: call, write: 'call,originate'}}\n",
        DIRECT.address, DIRECT.user, HUB.address, HUB.user
    )
}

fn start_asterisk(lan: &Lan, folder: &Path) -> Result<Child> {
    let log = File::create(folder.join("asterisk.log")).context("create Asterisk's log")?;
    let errors = log.try_clone().context("share Asterisk's log")?;
    let mut command = lan.hosts()[0].command("chroot");
    command
        .arg(folder.join("root"))
        .args(["asterisk", "-f", "-C", "/etc/asterisk/asterisk.conf"])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    command.spawn().context("start Asterisk")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
