//! Every map but the socket storage. The loader sets the sizes; those here are the defaults.

use abi::{
    Record, maps as sizes,
    steering::{EndpointKey, EndpointValue, ServiceKey, ServiceValue},
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

/// Key of the aside map.
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
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(sizes::RING_BYTES, 0);
#[map]
pub(crate) static ASIDE: HashMap<AsideKey, Record> = HashMap::with_max_entries(sizes::ASIDE_ENTRIES, BPF_F_NO_PREALLOC);
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
