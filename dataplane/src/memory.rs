//! Keeps the process small.

/// Heaps that threads share. By default each thread gets one of its own, and each keeps what it once needed.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// What is at least this large, bytes, goes back to the system once it is free. By default the limit rises with what was freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 256 << 10;

/// Has threads share few heaps that keep nothing large; to be called before the first thread is started.
pub fn small_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls set parameters of the allocator and touch no memory of ours.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives memory back to the system that starting took and running does not.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Allows as many open files as the system lets us have: one for each enrolled namespace and connection.
pub fn many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // The limit that we have may do; what does not fit is told where it happens.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
