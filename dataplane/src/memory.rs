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

/// Gives memory back to the system that starting took and running does not: free heap, and code that ran once.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
    let _ = forget_code();
}

/// Unmaps the pages of our own code; what is used again is mapped again from the page cache, the rest is not ours to keep.
fn forget_code() -> std::io::Result<()> {
    unsafe extern "C" {
        // Made by the linker: the begin of the program's file in memory, and the end of its code.
        static __executable_start: u8;
        static etext: u8;
    }
    let (begin, end) = ((&raw const __executable_start).addr(), (&raw const etext).addr());
    // SAFETY: the call touches no memory.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let (begin, end) = (begin.next_multiple_of(page), end / page * page);
    // SAFETY: the range is mapped read-only from our program's file and never written, so its pages come back as they were.
    let result = unsafe { libc::madvise(std::ptr::without_provenance_mut(begin), end - begin, libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
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

#[cfg(test)]
mod tests {
    #[test]
    fn code_that_was_forgotten_still_runs() {
        super::forget_code().unwrap();
        super::give_back();
        assert_eq!("forgotten".len(), 9);
    }
}
