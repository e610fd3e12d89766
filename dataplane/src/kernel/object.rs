//! The object with all programs: loaded into maps and, one by one, into the kernel.

use std::{fs::File, os::fd::AsFd as _};

use abi::{
    globals::{GLOBALS, Globals},
    maps as sizes,
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use zerocopy::IntoBytes as _;

use super::{Options, btf, carry::Older, explain, links, netns, pins::Pins, reuse, ring};

/// The programs as the build script made them.
pub(super) static BYTES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Makes the maps, or opens those that are pinned, and tells the programs what they have to know; none of them is in the kernel yet.
/// Without pins the maps are made to be tried out. `older` is another version, the storage of whose sockets goes on.
pub(super) fn load(options: &Options, types: &btf::Types, pins: Option<&Pins>, older: &Older) -> Result<Ebpf> {
    let size = ring::Size::of(options)?;
    let globals = Globals { carried_bytes: older.carried_bytes(), ..globals(options, types, size)? };
    let mut loader = EbpfLoader::new();
    for (name, pins) in reuse::PINNED.into_iter().zip(std::iter::repeat(pins)) {
        pins.map(|pins| loader.map_pin_path(name, pins.map(name)));
    }
    if let Some(path) = older.storage() {
        loader.map_pin_path(sizes::OLDER_STORAGE, path);
    }
    loader
        .btf(None)
        .override_global(GLOBALS, globals.as_bytes(), true)
        .map_max_entries(sizes::RING, size.entries())
        .map_max_entries(sizes::CURSORS, size.rings)
        .map_max_entries(sizes::ASIDE, options.max_connections)
        .map_max_entries(sizes::UNTOLD, options.untold())
        .map_max_entries(sizes::SERVICES, options.max_services)
        .map_max_entries(sizes::ENDPOINTS, options.max_endpoints)
        .load(BYTES)
        .map_err(|error| explain::load(error.into(), "make the maps"))
}

fn globals(options: &Options, types: &btf::Types, size: ring::Size) -> Result<Globals> {
    Ok(Globals {
        host_netns: netns::host_netns_cookie(&options.proc)?,
        report_interval: u64::try_from(options.report_interval.as_nanos()).unwrap_or(u64::MAX)
            >> abi::storage::REPORTED_SHIFT,
        manage_all: options.manage_all.into(),
        has_set_retval: types.has_helper("BPF_FUNC_set_retval").into(),
        adopt_history: options.adopt_history.into(),
        carried_bytes: 0,
        rings: size.rings,
        ring_slots: size.slots,
        offsets: types.offsets()?,
    })
}

/// The steering programs.
pub(super) const STEERING: [&str; 2] = ["connect4", "connect6"];

/// Loads and attaches what steers.
pub(super) fn attach_steering(ebpf: &mut Ebpf, cgroup: &File, pins: &Pins) -> Result<()> {
    for name in STEERING {
        attach(ebpf, name, cgroup, pins)?;
    }
    Ok(())
}

/// Loads a cgroup program and attaches it, in the place of the one that is attached under its name, if one is.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, cgroup: &File, pins: &Pins) -> Result<()> {
    load_program(ebpf, name).map_err(|error| explain::load(error, &format!("load the program {name}")))?;
    let program = ebpf.program(name).context("it was loaded just now")?;
    links::attach(pins, name, program.fd()?.as_fd(), cgroup, attach_type(name)?)
}

/// Where a program is attached, by its number in `enum bpf_attach_type`.
fn attach_type(name: &str) -> Result<u32> {
    Ok(match name {
        "packet_ingress" => 0,
        "packet_egress" => 1,
        "lifecycle" | "waypoint" => 3,
        "connect4" => 10,
        "connect6" => 11,
        "release" => 34,
        _ => anyhow::bail!("{name} is not attached to a cgroup"),
    })
}

/// Loads one cgroup program.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("there is no program {name}"))?;
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }?;
    Ok(())
}
