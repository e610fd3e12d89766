//! The kernel programs of meshd: steering of connects and observation of connections.
//!
//! One hook, one file. On any other target than BPF the crate still compiles, so that `cargo check --workspace` sees all of it and the
//! logic that needs no kernel has unit tests; what it builds there does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "atomics that return the old value have no stable name on BPF")
)]

#[cfg(target_endian = "big")]
compile_error!("words are put together here as a little-endian machine has them in memory");

mod aside;
mod counters;
mod fair;
mod globals;
mod joined;
mod managed;
mod maps;
mod record;
mod ring;
mod sock;
mod steering;
mod storage;
mod telemetry;
mod walk;

/// What the kernel reads as the licence of every program here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
