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
    AsteriskConfig, HeartbeatConfig, LinkAddress, PeerConfig, SidecarConfig,
};
use pbx_crds::status::LinkState;
use rustix::process::Signal;

use crate::asterisk_chroot;
use crate::cluster::{Process, wait_until};
use crate::http;
use crate::images::{Profile, build_programs};
use crate::netns::{Cable, Host, Lan};
use crate::progress::{output_of, tail};
use crate::slow_path::SlowPath;

const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 65, 0);
const SECOND_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 66, 0);
const PJSIP: &str = "[udp]\ntype=transport\nprotocol=udp\nbind=0.0.0.0:5060\n\n[anonymous]\ntype=endpoint\ncontext=default\nallow=!all,ulaw\n";
/// A standby's readiness reaches the active with its next beat, 100 ms later at most.
const TOLD_WITHIN: Duration = Duration::from_millis(300);
const KEY: [u8; 32] = [0x5a; 32];

/// The hosts.
#[derive(Debug)]
pub struct BareHosts {
    lan: Lan,
    folder: PathBuf,
    children: Vec<Child>,
}

impl BareHosts {
    /// Starts `count` hosts; returns at once. `name` (at most 8 bytes) must be the test's own.
    pub fn start(name: &str, count: u8) -> Result<Self> {
        Self::start_on(name, count, &[NETWORK])
    }

    /// The same, with two links between the hosts, `lan` and `wan`.
    pub fn start_linked(name: &str, count: u8) -> Result<Self> {
        Self::start_on(name, count, &[NETWORK, SECOND_NETWORK])
    }

    fn start_on(name: &str, count: u8, networks: &[Ipv4Addr]) -> Result<Self> {
        let programs = build_programs(Profile::Local)?;
        let rootfs = asterisk_chroot::rootfs()?;
        let folder = std::env::temp_dir().join(format!("pbxha-{name}"));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut hosts = Self {
            lan: Lan::create(name, networks[0], count)?,
            folder,
            children: Vec::new(),
        };
        if let Some(second) = networks.get(1) {
            hosts.lan.add_cables(*second)?;
        }
        for index in 0..usize::from(count) {
            hosts
                .start_host(index, &programs, &rootfs)
                .with_context(|| format!("start host {index}"))?;
        }
        Ok(hosts)
    }

    /// How many hosts.
    pub fn count(&self) -> usize {
        self.lan.hosts().len()
    }

