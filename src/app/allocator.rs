//! How the C library's allocator keeps what was freed.
//!
//! By default it keeps much: an arena for every thread that met another one in it, and mounts bring
//! threads; and large pieces in the heap, once one of that size was freed. Each thread of a mount has
//! a buffer of 16 MiB: kept in its arena it is 15 MB for every wake, until all arenas have one.
//! Measured with `cargo bench --bench lazy -- --quick`, a server with a branch of 20 MB awake: 104 MB
//! more than before with the defaults, 59 MB with two arenas, 16 MB with large pieces mapped one by
//! one as well.

/// Beyond it a piece is mapped and unmapped by itself, bytes. Packs are larger, clients' commands
/// and blocks are smaller.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 1024 * 1024;

/// Before the first thread is started. Where it has no effect, the process is larger, and works.
pub(super) fn tune() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes plain numbers, and the allocator's own locks keep other threads away.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED);
    }
}
