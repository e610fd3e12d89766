//! Keeps the process small.

/// Heaps that threads share. By default each thread gets one of its own, and each keeps what it once needed.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Has threads share few heaps; to be called before the first thread is started.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a parameter of the allocator and touches no memory of ours.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
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