    /// What the sidecar of a host says, asked on the host itself.
    pub fn report(&self, index: usize) -> Result<Report> {
        serde_json::from_str(&self.ask(index, "/status")?).context("read the report")
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

    /// The files that a host's flight recorder wrote, oldest first.
    pub fn flights(&self, index: usize) -> Result<Vec<PathBuf>> {
        let folder = self.home(index).join("record/flights");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let files = fs::read_dir(&folder).context("list the flights")?;
        let mut paths: Vec<_> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "pbxflight"));
        paths.sort();
        Ok(paths)
    }

    /// What a host's flight recorder holds now, as its HTTP gives it, in a file of the host's folder.
    pub fn take_flight(&self, index: usize) -> Result<PathBuf> {
        let host = &self.lan.hosts()[index];
        let address = SocketAddrV4::new(host.address, HTTP_PORT);
        let bytes = http::get_bytes(&host.path(), address, "/debug/flight")?;
        let path = self.home(index).join("taken.pbxflight");
        write(&path, &bytes)?;
        Ok(path)
    }

    /// The sidecar of a host.
    pub fn sidecar(&self, index: usize) -> Result<Process> {
        let found = self
            .processes(index)?
            .into_iter()
            .find(|process| process.program() == "pbx-sidecar");
        found.with_context(|| format!("no sidecar runs on host {index}"))
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

    /// The host's second cable.
    pub fn cable(&self, index: usize) -> &Cable {
        &self.lan.cables()[index]
    }

    /// Makes the host's second path slow, `delay` each way, until the value is dropped.
    pub fn slow_down(&self, index: usize, delay: Duration) -> Result<SlowPath> {
        let cables = self.lan.cables();
        let others = cables
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let peers: Vec<Ipv4Addr> = others.map(|(_, cable)| cable.address).collect();
        let namespace = self.lan.hosts()[index].path();
        let own = cables[index].address;
        SlowPath::begin(&namespace, own, &peers, HEARTBEAT_PORT, delay)
    }

    /// The names of a host's links in one state.
    pub fn links(&self, index: usize, state: LinkState) -> Result<Vec<String>> {
        let links = self.report(index)?.links.into_iter();
        Ok(links
            .filter(|link| link.state == state)
            .map(|link| link.name)
            .collect())
    }

    /// The round-trip times of a host's links, in milliseconds.
    pub fn round_trips(&self, index: usize) -> Result<Vec<(String, f64)>> {
        let status: serde_json::Value = serde_json::from_str(&self.ask(index, "/status")?)?;
        let times = status["linkTimes"].as_array().context("no linkTimes")?;
        let times = times.iter().filter_map(|link| {
            let name = link["name"].as_str()?.to_owned();
            Some((name, link["roundTripMs"].as_f64()?))
        });
        Ok(times.collect())
    }

    /// The metrics of a host.
    pub fn metrics(&self, index: usize) -> Result<String> {
        self.ask(index, "/metrics")
    }

    fn ask(&self, index: usize, path: &str) -> Result<String> {
        let host = &self.lan.hosts()[index];
        let address = SocketAddrV4::new(host.address, HTTP_PORT);
        http::get(&host.path(), address, path)
    }

    fn home(&self, index: usize) -> PathBuf {
        self.folder.join(index.to_string())
    }

    fn start_host(&mut self, index: usize, programs: &Path, rootfs: &Path) -> Result<()> {
        let home = self.home(index);
        for part in ["root", "upper", "work", "config", "record", "user"] {
            let path = home.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        mount_root(&home, rootfs)?;
        write(&home.join("user/pjsip.conf"), PJSIP.as_bytes())?;
        write(&home.join("key"), &KEY)?;
        let settings = serde_yaml::to_string(&self.settings(index, &home, rootfs))
            .context("write the sidecar's file")?;
        write(&home.join("sidecar.yaml"), settings.as_bytes())?;
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
        self.children
            .push(command.spawn().context("start the guard")?);
        Ok(())
    }

    fn settings(&self, index: usize, home: &Path, rootfs: &Path) -> SidecarConfig {
        let nodes = (0..self.count()).map(|index| self.peer(index));
        let any = Ipv4Addr::UNSPECIFIED;
        SidecarConfig {
            cluster: "office".into(),
            node: Some(name_of(index)),
            nodes: nodes.collect(),
            heartbeat: HeartbeatConfig {
                listen: None,
                key_file: home.join("key"),
            },
            failover: FailoverSpec::default(),
            http: SocketAddr::from((any, HTTP_PORT)),
            asterisk: AsteriskConfig {
                guard_socket: home.join("guard.sock"),
                defaults_dir: rootfs.join("etc/asterisk"),
                user_dirs: vec![home.join("user")],
                config_dir: home.join("config"),
                trunks: TrunkPolicy::default(),
            },
            record_dir: home.join("record"),
            kubernetes: None,
        }
    }

    /// In the short form of one link, or with a name for each.
    fn peer(&self, index: usize) -> PeerConfig {
        let at = |address: Ipv4Addr| SocketAddr::from((address, HEARTBEAT_PORT));
        let first = at(self.lan.hosts()[index].address);
        let link = |name: &str, address| LinkAddress {
            name: name.to_owned(),
            address,
        };
        let second = self.lan.cables().get(index);
        PeerConfig {
            name: name_of(index),
            address: second.is_none().then_some(first),
            addresses: second.map_or_else(Vec::new, |cable| {
                vec![link("wan", at(cable.address)), link("lan", first)]
            }),
        }
    }

    /// The processes in the host's network namespace, which holds nothing else.
    fn processes(&self, index: usize) -> Result<Vec<Process>> {
        let namespace = &self.lan.hosts()[index].namespace;
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
            let log = self.home(index).join("sidecar.log");
            eprintln!("{}: {}", log.display(), tail(&log, 30));
        }
    }

    fn stop_all(&mut self) -> Result<()> {
        // The guards first, so that they start nothing again.
        for child in &mut self.children {
            child.kill().context("end a guard")?;
            child.wait().context("end a guard")?;
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
            let root = self.home(index).join("root");
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

/// Replays a flight as `pbx-sidecar replay` does, and returns its exit code and what it said.
pub fn replay(flight: &Path, arguments: &[&str]) -> Result<(i32, String)> {
    let programs = build_programs(Profile::Local)?;
    let output = Command::new(programs.join("pbx-sidecar"))
        .arg("replay")
        .arg(flight)
        .args(arguments)
        .output()
        .context("run pbx-sidecar")?;
    let Some(code) = output.status.code() else {
        bail!("pbx-sidecar was killed: {}", output.status);
    };
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((code, said))
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
