//! pbx-ha without Kubernetes: hosts on one switch (network namespaces), each with sidecar, guard and a real Asterisk of its own, run
//! from a YAML file as an administrator of bare machines would write it. Everything is gone when the value is dropped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pbx_crds::cluster::{FailoverSpec, StandbyMode};
use pbx_crds::health::HealthSpec;
use pbx_crds::names::{HEARTBEAT_PORT, HTTP_PORT};
use pbx_crds::report::{Report, ReportedRole};
use pbx_crds::switchover::{DrillSpec, HookSpec};
use rustix::process::Signal;

use crate::asterisk_chroot;
use crate::cluster::{Process, wait_until};
use crate::http;
use crate::images::{Profile, build_programs};
use crate::netns::{Cable, HOST_LINK, Host, Lan, processes_in};
use crate::progress::{output_of, tail};
use crate::slow_path::SlowPath;

mod setup;
mod told;

pub use setup::TOKEN;
use setup::{HAAST_SOCKET, bound_config};

const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 65, 0);
/// The floating address of every set of hosts that has one.
pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 65, 200);
/// The same for IPv6.
pub const VIP6: &str = "fd00:65::200";
const SECOND_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 66, 0);
/// A standby's readiness reaches the active with its next beat, 100 ms later at most.
const TOLD_WITHIN: Duration = Duration::from_millis(300);

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
    /// Whether a second network joins them.
    pub has_second_link: bool,
    /// Their timing.
    pub failover: FailoverSpec,
    /// Their sensors.
    pub health: HealthSpec,
    /// Moves by schedule.
    pub drills: DrillSpec,
    /// Who is told.
    pub hooks: Vec<HookSpec>,
    /// Whether a standby's Asterisk runs.
    pub standby: StandbyMode,
    /// More of Asterisk's files, by name.
    pub files: Vec<(String, String)>,
    /// How sidecar and guard are compiled.
    pub profile: Profile,
}

impl BareSettings {
    /// Hosts of one network, without a floating address.
    pub fn plain(name: &str, hosts: u8) -> Self {
        Self {
            name: name.into(),
            hosts,
            clients: 0,
            has_vip: false,
            has_second_link: false,
            failover: FailoverSpec::default(),
            health: HealthSpec::default(),
            drills: DrillSpec::default(),
            hooks: Vec::new(),
            standby: StandbyMode::default(),
            files: Vec::new(),
            profile: Profile::Local,
        }
    }
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
        Self::start_with(BareSettings::plain(name, count))
    }

    /// The same, with two links between the hosts, `lan` and `wan`.
    pub fn start_linked(name: &str, count: u8) -> Result<Self> {
        Self::start_with(BareSettings {
            has_second_link: true,
            ..BareSettings::plain(name, count)
        })
    }

    /// Starts hosts; returns at once.
    pub fn start_with(settings: BareSettings) -> Result<Self> {
        let programs = build_programs(settings.profile)?;
        let rootfs = asterisk_chroot::rootfs()?;
        let folder = std::env::temp_dir().join(format!("pbxha-{}", settings.name));
        let lan = Lan::create(&settings.name, NETWORK, settings.hosts + settings.clients)?;
        // What a run that was killed left behind.
        for index in 0..usize::from(settings.hosts) {
            let root = folder.join(index.to_string()).join("root");
            for mounted in [bound_config(&root), root] {
                output_of(Command::new("umount").arg(mounted)).ok();
            }
        }
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut hosts = Self {
            settings,
            lan,
            folder,
            programs,
            rootfs,
            children: Vec::new(),
        };
        if hosts.settings.has_second_link {
            hosts.lan.add_cables(SECOND_NETWORK)?;
        }
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

    /// The socket of a host's HAAst door.
    pub fn haast_socket(&self, index: usize) -> PathBuf {
        self.home(index).join(HAAST_SOCKET)
    }

    /// The folder of a host that is to be `/run/heartbeat` for its clients.
    pub fn heartbeat_folder(&self, index: usize) -> PathBuf {
        self.home(index).join("heartbeat")
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
            // The active is ready as well, and no standby.
            let is_ready_standby =
                |report: &Report| report.ready && report.role == ReportedRole::Standby;
            let ready = reports.filter(is_ready_standby).count();
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

    /// Writes one of Asterisk's files on a host, as its administrator would.
    pub fn write_file(&self, index: usize, name: &str, text: &str) -> Result<()> {
        write(&self.home(index).join("user").join(name), text.as_bytes())
    }

    /// Asks the sidecar of a host for something, by its file.
    pub fn ask_for(&self, index: usize, what: &str) -> Result<()> {
        write(&self.home(index).join("record/switchover"), what.as_bytes())
    }

    /// Where a host's own files are.
    pub fn folder(&self, index: usize) -> PathBuf {
        self.home(index)
    }

    fn home(&self, index: usize) -> PathBuf {
        self.folder.join(index.to_string())
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
            let log = self.home(index).join("sidecar.log");
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
