//! Memory that was freed, given back to the kernel. It is here because it needs `unsafe`; the guard itself never allocates enough.

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

/// Unmaps the program's own code: what only its start needed stays out, the rest comes back page by page from the kernel's cache (a
/// microsecond each), since it is read-only and the same for everybody who runs it. Code that is locked in memory stays.
#[allow(unsafe_code, reason = "rustix's madvise is unsafe, too")]
pub fn forget_unused_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let own = std::env::current_exe().unwrap_or_default();
    for (start, length) in code_of(&maps, &own.to_string_lossy()) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: a mapping of our own program that may be read and executed but not written differs in nothing from its file: a page that is
        // not there is read from it again.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
}

/// Address and length of what is mapped of `program` to be executed (proc(5), `maps`). Parts that were written when they were loaded, such
/// as relocated tables, may never be executed: they are not among these.
fn code_of(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let code = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let is_code = rights == "r-xp" && fields.nth(3)? == program;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        is_code.then_some((address(start)?, address(end)? - address(start)?))
    });
    code.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555500000000-555500100000 r--p 00000000 fd:00 7 /usr/bin/pbx-sidecar
555500100000-555500400000 r-xp 00100000 fd:00 7 /usr/bin/pbx-sidecar
555500400000-555500500000 rw-p 00400000 fd:00 7 /usr/bin/pbx-sidecar
7f0000000000-7f0000001000 r-xp 00000000 fd:00 9 /usr/lib/libc.so.6
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn only_the_programs_own_code_is_unmapped() {
        let code = code_of(MAPS, "/usr/bin/pbx-sidecar");
        assert_eq!(code, [(0x5555_0010_0000, 0x30_0000)]);
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
}
