//! How the server's allocator gives memory back.

/// What is larger is asked of the kernel each time and given back when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 4 * 1024 * 1024;

/// Has large allocations given back when they are freed. Each mount has two buffers of 16 MiB, one a
/// thread; glibc learns from the first that is freed to keep such as these, cleared and therefore
/// resident, in an arena of each thread: 15 MB for every wake, until all its arenas have one.
pub(super) fn give_back_what_is_large() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a number, before other threads allocate. Where it fails, nothing has changed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
