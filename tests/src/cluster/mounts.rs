//! Taking away the mounts that containerd, kubelet and containers leave below a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::output_of;

/// Unmounts everything below `folder`, the innermost first.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let found = below(&text, folder);
    if found.is_empty() {
        return Ok(());
    }
    // Lazily: a dying process may still hold a file in one.
    output_of(Command::new("umount").arg("--lazy").args(found))
        .with_context(|| format!("unmount what is below {}", folder.display()))
        .map(drop)
}

fn below(mounts: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut found: Vec<PathBuf> = points
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(folder) && point != folder)
        .collect();
    // The order of mounting, reversed, so that what hides another goes first.
    found.reverse();
    found
}

/// The kernel writes blanks and backslashes of a path as octal numbers.
fn unescape(point: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(point.to_owned(), |text, (octal, plain)| {
        text.replace(octal, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_found_and_innermost_first() {
        let mounts = "tmpfs /run/a tmpfs rw 0 0\noverlay /run/a/b overlay rw 0 0\n\
                      tmpfs /run/a/b/c\\040d tmpfs rw 0 0\ntmpfs /run/ab tmpfs rw 0 0\n";
        let found = below(mounts, Path::new("/run/a"));
        assert_eq!(
            found,
            [PathBuf::from("/run/a/b/c d"), PathBuf::from("/run/a/b")]
        );
    }
}
