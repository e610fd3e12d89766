//! Commands of the `bpf` system call that the library at hand keeps to itself: links, what pins are, and iterators.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_ATTACH: libc::c_long = 8;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const MAP_DELETE_BATCH: libc::c_long = 27;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const ITER_CREATE: libc::c_long = 33;
const LINK_DETACH: libc::c_long = 34;

/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP: u32 = 3;
/// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
const ITERATOR: u32 = 28;
/// `BPF_SK_MSG_VERDICT` of it.
const MESSAGE: u32 = 7;

/// The part that `BPF_MAP_UPDATE_BATCH` and `BPF_MAP_DELETE_BATCH` read; they write `count`.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part that `BPF_PROG_ATTACH` reads.
#[repr(C)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// `union bpf_iter_link_info`.
#[repr(C)]
struct IterInfo {
    map_fd: u32,
    rest: [u32; 3],
}

/// The part that `BPF_ITER_CREATE` reads.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// The part that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The part that `BPF_OBJ_PIN` and `BPF_OBJ_GET` read.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` of a cgroup's link.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    rest: u32,
}

/// Puts entries into a hash map of these sizes, by one call for all of them. An error comes with how many were put there before.
pub(super) fn insert_all<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    keys: &[[u8; K]],
    values: &[[u8; V]],
) -> Result<(), (usize, io::Error)> {
    let count = keys.len().min(values.len());
    // SAFETY: so many keys and values, of the map's sizes, outlive the call.
    unsafe { batch(MAP_UPDATE_BATCH, map, keys[..count].as_flattened(), values.as_flattened(), count) }
}

/// Removes entries from a hash map whose keys have this size, by one call for all of them. What is not there is passed over.
pub(super) fn remove_all<const K: usize>(map: BorrowedFd<'_>, mut keys: &[[u8; K]]) -> io::Result<()> {
    loop {
        // SAFETY: the keys, of the map's size, outlive the call.
        match unsafe { batch(MAP_DELETE_BATCH, map, keys.as_flattened(), &[], keys.len()) } {
            Err((removed, error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                keys = keys.get(removed + 1..).unwrap_or_default();
            }
            done => return done.map_err(|(_, error)| error),
        }
    }
}

/// # Safety
/// There are `count` keys, and values if the command reads any, of the map's sizes.
unsafe fn batch(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> Result<(), (usize, io::Error)> {
    if count == 0 {
        return Ok(());
    }
    let mut attributes = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count: count as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    let attributes = &raw mut attributes;
    // SAFETY: the command reads this part of the attributes, and writes to `count`, which no reference holds on to; the rest is passed on from
    // the caller.
    unsafe {
        let done = libc::syscall(libc::SYS_bpf, command, attributes, size_of::<Batch>());
        if done < 0 { Err(((*attributes).count as usize, io::Error::last_os_error())) } else { Ok(()) }
    }
}

/// Attaches a program to a cgroup. The link lives as long as what is returned, or a pin of it.
pub(super) fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let (prog_fd, target_fd) = (program.as_raw_fd() as u32, cgroup.as_raw_fd() as u32);
    let attributes = LinkCreate { prog_fd, target_fd, attach_type, ..LinkCreate::default() };
    // SAFETY: the command reads this part of the attributes.
    unsafe { command(LINK_CREATE, &attributes) }.map(descriptor)
}

/// Makes a program that of all sockets that a map will take; those that it has keep theirs. The map holds the program as long as it lives.
pub(super) fn attach_to_sockets(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let (target_fd, attach_bpf_fd) = (map.as_raw_fd() as u32, program.as_raw_fd() as u32);
    // SAFETY: the command reads this part of the attributes.
    unsafe { command(PROG_ATTACH, &ProgAttach { target_fd, attach_bpf_fd, attach_type: MESSAGE, attach_flags: 0 }) }
        .map(drop)
}

/// Links an iterator program, to a map where it is over one. The link lives as long as what is returned.
pub(super) fn link_iterator(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let info = map.map(|map| IterInfo { map_fd: map.as_raw_fd() as u32, rest: [0; 3] });
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: ITERATOR,
        iter_info: info.as_ref().map_or(0, |info| std::ptr::from_ref(info).expose_provenance() as u64),
        iter_info_len: info.as_ref().map_or(0, |_| size_of::<IterInfo>() as u32),
        ..LinkCreate::default()
    };
    // SAFETY: the command reads this part of the attributes, and `info`, which outlives the call.
    unsafe { command(LINK_CREATE, &attributes) }.map(descriptor)
}

/// Begins a walk with an iterator's link. Read it to the end.
pub(super) fn begin_iteration(link: BorrowedFd<'_>) -> io::Result<File> {
    let attributes = IterCreate { link_fd: link.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the command reads this part of the attributes.
    unsafe { command(ITER_CREATE, &attributes) }.map(descriptor).map(File::from)
}

/// Walks with an iterator that has no output, from begin to end.
pub(super) fn iterate(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut walk = begin_iteration(link)?;
    loop {
        match walk.read(&mut [0]) {
            Ok(_) => return Ok(()),
            // EAGAIN: a million sockets in a row.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts a program in the place of a link's present one: the next event runs it, the one before the old.
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link_fd, new_prog_fd) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    // SAFETY: the command reads this part of the attributes.
    unsafe { command(LINK_UPDATE, &LinkUpdate { link_fd, new_prog_fd, flags: 0, old_prog_fd: 0 }) }.map(drop)
}

/// Detaches a link's program, whoever holds the link.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the command reads the descriptor alone.
    unsafe { command(LINK_DETACH, &(link.as_raw_fd() as u32)) }.map(drop)
}

/// Returns the id of the cgroup and the attach type of a cgroup's link; the id is 0 once the cgroup is gone. Nothing where the
/// descriptor is something else.
pub(super) fn cgroup_of(link: BorrowedFd<'_>) -> Option<(u64, u32)> {
    // What is no link would be described in another form. A link that was just made is called bpf_link, one that was pinned bpf-link.
    let is = std::fs::read_link(format!("/proc/self/fd/{}", link.as_raw_fd())).ok()?;
    if ![b"bpf_link", b"bpf-link"].iter().any(|name| is.as_os_str().as_bytes().ends_with(*name)) {
        return None;
    }
    let mut found = LinkInfo::default();
    let attributes = GetInfo {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<LinkInfo>() as u32,
        info: (&raw mut found).expose_provenance() as u64,
    };
    // SAFETY: the command writes at most `info_len` bytes to `found`, which outlives the call.
    unsafe { command(OBJ_GET_INFO_BY_FD, &attributes) }.ok()?;
    (found.kind == CGROUP).then_some((found.cgroup_id, found.attach_type))
}

/// Gives a map or link a name in the bpf file system, by which it lives on.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        Object { pathname: name.as_ptr().expose_provenance() as u64, bpf_fd: object.as_raw_fd() as u32, file_flags: 0 };
    // SAFETY: the command reads this part of the attributes, and the name, which outlives the call.
    unsafe { command(OBJ_PIN, &attributes) }.map(drop)
}

/// Opens what has a name in the bpf file system.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Object { pathname: name.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: as above.
    unsafe { command(OBJ_GET, &attributes) }.map(descriptor)
}

/// # Safety
/// The command reads nothing beyond `attributes`, and reads and writes what they point to as that allows.
unsafe fn command<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: passed on from the caller.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned as i32) }
}

fn descriptor(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
