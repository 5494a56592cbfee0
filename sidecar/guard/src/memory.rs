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
