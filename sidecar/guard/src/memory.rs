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
}
