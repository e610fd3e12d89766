//! Every map but the socket storage. The loader sets the sizes; those here are the defaults.

use abi::{
    Record,
    joined::{Joined, Seeker, View},
    maps as sizes,
    ring::{Cursor, Slot},
    steering::{EndpointKey, EndpointValue, ServiceKey, ServiceValue, WaypointKey},
    sum::{Sum, SumKey},
};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf, SockHash},
};

use crate::fair::Share;

/// Key of the maps of records that found the ring full.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AsideKey {
    pub(crate) cookie: u64,
    pub(crate) start_ns: u64,
}

/// The per-CPU counters of one CPU.
pub(crate) type Counters = [u64; sizes::counter::COUNT as usize];

#[map]
pub(crate) static MANAGER: HashMap<u64, u32> = HashMap::with_max_entries(sizes::MANAGER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static SIGNALLED: HashMap<u64, u32> = HashMap::with_max_entries(sizes::MANAGER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static SERVICES: HashMap<ServiceKey, ServiceValue> =
    HashMap::with_max_entries(sizes::SERVICE_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ENDPOINTS: HashMap<EndpointKey, EndpointValue> =
    HashMap::with_max_entries(sizes::ENDPOINT_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static WAYPOINTS: HashMap<WaypointKey, u32> =
    HashMap::with_max_entries(sizes::WAYPOINT_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static RING: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static CURSORS: Array<Cursor> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static DOORBELL: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
pub(crate) static ASIDE: HashMap<AsideKey, Record> = HashMap::with_max_entries(sizes::ASIDE_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static UNTOLD: HashMap<AsideKey, Record> =
    HashMap::with_max_entries(sizes::UNTOLD_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static SUMS: HashMap<SumKey, Sum> = HashMap::with_max_entries(sizes::SUM_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static SHARES: LruPerCpuHashMap<u64, Share> = LruPerCpuHashMap::with_max_entries(sizes::SHARE_ENTRIES, 0);
#[map]
pub(crate) static QUIET: Array<u64> = Array::with_max_entries(sizes::QUIET_ENTRIES, BPF_F_MMAPABLE);
#[map]
pub(crate) static SOCKETS: SockHash<u64> = SockHash::with_max_entries(sizes::JOINED_ENTRIES, 0);
#[map]
pub(crate) static JOINED: HashMap<u64, Joined> = HashMap::with_max_entries(sizes::JOINED_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static SEEKERS: LruHashMap<View, Seeker> = LruHashMap::with_max_entries(sizes::SEEKER_ENTRIES, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static SETTINGS: Array<u64> = Array::with_max_entries(sizes::setting::COUNT, 0);

/// Reads a run-time setting.
#[inline(always)]
pub(crate) fn setting(slot: u32) -> u64 {
    match SETTINGS.get_ptr(slot) {
        // SAFETY: an array's element lives as long as the map; user space may change it at any time, hence volatile.
        Some(value) => unsafe { value.read_volatile() },
        None => 0,
    }
}

/// Writes a run-time setting, one that user space leaves to the program that calls this.
#[inline(always)]
pub(crate) fn set_setting(slot: u32, value: u64) {
    if let Some(setting) = SETTINGS.get_ptr_mut(slot) {
        // SAFETY: as above.
        unsafe { setting.write_volatile(value) };
    }
}
