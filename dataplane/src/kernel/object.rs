//! The object with all programs: loaded into maps and, one by one, into the kernel.

use std::fs::File;

use abi::{
    globals::{GLOBALS, Globals},
    maps as sizes,
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError},
};
use zerocopy::IntoBytes as _;

use super::{Options, btf, explain, netns};

/// The programs as the build script made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Makes the maps and tells the programs what they have to know; none of them is in the kernel yet.
pub(super) fn load(options: &Options, types: &btf::Types) -> Result<Ebpf> {
    let globals = globals(options, types)?;
    EbpfLoader::new()
        .btf(None)
        .override_global(GLOBALS, globals.as_bytes(), true)
        .map_max_entries(sizes::RING, options.ring_bytes)
        .map_max_entries(sizes::ASIDE, options.max_connections)
        .map_max_entries(sizes::SERVICES, options.max_services)
        .map_max_entries(sizes::ENDPOINTS, options.max_endpoints)
        .load(OBJECT)
        .map_err(|error| explain::load(error.into(), "make the maps"))
}

fn globals(options: &Options, types: &btf::Types) -> Result<Globals> {
    Ok(Globals {
        host_netns: netns::host_netns_cookie(&options.proc)?,
        wake_bytes: u64::from(options.ring_bytes / 2),
        report_interval_ns: u64::try_from(options.report_interval.as_nanos()).unwrap_or(u64::MAX),
        manage_all: options.manage_all.into(),
        has_set_retval: types.has_helper("BPF_FUNC_set_retval").into(),
        offsets: types.offsets()?,
    })
}

/// The steering programs.
pub(super) const STEERING: [&str; 2] = ["connect4", "connect6"];

/// Loads and attaches what steers.
pub(super) fn attach_steering(ebpf: &mut Ebpf, cgroup: &File) -> Result<()> {
    for name in STEERING {
        attach(ebpf, name, cgroup)?;
    }
    Ok(())
}

/// Loads a cgroup program and attaches it. The link belongs to the program and ends with it.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, cgroup: &File) -> Result<()> {
    load_program(ebpf, name).map_err(|error| explain::load(error, &format!("load the program {name}")))?;
    let program = ebpf.program_mut(name).context("it was loaded just now")?;
    let mode = CgroupAttachMode::Single;
    let attached = match program {
        Program::CgroupSockAddr(program) => program.attach(cgroup, mode).map(drop),
        Program::CgroupSock(program) => program.attach(cgroup, mode).map(drop),
        Program::SockOps(program) => program.attach(cgroup, mode).map(drop),
        Program::CgroupSkb(program) => {
            let direction = match name {
                "packet_ingress" => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            program.attach(cgroup, direction, mode).map(drop)
        }
        other => {
            anyhow::bail!("{name} is a program of the kind {:?}, which is not attached to a cgroup", other.prog_type())
        }
    };
    attached.map_err(|error| explain::load(error.into(), &format!("attach the program {name} to the cgroup")))
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
