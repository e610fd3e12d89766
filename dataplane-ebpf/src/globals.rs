//! What the loader knew before the programs were verified.

use abi::globals::{Globals, Offsets};

#[unsafe(no_mangle)]
pub(crate) static GLOBALS: Globals = Globals {
    host_netns: 0,
    report_interval: 0,
    manage_all: 0,
    has_set_retval: 0,
    adopt_history: 0,
    carried_bytes: 0,
    rings: 0,
    ring_slots: 0,
    offsets: Offsets {
        family: 0,
        state: 0,
        flags: 0,
        remote_v4: 0,
        local_v4: 0,
        remote_v6: 0,
        local_v6: 0,
        remote_port: 0,
        local_port: 0,
        error: 0,
        route: 0,
        lock: 0,
        owned: 0,
        bytes_acked: 0,
        bytes_received: 0,
        snd_una: 0,
        snd_nxt: 0,
        write_seq: 0,
        bytes_sent: 0,
        bytes_retrans: 0,
        callbacks: 0,
        total_retrans: 0,
        lost: 0,
        segs_in: 0,
        segs_out: 0,
        srtt_us: 0,
        mdev_us: 0,
        rtt_min: 0,
        mss_cache: 0,
        snd_cwnd: 0,
        rcv_nxt: 0,
        copied_seq: 0,
        cookie: 0,
        unread: 0,
        low_mark: 0,
        socket: 0,
        file: 0,
        file_flags: 0,
        user_data: 0,
        redirected: 0,
        zero_copy: 0,
        reserved: 0,
    },
};

/// Reads one field of the global. The compiler must not use the zero it sees here; the verifier knows the value the loader put there.
macro_rules! global {
    ($($field:tt).+) => {
        $crate::globals::read(&raw const $crate::globals::GLOBALS.$($field).+)
    };
}
pub(crate) use global;

/// Reads what `global!` names.
#[inline(always)]
pub(crate) fn read<T: Copy>(field: *const T) -> T {
    // SAFETY: only `global!` calls this, with a field of a static that nothing writes while programs run.
    unsafe { field.read_volatile() }
}
