//! What the machine itself must have: Debian packages, installed when missing, and a Go that can
//! build Kubernetes. Leaves out what is built or fetched into the cache (`tools`, `kube_build`).

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::progress::{Step, output_of};
use crate::tools::log_path;

/// A group of packages and what they are for.
pub struct PackageSet {
    /// Said to the user when something of the set has to be installed.
    pub purpose: &'static str,
    /// Names in Debian.
    pub packages: &'static [&'static str],
}

/// Runs a local cluster.
pub const CLUSTER: PackageSet = PackageSet {
    purpose: "the local Kubernetes",
    packages: &[
        "conntrack",
        "containerd",
        "containernetworking-plugins",
        "iproute2",
        "iptables",
        "mount",
        "nftables",
        "openssl",
        "procps",
        "runc",
        "util-linux",
    ],
};

/// Compiles the static pause container, and the C parts that Go links.
pub const COMPILER: PackageSet = PackageSet {
    purpose: "building the cluster's binaries",
    packages: &["gcc", "libc6-dev"],
};

/// Makes the root file system of the Asterisk image.
pub const ASTERISK_CHROOT: PackageSet = PackageSet {
    purpose: "the Asterisk image",
    packages: &[
        "ca-certificates",
        "debian-archive-keyring",
        "debootstrap",
        "xsltproc",
    ],
};

/// Claims an address that another has.
pub const ARPING: PackageSet = PackageSet {
    purpose: "claiming a floating address",
    packages: &["iputils-arping"],
};

/// Calls, registers and loads a PBX.
pub const SIP_LOAD: PackageSet = PackageSet {
    purpose: "SIP load",
    packages: &["sip-tester"],
};

/// A peer of the failover benchmark: VRRP.
pub const KEEPALIVED: PackageSet = PackageSet {
    purpose: "keepalived, to compare with",
    packages: &["keepalived"],
};

/// A peer of the failover benchmark: Linux-HA.
pub const HEARTBEAT: PackageSet = PackageSet {
    purpose: "heartbeat, to compare with",
    packages: &["heartbeat", "resource-agents"],
};

/// A peer of the failover benchmark.
pub const PACEMAKER: PackageSet = PackageSet {
    purpose: "pacemaker, to compare with",
    packages: &[
        "corosync",
        "pacemaker",
        "pacemaker-cli-utils",
        "resource-agents",
    ],
};

/// Faults of the network between bare hosts.
pub const NETWORK_FAULTS: PackageSet = PackageSet {
    purpose: "faults of the network",
    packages: &["ethtool", "iproute2", "nftables"],
};

/// Keeps a host's floating addresses shut.
pub const FENCE: PackageSet = PackageSet {
    purpose: "the fence of floating addresses",
    packages: &["iproute2", "nftables"],
};

const OLDEST_GO: (u32, u32) = (1, 25);

/// apt holds one lock for the machine: threads take turns before it.
static APT: Mutex<()> = Mutex::new(());

/// Installs what is missing of `sets`, in one run of apt; does nothing when all is there.
pub fn ensure(sets: &[PackageSet]) -> Result<()> {
    let _turn = APT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let wanted: BTreeSet<&str> = sets.iter().flat_map(|set| set.packages).copied().collect();
    let missing = missing_of(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "as root, install what is missing: apt-get install {}",
            missing.join(" ")
        );
    }
    let purposes: Vec<&str> = sets.iter().map(|set| set.purpose).collect();
    install(&missing, &purposes.join(", "))
}

/// Checks that a Go is there that can build Kubernetes.
pub fn ensure_go() -> Result<()> {
    let remedy = "Kubernetes and CoreDNS are built from their Go modules: install Go 1.25 or later \
                  (https://go.dev/dl) and put it first in PATH";
    let text = output_of(Command::new("go").arg("version")).context(remedy)?;
    match go_version(&text) {
        Some(found) if found >= OLDEST_GO => Ok(()),
        Some((major, minor)) => bail!("found Go {major}.{minor}, too old. {remedy}"),
        None => bail!("cannot read a version in {:?}. {remedy}", text.trim()),
    }
}

fn missing_of(wanted: &BTreeSet<&str>) -> Result<Vec<String>> {
    // dpkg-query exits with 1 when it does not know one of the names: what it prints counts.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("ask dpkg-query (this needs a Debian machine)")?;
    Ok(not_installed(
        wanted,
        &String::from_utf8_lossy(&output.stdout),
    ))
}

fn not_installed(wanted: &BTreeSet<&str>, dpkg_answer: &str) -> Vec<String> {
    let installed: BTreeSet<&str> = dpkg_answer
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    wanted
        .difference(&installed)
        .map(ToString::to_string)
        .collect()
}

fn install(missing: &[String], purposes: &str) -> Result<()> {
    let log = log_path("apt")?;
    let list = missing.join(" ");
    let step = Step::begin(
        format!("Debian packages for {purposes}: {list}"),
        "under a minute",
    );
    // A failing third-party source must not stop us: if a package is not found, install says so.
    let update = step.run(apt().arg("update"), &log);
    step.run(
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(missing),
        &log,
    )
    .context(match update {
        Ok(()) => "install Debian packages".to_owned(),
        Err(error) => format!("install Debian packages, after a failed update: {error}"),
    })?;
    step.done();
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Installed is not started: invoke-rc.d(8) takes this for the single-user runlevel.
        .env("RUNLEVEL", "1")
        .args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// Major and minor number in an answer such as `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    let minor: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((1, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_version_is_read_from_its_answer() {
        assert_eq!(
            go_version("go version go1.26.8 linux/amd64\n"),
            Some((1, 26))
        );
        assert_eq!(
            go_version("go version go1.19rc2 linux/amd64"),
            Some((1, 19))
        );
        assert_eq!(go_version("gccgo 12"), None);
    }

    #[test]
    fn only_fully_installed_packages_count() {
        let wanted = BTreeSet::from(["runc", "nftables", "gcc"]);
        let answer = "nftables installed\nrunc config-files\n";
        assert_eq!(not_installed(&wanted, answer), ["gcc", "runc"]);
    }
}
