//! pbx-ha without Kubernetes: hosts on one switch (network namespaces), each with sidecar, guard and a real Asterisk of its own, run
//! from a YAML file as an administrator of bare machines would write it. Everything is gone when the value is dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pbx_crds::cluster::{FailoverSpec, TrunkPolicy};
use pbx_crds::names::{HEARTBEAT_PORT, HTTP_PORT};
use pbx_crds::report::{Report, ReportedRole};
use pbx_crds::sidecar_config::{
    AsteriskConfig, FenceConfig, HeartbeatConfig, NetworkConfig, PeerConfig, SidecarConfig,
    VipConfig,
};
use rustix::process::Signal;

use crate::asterisk_chroot;
use crate::cluster::{Process, wait_until};
use crate::http;
use crate::images::{Profile, build_programs};
use crate::netns::{HOST_LINK, Host, Lan};
use crate::progress::{output_of, tail};

const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 65, 0);
/// Where an Asterisk without a floating address listens.
const ANY: &str = "0.0.0.0";
/// The floating address of every set of hosts that has one.
pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 65, 200);
/// The same for IPv6.
pub const VIP6: &str = "fd00:65::200";
/// A standby's readiness reaches the active with its next beat, 100 ms later at most.
const TOLD_WITHIN: Duration = Duration::from_millis(300);
const KEY: [u8; 32] = [0x5a; 32];

/// What hosts to start.
#[derive(Clone, Debug)]
pub struct BareSettings {
    /// At most 8 bytes, and the test's own.
    pub name: String,
    /// How many hosts.
    pub hosts: u8,
    /// How many more namespaces on the same switch, for clients.
    pub clients: u8,
    /// Whether addresses float ([`VIP`] and [`VIP6`]); Asterisk is bound to them.
    pub has_vip: bool,
    /// Their timing.
    pub failover: FailoverSpec,
}

/// The hosts.
#[derive(Debug)]
pub struct BareHosts {
    settings: BareSettings,
    lan: Lan,
    folder: PathBuf,
    programs: PathBuf,
    rootfs: PathBuf,
    /// The guards of each host.
    children: Vec<Vec<Child>>,
}

impl BareHosts {
    /// Starts `count` hosts without a floating address; returns at once. `name` (at most 8 bytes) must be the test's own.
    pub fn start(name: &str, count: u8) -> Result<Self> {
        Self::start_with(BareSettings {
            name: name.into(),
            hosts: count,
            clients: 0,
            has_vip: false,
            failover: FailoverSpec::default(),
        })
    }

    /// Starts hosts; returns at once.
    pub fn start_with(settings: BareSettings) -> Result<Self> {
        let programs = build_programs(Profile::Local)?;
        let rootfs = asterisk_chroot::rootfs()?;
        let folder = std::env::temp_dir().join(format!("pbxha-{}", settings.name));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let lan = Lan::create(&settings.name, NETWORK, settings.hosts + settings.clients)?;
        let mut hosts = Self {
            settings,
            lan,
            folder,
            programs,
            rootfs,
            children: Vec::new(),
        };
        for index in 0..hosts.count() {
            hosts.children.push(Vec::new());
            hosts
                .prepare(index)
                .with_context(|| format!("prepare host {index}"))?;
            hosts
                .start_host(index)
                .with_context(|| format!("start host {index}"))?;
        }
        Ok(hosts)
    }

    /// How many hosts.
    pub fn count(&self) -> usize {
        usize::from(self.settings.hosts)
    }

    /// The switch that they are on, the clients behind the hosts.
    pub fn lan(&self) -> &Lan {
        &self.lan
    }

    /// What the sidecar of a host says, asked on the host itself.
    pub fn report(&self, index: usize) -> Result<Report> {
        let host = &self.lan.hosts()[index];
        let address = SocketAddrV4::new(host.address, HTTP_PORT);
        let body = http::get(&host.path(), address, "/status")?;
        serde_json::from_str(&body).context("read the report")
    }

