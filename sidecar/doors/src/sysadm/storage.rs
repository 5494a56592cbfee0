//! The host's name and file systems, asked of the kernel. May block: not for the doors' thread itself.

use std::path::PathBuf;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::events::Storage;

/// The file systems of `folders`; one that cannot be asked is left out.
pub fn look(folders: &[(String, PathBuf)]) -> Vec<Storage> {
    let known = folders.iter().filter_map(|(name, folder)| {
        let found = statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Storage {
            name: name.clone(),
            size_bytes: bytes(found.f_blocks),
            used_bytes: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            free_bytes: bytes(found.f_bavail),
            is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    });
    known.collect()
}

/// The host's name.
pub fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
