//! The control groups of this machine, in the old hierarchies (v1), the unified one (v2), or both
//! side by side: where v2 is mounted, and the care of the
//! group that holds all containers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// containerd's group for the containers of Kubernetes.
const CONTAINERS: &str = "k8s.io";

/// Where the unified hierarchy is mounted.
pub(super) fn unified_mount() -> Result<PathBuf> {
    mounts(&["cgroup2"])?
        .pop()
        .context("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// Where the freezer of the old hierarchies is mounted.
pub(super) fn old_freezer_mount() -> Result<PathBuf> {
    let is_freezer = |mount: &PathBuf| mount.ends_with("freezer");
    let found = mounts(&["cgroup"])?.into_iter().find(is_freezer);
    found.context("no freezer of cgroup v1 is mounted")
}

/// Makes the group of all containers, with the weight in CPU contention that it has on a real
/// node: that of a task for each core. Left to the runtime, it would weigh as much as one task of
/// the machine.
pub(super) fn prepare() -> Result<()> {
    let cores = std::thread::available_parallelism()
        .context("count the cores")?
        .get();
    for mount in mounts(&["cgroup"])?
        .into_iter()
        .filter(|mount| mount.join("cpu.shares").exists())
    {
        let group = mount.join(CONTAINERS);
        fs::create_dir_all(&group).with_context(|| format!("create {}", group.display()))?;
        fs::write(group.join("cpu.shares"), (1024 * cores).to_string())
            .with_context(|| format!("weigh {}", group.display()))?;
    }
    Ok(())
}

/// Removes the groups of a dead container from every hierarchy.
pub(super) fn remove_container(id: &str) {
    for mount in mounts(&["cgroup", "cgroup2"]).unwrap_or_default() {
        remove_tree(&mount.join(CONTAINERS).join(id));
    }
}

/// Removes the group of all containers, unless someone else's are in it.
pub(super) fn remove_all() {
    for mount in mounts(&["cgroup", "cgroup2"]).unwrap_or_default() {
        fs::remove_dir(mount.join(CONTAINERS)).ok();
    }
}

/// A group can be removed once it is empty; its files vanish with it.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Absent is what is wanted.
    fs::remove_dir(group).ok();
}

fn mounts(kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    Ok(mounted_as(&text, kinds))
}

fn mounted_as(mounts: &str, kinds: &[&str]) -> Vec<PathBuf> {
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.get(2).is_some_and(|kind| kinds.contains(kind)))
        .map(|fields| PathBuf::from(fields[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart_by_their_kind() {
        let text = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                    cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            mounted_as(text, &["cgroup2"]),
            [PathBuf::from("/sys/fs/cgroup/unified")]
        );
        assert_eq!(mounted_as(text, &["cgroup", "cgroup2"]).len(), 2);
    }
}
