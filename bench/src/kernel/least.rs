//! The least that can be attached: programs on the same hooks, run as often, that only return. What they cost no data plane can undercut.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::MapData,
    programs::{CgroupAttachMode, Program},
};

use super::{
    assemble::{EXIT, Instruction, PASS, object_file},
    sockets,
};

/// The programs, attached until it is dropped.
#[derive(Debug)]
pub struct Least {
    #[expect(dead_code, reason = "the kernel detaches what no one holds")]
    programs: Ebpf,
}

impl Least {
    /// Loads the programs and attaches them to a cgroup.
    pub fn attach(cgroup: &Path) -> Result<Self> {
        let object = object_file(&[
            ("cgroup/connect4", "least_connect4", RETURN),
            ("cgroup/sock_release", "least_release", RETURN),
            ("sockops", "least_lifecycle", FOLLOW),
        ])?;
        Self::load(&object, cgroup)
    }

    /// Loads a program that gives the socket of each connect a storage and does nothing else, and attaches it to a cgroup. The storage is that
    /// of a `meshd` which steers alone, and so makes none itself.
    pub fn attach_keeper(cgroup: &Path, meshd: u32) -> Result<Self> {
        let storage = MapData::from_id(sockets::storage(meshd)?.id()).context("opening the socket storage of meshd")?;
        let keep = keep(storage.fd().as_fd().as_raw_fd());
        Self::load(&object_file(&[("cgroup/connect4", KEEPER, &keep)])?, cgroup)
    }

    fn load(object: &[u8], cgroup: &Path) -> Result<Self> {
        let mut programs = Ebpf::load(object).context("loading programs")?;
        let cgroup = std::fs::File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
        let mode = CgroupAttachMode::Single;
        for (name, program) in programs.programs_mut() {
            let loaded = match program {
                Program::CgroupSockAddr(program) => {
                    program.load().and_then(|()| program.attach(&cgroup, mode)).map(drop)
                }
                Program::CgroupSock(program) => program.load().and_then(|()| program.attach(&cgroup, mode)).map(drop),
                Program::SockOps(program) => program.load().and_then(|()| program.attach(&cgroup, mode)).map(drop),
                _ => bail!("{name} is of no kind that is attached here"),
            };
            loaded.with_context(|| format!("attaching {name}"))?;
        }
        Ok(Self { programs })
    }
}

/// Name of the program that only makes a storage.
pub const KEEPER: &str = "least_keeper";

/// bpf_sk_storage_get(map, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE)
fn keep(map: i32) -> Vec<Instruction> {
    vec![
        // r2 = ctx->sk
        (0x79, 0x12, 64, 0),
        (0x15, 2, 5, 0),
        // r1 = the map of that number
        (0x18, 0x11, 0, map),
        (0, 0, 0, 0),
        (0xb7, 3, 0, 0),
        (0xb7, 4, 0, 1),
        (0x85, 0, 0, 107),
        PASS,
        EXIT,
    ]
}

const RETURN: &[Instruction] = &[PASS, EXIT];

/// Asks for the changes of state of each connection, as who counts connections must, and does nothing with them.
const FOLLOW: &[Instruction] = &[
    // r2 = ops->op
    (0x61, 0x12, 0, 0),
    // Neither TCP_CONNECT_CB nor PASSIVE_ESTABLISHED_CB: go to the end.
    (0x15, 2, 1, 3),
    (0x55, 2, 2, 5),
    // bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG)
    (0xb7, 2, 0, 4),
    (0x85, 0, 0, 59),
    PASS,
    EXIT,
];
