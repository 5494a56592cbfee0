//! Memory that was freed, given back to the kernel (here because it needs `unsafe`; the guard itself never allocates enough), and memory
//! that is kept.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::thread::{CapabilitySet, capabilities};

/// Gives back what the allocator holds of freed memory: by itself glibc returns only what lies above the last living allocation, so a
/// crowd that has gone goes on costing what it did. Takes about a millisecond for some tens of MiB; a thread that allocates from the
/// same arena waits so long.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "nothing wraps malloc_trim")]
pub fn give_back() {
    // SAFETY: it takes a number and the allocator's own locks, and touches freed memory alone.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves, or cannot.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Unmaps the program's own code and constants: what only its start needed stays out, the rest comes back page by page from the
/// kernel's cache (a microsecond each), since it is read-only and the same for everybody who runs it. What is locked in memory stays.
#[allow(unsafe_code, reason = "rustix's madvise is unsafe, too")]
pub fn forget_unused_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let own = std::env::current_exe().unwrap_or_default();
    for (start, length) in unwritten_of(&maps, &own.to_string_lossy()) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: a mapping of our own program that was never written differs in nothing from its file: a page that is not there is read from
        // it again.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
}

/// What a process does that has begun, and lives long: what only its beginning needed is let go, all else is kept.
pub fn settle() {
    forget_unused_code();
    lock_memory();
}

/// Keeps in memory what this process has used, and whatever it will use: a machine that is short of memory takes none of it away.
/// What was never used is not read for it. Programs that it starts are not locked.
///
/// Returns whether it was allowed. Without the capability it is not tried: the first allocation above the limit would fail.
fn lock_memory() -> bool {
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    may_lock() && mlockall(all).is_ok()
}

/// Whether limits of locked memory do not apply to this process.
fn may_lock() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

/// Address and length of what is mapped of `program` (proc(5), `maps`) and was never written: what may be executed, and the constants at
/// its very beginning. Tables that were relocated when they were loaded, and closed to writing only then, lie behind the code (ELF,
/// `PT_GNU_RELRO`).
fn unwritten_of(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let unwritten = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let is_first = u64::from_str_radix(offset, 16) == Ok(0);
        let is_unwritten = rights == "r-xp" || rights == "r--p" && is_first;
        let is_own = fields.nth(2)? == program;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (is_unwritten && is_own).then_some((address(start)?, address(end)? - address(start)?))
    });
    unwritten.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555500000000-555500100000 r--p 00000000 fd:00 7 /usr/bin/pbx-sidecar
555500100000-555500400000 r-xp 00100000 fd:00 7 /usr/bin/pbx-sidecar
555500400000-555500480000 r--p 00400000 fd:00 7 /usr/bin/pbx-sidecar
555500480000-555500500000 rw-p 00480000 fd:00 7 /usr/bin/pbx-sidecar
7f0000000000-7f0000001000 r-xp 00000000 fd:00 9 /usr/lib/libc.so.6
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn only_what_the_program_never_wrote_is_unmapped() {
        let unwritten = unwritten_of(MAPS, "/usr/bin/pbx-sidecar");
        let (constants, code) = ((0x5555_0000_0000, 0x10_0000), (0x5555_0010_0000, 0x30_0000));
        assert_eq!(unwritten, [constants, code]);
    }

    #[test]
    fn the_program_goes_on_without_what_it_forgot() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages = statm.split(' ').nth(2).unwrap();
            pages.parse::<usize>().unwrap()
        };
        let before = resident();
        forget_unused_code();
        assert!(resident() < before, "{before}");
    }

    /// In a process of its own: what is locked stays so.
    #[test]
    fn memory_is_locked_where_that_is_allowed_and_a_limit_is_no_trap() {
        const IS_CHILD: &str = "PBXHA_TEST_LOCKS";
        if let Ok(expected) = std::env::var(IS_CHILD) {
            assert_eq!(lock_memory().to_string(), expected);
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmLck:"));
            assert_eq!(line.unwrap().contains(" 0 kB"), expected == "false");
            return;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("to be allowed, and forbidden, needs root: nothing was tested");
            return;
        }
        let own = std::env::current_exe().unwrap();
        let name = "memory::tests::memory_is_locked_where_that_is_allowed_and_a_limit_is_no_trap";
        let child = |expected: &str, before: &[&str]| {
            let mut all: Vec<&std::ffi::OsStr> = before.iter().map(AsRef::as_ref).collect();
            let arguments = [own.as_os_str(), name.as_ref(), "--exact".as_ref()];
            all.extend(arguments);
            let mut command = std::process::Command::new(all[0]);
            let ended = command.args(&all[1..]).env(IS_CHILD, expected).output();
            let ended = ended.unwrap();
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success(), "{before:?}: {said}");
            assert!(said.contains("1 passed"), "{said}");
        };
        let as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
        child("true", &[]);
        child(
            "false",
            &[&["prlimit", "--memlock=65536"][..], &as_nobody].concat(),
        );
    }
}