    /// The hosts that say they are active.
    pub fn actives(&self) -> Vec<usize> {
        let is_active = |index: &usize| {
            self.report(*index)
                .is_ok_and(|report| report.role == ReportedRole::Active)
        };
        (0..self.count()).filter(is_active).collect()
    }

    /// Waits until one host is active and all others could take over, as the active knows too; returns the active one.
    pub fn wait_whole(&self, timeout: Duration) -> Result<usize> {
        let mut whole_since = None;
        wait_until("one active and ready standbys", timeout, || {
            let reports = (0..self.count()).filter_map(|index| self.report(index).ok());
            let ready = reports.filter(|report| report.ready).count();
            if self.actives().len() != 1 || ready + 1 < self.count() {
                whole_since = None;
                return Ok(false);
            }
            let since = *whole_since.get_or_insert_with(Instant::now);
            Ok(since.elapsed() >= TOLD_WITHIN)
        })
        .with_context(|| self.describe())?;
        Ok(self.actives()[0])
    }

    /// The Asterisk of a host.
    pub fn asterisk(&self, index: usize) -> Result<Process> {
        let found = self
            .processes(index)?
            .into_iter()
            .find(|process| process.program() == "asterisk");
        found.with_context(|| format!("no Asterisk runs on host {index}"))
    }

    /// Kills the Asterisk of a host.
    pub fn kill_asterisk(&self, index: usize) -> Result<()> {
        self.asterisk(index)?.signal(Signal::KILL)
    }

    /// The host's cable.
    pub fn host(&self, index: usize) -> &Host {
        &self.lan.hosts()[index]
    }

    /// Everything on the host dies at once, as when its power fails: the cable first. It can be started again.
    pub fn crash(&mut self, index: usize) -> Result<()> {
        self.host(index).cut()?;
        for process in self.processes(index)? {
            process.signal(Signal::KILL).ok();
        }
        self.reap(index)
    }

    /// Boots a crashed host: what it had on tmpfs is gone, and so are its addresses and rules.
    pub fn boot(&mut self, index: usize) -> Result<()> {
        let record = self.home(index).join("record");
        fs::remove_dir_all(&record).with_context(|| format!("empty {}", record.display()))?;
        fs::create_dir_all(&record).with_context(|| format!("create {}", record.display()))?;
        let host = self.host(index);
        output_of(host.command("nft").args(["flush", "ruleset"]))?;
        for ip in [VIP.to_string(), VIP6.to_owned()] {
            // Absent is as good.
            let prefix = if ip.contains(':') { 64 } else { 24 };
            output_of(host.command("ip").args([
                "addr",
                "del",
                &format!("{ip}/{prefix}"),
                "dev",
                HOST_LINK,
            ]))
            .ok();
        }
        host.heal()?;
        self.start_host(index)
    }

    /// All processes of the host: what a pause of the machine stops.
    pub fn all_processes(&self, index: usize) -> Result<Vec<Process>> {
        self.processes(index)
    }

    fn home(&self, index: usize) -> PathBuf {
        self.folder.join(index.to_string())
    }

