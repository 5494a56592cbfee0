//! Waits until a file was moved into a folder, or written there: the kernel says so, nobody looks ten times a second.
//!
//! inotify is a help and never relied on: a user's instances are few (128 by default, shared by all pods of a node), and a network
//! file system does not tell what others do. So whoever waits also looks now and then by itself: [`FolderWatch::look_again`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::statfs;
use rustix::io::{read, retry_on_intr};

/// A folder of this machine is looked at again so late: the kernel tells of all that comes,
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// … of any other so soon: others may put something into it.
const LOOK_AGAIN_SHARED: Duration = Duration::from_secs(2);
/// File systems that only this machine writes to (statfs(2)): ext4, XFS, Btrfs, F2FS, tmpfs, overlayfs.
const OWN_FILE_SYSTEMS: [u64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x0102_1994,
    0x794C_7630,
];

/// Holds many events with names; what does not fit is read next.
const BUFFER_BYTES: usize = 4096;

/// A folder that is watched, if the kernel can.
#[derive(Debug)]
pub struct FolderWatch {
    descriptor: OwnedFd,
    folder: PathBuf,
}

impl FolderWatch {
    /// Watches `folder`, which need not be there yet. Does not block.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let watch = Self {
            descriptor: init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            folder: folder.into(),
        };
        watch.renew();
        Ok(watch)
    }

    /// Watches the folder that has this name now: it may have been made anew. To be called before each look into it.
    pub fn renew(&self) {
        let wanted = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::MOVE_SELF;
        // One that is missing is looked for again by whoever waits.
        let _ = add_watch(&self.descriptor, &self.folder, wanted);
    }

    /// How long to rely on the kernel's word.
    pub fn look_again(&self) -> Duration {
        let is_own = statfs(&self.folder)
            .is_ok_and(|found| OWN_FILE_SYSTEMS.contains(&found.f_type.cast_unsigned()));
        if is_own {
            LOOK_AGAIN
        } else {
            LOOK_AGAIN_SHARED
        }
    }

    /// Blocks until something came, or for `limit`.
    pub fn wait(&self, limit: Duration) {
        let limit = Timespec::try_from(limit).ok();
        let mut waits = [PollFd::new(&self.descriptor, PollFlags::IN)];
        // Interrupted or not: the caller looks.
        let _ = poll(&mut waits, limit.as_ref());
        self.forget();
    }

    /// Takes what came from the kernel, so that it is told once; `WouldBlock` if nothing did.
    ///
    /// # Errors
    /// As the kernel has it.
    pub fn take(&self) -> io::Result<()> {
        let mut buffer = [0; BUFFER_BYTES];
        match retry_on_intr(|| read(&self.descriptor, &mut buffer))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }

    fn forget(&self) {
        while self.take().is_ok() {}
    }
}

impl AsFd for FolderWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for FolderWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn waits(watch: &FolderWatch, limit: Duration) -> Duration {
        let began = Instant::now();
        watch.wait(limit);
        began.elapsed()
    }

    #[test]
    fn a_file_moved_in_or_written_ends_the_wait_and_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("spool");
        std::fs::create_dir(&folder).unwrap();
        let watch = FolderWatch::new(&folder).unwrap();
        std::fs::write(root.path().join("half"), "x").unwrap();
        std::fs::rename(root.path().join("half"), folder.join("a")).unwrap();
        assert!(waits(&watch, LONG) < LONG / 2);
        std::fs::write(folder.join("b"), "x").unwrap();
        assert!(watch.take().is_ok() && watch.take().is_err());
        let short = Duration::from_millis(20);
        assert!(waits(&watch, short) >= short);
    }

    /// `/proc` stands for what is not known to be this machine's alone.
    #[test]
    fn a_folder_that_others_may_write_to_is_looked_at_soon() {
        let root = tempfile::tempdir().unwrap();
        let look_again = |folder: &Path| FolderWatch::new(folder).unwrap().look_again();
        assert_eq!(look_again(root.path()), LOOK_AGAIN);
        assert_eq!(look_again(Path::new("/proc")), LOOK_AGAIN_SHARED);
        assert_eq!(look_again(&root.path().join("none")), LOOK_AGAIN_SHARED);
    }

    #[test]
    fn a_folder_that_is_made_anew_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("spool");
        let watch = FolderWatch::new(&folder).unwrap();
        for _ in 0..2 {
            std::fs::create_dir(&folder).unwrap();
            watch.renew();
            watch.forget();
            std::fs::write(folder.join("a"), "x").unwrap();
            assert!(waits(&watch, LONG) < LONG / 2);
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}
