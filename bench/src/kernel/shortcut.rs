//! The least that redirects: each socket goes into a map of sockets once it is established, and what is written to it goes to the socket of
//! the other end, if that is there. No check, no account, and nothing for what such a map does not carry: what it gains no data plane can
//! surpass. IPv4 alone.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData, SockHash},
    programs::{CgroupAttachMode, SkMsg, SockOps},
};

use super::assemble::{EXIT, Instruction, PASS, object_file};

/// Local and remote address, local and remote port.
type Key = [u8; 16];

const SOCKETS: u32 = 65536;
/// `BPF_MAP_TYPE_SOCKHASH`
const SOCKHASH: u32 = 18;

/// The programs, attached until it is dropped.
pub struct Shortcut {
    #[expect(dead_code, reason = "the kernel detaches what no one holds")]
    programs: Ebpf,
    sockets: SockHash<MapData, Key>,
}

impl Shortcut {
    /// Loads the programs and attaches them, one to a cgroup and one to the map of its sockets.
    pub fn attach(cgroup: &Path) -> Result<Self> {
        let map = aya_obj::Map::new_from_params(SOCKHASH, size_of::<Key>() as u32, 4, SOCKETS, 0);
        let map = MapData::create(map, "shortcut", None).context("making a map of sockets")?;
        let number = map.fd().as_fd().as_raw_fd();
        let sockets = SockHash::try_from(Map::SockHash(map)).context("a map of sockets")?;
        let object = object_file(&[
            ("sockops", "shortcut_enter", &[ESTABLISHED, &enter(number)].concat()),
            ("sk_msg", "shortcut_send", &send(number)),
        ])?;
        let mut programs = Ebpf::load(&object).context("loading programs that redirect")?;
        let message: &mut SkMsg = programs.program_mut("shortcut_send").context("a program")?.try_into()?;
        message.load().and_then(|()| message.attach(sockets.fd())).context("attaching the program of messages")?;
        let cgroup = File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
        let socket: &mut SockOps = programs.program_mut("shortcut_enter").context("a program")?.try_into()?;
        let attached = socket.load().and_then(|()| socket.attach(cgroup, CgroupAttachMode::Single));
        attached.context("attaching the program of sockets")?;
        Ok(Self { programs, sockets })
    }

    /// Counts the sockets that are redirected now.
    pub fn joined(&self) -> usize {
        self.sockets.keys().count()
    }
}

/// Goes on only at ACTIVE_ESTABLISHED_CB and PASSIVE_ESTABLISHED_CB.
const ESTABLISHED: &[Instruction] = &[
    // r2 = ops->op
    (0x61, 0x12, 0, 0),
    (0x15, 2, 3, 4),
    (0x15, 2, 2, 5),
    PASS,
    EXIT,
];

/// bpf_sock_hash_update(ops, map, key, BPF_ANY), the key as the socket itself sees it.
fn enter(map: i32) -> Vec<Instruction> {
    call(map, [(28, 0), (24, 4), (68, 8), (64, 12)], 0, 70)
}

/// bpf_msg_redirect_hash(message, map, key, BPF_F_INGRESS), the key as the other end sees itself. One that is not there leaves the message
/// to TCP.
fn send(map: i32) -> Vec<Instruction> {
    call(map, [(20, 0), (24, 4), (64, 12), (60, 8)], 1, 71)
}

/// Calls a helper with the context, a map, a key and flags. The key is made of fields of the context, each with its place in it; the last
/// is the remote port, which stands there in network order.
fn call(map: i32, key: [(i16, i16); 4], flags: i32, helper: i32) -> Vec<Instruction> {
    const KEY: i16 = -(size_of::<Key>() as i16);
    // r6 = the context
    let mut code = vec![(0xbf, 0x16, 0, 0)];
    for (n, (field, place)) in key.into_iter().enumerate() {
        // r2 = a field
        code.push((0x61, 0x62, field, 0));
        if n == key.len() - 1 {
            // r2 = be32(r2)
            code.push((0xdc, 2, 0, 32));
        }
        // *(u32 *)(r10 + ...) = r2
        code.push((0x63, 0x2a, KEY + place, 0));
    }
    code.extend([
        (0xbf, 0x61, 0, 0),
        // r2 = the map of that number
        (0x18, 0x12, 0, map),
        (0, 0, 0, 0),
        // r3 = the key
        (0xbf, 0xa3, 0, 0),
        (0x07, 3, 0, KEY.into()),
        (0xb7, 4, 0, flags),
        (0x85, 0, 0, helper),
        PASS,
        EXIT,
    ]);
    code
}