    fn prepare(&self, index: usize) -> Result<()> {
        let home = self.home(index);
        for part in ["root", "upper", "work", "config", "record", "user"] {
            let path = home.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        mount_root(&home, &self.rootfs)?;
        write(&home.join("user/pjsip.conf"), self.pjsip().as_bytes())?;
        write(&home.join("key"), &KEY)?;
        let settings = serde_yaml::to_string(&self.settings(index, &home))
            .context("write the sidecar's file")?;
        write(&home.join("sidecar.yaml"), settings.as_bytes())?;
        if self.settings.has_vip {
            // An address in the floating one's network, as a host has it.
            let own = format!("fd00:65::{}/64", index + 1);
            let host = self.host(index);
            output_of(
                host.command("ip")
                    .args(["addr", "add", &own, "dev", HOST_LINK, "nodad"]),
            )?;
        }
        Ok(())
    }

    fn start_host(&mut self, index: usize) -> Result<()> {
        let (home, programs) = (self.home(index), self.programs.clone());
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let guard = text(programs.join("pbx-guard"));
        let asterisk = [
            "pbx".to_owned(),
            "--socket".to_owned(),
            text(home.join("guard.sock")),
            "--".to_owned(),
            "chroot".to_owned(),
            text(home.join("root")),
            "asterisk".to_owned(),
            "-f".to_owned(),
            "-C".to_owned(),
            text(home.join("config/current/asterisk.conf")),
        ];
        let sidecar = [
            "sidecar".to_owned(),
            "--".to_owned(),
            text(programs.join("pbx-sidecar")),
            "run".to_owned(),
            "--config".to_owned(),
            text(home.join("sidecar.yaml")),
        ];
        self.spawn(index, &guard, &asterisk, &home.join("asterisk.log"))?;
        self.spawn(index, &guard, &sidecar, &home.join("sidecar.log"))
    }

    fn spawn(&mut self, index: usize, guard: &str, arguments: &[String], log: &Path) -> Result<()> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("share the log")?;
        let mut command = self.lan.hosts()[index].command(guard);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        self.children[index].push(command.spawn().context("start the guard")?);
        Ok(())
    }

    fn pjsip(&self) -> String {
        let four = if self.settings.has_vip {
            VIP.to_string()
        } else {
            ANY.to_owned()
        };
        let mut text = format!("[udp]\ntype=transport\nprotocol=udp\nbind={four}:5060\n\n");
        if self.settings.has_vip {
            text += &format!("[udp6]\ntype=transport\nprotocol=udp\nbind=[{VIP6}]:5060\n\n");
        }
        text + "[anonymous]\ntype=endpoint\ncontext=default\nallow=!all,ulaw\n"
    }

    fn network(&self) -> Option<NetworkConfig> {
        let vip = |address: String| VipConfig {
            address,
            interface: HOST_LINK.into(),
        };
        self.settings.has_vip.then(|| NetworkConfig {
            vip: vec![vip(format!("{VIP}/24")), vip(format!("{VIP6}/64"))],
            fence: FenceConfig::default(),
        })
    }

    fn settings(&self, index: usize, home: &Path) -> SidecarConfig {
        let hosts = self.lan.hosts()[..self.count()].iter().enumerate();
        let nodes = hosts.map(|(index, host)| PeerConfig {
            name: name_of(index),
            address: Some(SocketAddr::from((host.address, HEARTBEAT_PORT))),
        });
        let any = Ipv4Addr::UNSPECIFIED;
        SidecarConfig {
            cluster: "office".into(),
            node: Some(name_of(index)),
            nodes: nodes.collect(),
            heartbeat: HeartbeatConfig {
                listen: SocketAddr::from((any, HEARTBEAT_PORT)),
                key_file: home.join("key"),
            },
            failover: self.settings.failover.clone(),
            http: SocketAddr::from((any, HTTP_PORT)),
            asterisk: AsteriskConfig {
                guard_socket: home.join("guard.sock"),
                defaults_dir: self.rootfs.join("etc/asterisk"),
                user_dirs: vec![home.join("user")],
                config_dir: home.join("config"),
                trunks: TrunkPolicy::default(),
            },
            record_dir: home.join("record"),
            network: self.network(),
            kubernetes: None,
        }
    }

    /// The processes in the host's network namespace, which holds nothing else.
    fn processes(&self, index: usize) -> Result<Vec<Process>> {
        processes_in(&self.lan.hosts()[index].namespace)
    }

    fn describe(&self) -> String {
        let reports = (0..self.count()).map(|index| match self.report(index) {
            Ok(report) => format!("{}: {:?} {}", report.node, report.role, report.detail),
            Err(error) => format!("{}: {error:#}", name_of(index)),
        });
        reports.collect::<Vec<_>>().join("; ")
    }

    /// The test has failed, and its logs go with it.
    fn show_logs(&self) {
        for index in 0..self.count() {
            let log = self.folder.join(index.to_string()).join("sidecar.log");
            eprintln!("{}: {}", log.display(), tail(&log, 30));
        }
    }

    fn reap(&mut self, index: usize) -> Result<()> {
        for mut child in self.children[index].drain(..) {
            child.kill().context("end a guard")?;
            child.wait().context("end a guard")?;
        }
        Ok(())
    }

    fn stop_all(&mut self) -> Result<()> {
        // The guards first, so that they start nothing again.
        for index in 0..self.children.len() {
            self.reap(index)?;
        }
        for index in 0..self.count() {
            for process in self.processes(index)? {
                process.signal(Signal::KILL).ok();
            }
            wait_until(
                "the host's processes to end",
                Duration::from_secs(5),
                || Ok(self.processes(index)?.is_empty()),
            )?;
            let root = self.folder.join(index.to_string()).join("root");
            unmount(&bound_config(&root))?;
            unmount(&root)?;
        }
        fs::remove_dir_all(&self.folder).context("remove the hosts' folder")
    }
}

impl Drop for BareHosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if let Err(error) = self.stop_all() {
            eprintln!(
                "bare hosts are left in {}: {error:#}",
                self.folder.display()
            );
        }
    }
}

/// All processes in a network namespace.
pub(crate) fn processes_in(namespace: &str) -> Result<Vec<Process>> {
    let pids = output_of(Command::new("ip").args(["netns", "pids", namespace]))?;
    let processes = pids.lines().filter_map(|pid| {
        let pid: u32 = pid.trim().parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments = line.trim_end_matches('\0').split('\0');
        Some(Process {
            pid,
            arguments: arguments.map(str::to_owned).collect(),
        })
    });
    Ok(processes.collect())
}

fn name_of(index: usize) -> String {
    format!("pbx-{index}")
}

/// A root file system of the host's own, so that three Asterisks do not share a database; the configuration is at the same path in it.
fn mount_root(home: &Path, rootfs: &Path) -> Result<()> {
    let root = home.join("root");
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.display(),
        home.join("upper").display(),
        home.join("work").display()
    );
    let mut overlay = Command::new("mount");
    overlay.args(["-t", "overlay", "overlay", "-o", &layers]);
    output_of(overlay.arg(&root))?;
    let bound = bound_config(&root);
    fs::create_dir_all(&bound).with_context(|| format!("create {}", bound.display()))?;
    for folder in ["run/asterisk", "var/log/asterisk", "var/lib/asterisk/cache"] {
        let path = root.join(folder);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let mut bind = Command::new("mount");
    bind.arg("--bind").arg(home.join("config")).arg(&bound);
    output_of(&mut bind).map(drop)
}

/// Where the configuration folder beside `root` is found inside it.
fn bound_config(root: &Path) -> PathBuf {
    let config = root.with_file_name("config");
    let inside = config.strip_prefix("/").unwrap_or(&config);
    root.join(inside)
}

fn unmount(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // A process that was just reaped may hold its files for a moment.
    wait_until("a file system to be free", Duration::from_secs(5), || {
        Ok(output_of(Command::new("umount").arg(path)).is_ok())
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Checks a sidecar's file as `pbx-sidecar check` does, and returns its exit code and what it said.
pub fn check_file(text: &str) -> Result<(i32, String)> {
    let programs = build_programs(Profile::Local)?;
    let path = std::env::temp_dir().join(format!("pbxha-check-{}.yaml", std::process::id()));
    write(&path, text.as_bytes())?;
    let output = Command::new(programs.join("pbx-sidecar"))
        .args(["check", "--config"])
        .arg(&path)
        .output()
        .context("run pbx-sidecar")?;
    fs::remove_file(&path).ok();
    let Some(code) = output.status.code() else {
        bail!("pbx-sidecar was killed: {}", output.status);
    };
    ensure!(code != 101, "pbx-sidecar panicked");
    Ok((code, String::from_utf8_lossy(&output.stderr).into_owned()))
}
