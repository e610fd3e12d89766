//! What a waypoint is told before the first byte of a connection: which address was dialled.

use abi::{
    Endpoint,
    address::MAPPED_PREFIX,
    maps::setting::METADATA,
    steering::metadata,
    storage::{Storage, flags},
};
use aya_ebpf::programs::SkMsgContext;

use crate::{maps::setting, sock::TcpSock, storage};

/// The largest form: PROXY protocol over IPv6.
const MOST: usize = 16 + 36;
/// PROXY protocol, version 2: the signature, and "version 2, a connection on behalf of somebody" (section 2.2).
const PROXY: [u8; 13] = *b"\r\n\r\n\0\r\nQUIT\n\x21";
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// Kmesh's form: the type of "original destination", and that of the end.
const ORIGINAL: u8 = 1;
const END: u8 = 0xfe;

/// The kernel had no memory for it: data without it would be taken for it.
pub(super) struct NoRoom;

/// Puts the header before what is sent, once, if the connection is on its way to a waypoint that is to be told; tells whether it did. It is no payload.
///
/// # Safety
/// The socket is the context's, `kept` is the socket's.
#[inline(always)]
pub(super) unsafe fn push(ctx: &SkMsgContext, tcp: TcpSock, kept: *mut Storage) -> Result<bool, NoRoom> {
    // SAFETY: passed on from the caller; the socket's lock is held, so that its program runs once at a time.
    unsafe {
        if (*kept).flags & (flags::WAYPOINT | flags::TOLD_WAYPOINT) != flags::WAYPOINT {
            return Ok(false);
        }
        let is_v4 = (*kept).original.address.first_chunk() == Some(&MAPPED_PREFIX);
        let pushed = match (setting(METADATA), is_v4) {
            (metadata::PROXY, true) => write::<{ 16 + 12 }>(ctx, |to| proxy(to, tcp, kept)),
            (metadata::PROXY, false) => write::<{ 16 + 36 }>(ctx, |to| proxy(to, tcp, kept)),
            (metadata::TLV, true) => write::<{ 10 + 4 + 2 }>(ctx, |to| tlv(to, kept)),
            (metadata::TLV, false) => write::<{ 10 + 16 + 2 }>(ctx, |to| tlv(to, kept)),
            _ => return Ok(false),
        }?;
        (*kept).base.sent += pushed;
        storage::set_flags(kept, flags::TOLD_WAYPOINT);
    }
    Ok(true)
}

/// Makes room for so many bytes and fills it.
#[inline(always)]
fn write<const N: usize>(ctx: &SkMsgContext, fill: impl FnOnce(&mut [u8; MOST])) -> Result<u64, NoRoom> {
    let mut header = [0; MOST];
    fill(&mut header);
    ctx.push_data(0, N as u32, 0).map_err(|_| NoRoom)?;
    let (begin, end) = (ctx.data(), ctx.data_end());
    if begin + N > end {
        return Err(NoRoom);
    }
    let to = core::ptr::with_exposed_provenance_mut::<u8>(begin);
    for (i, byte) in header.iter().enumerate().take(N) {
        // SAFETY: there are so many bytes, which the comparison above has told the verifier too.
        unsafe { to.add(i).write_volatile(*byte) };
    }
    Ok(N as u64)
}

/// PROXY protocol, version 2: who connects, and what was dialled.
#[inline(always)]
fn proxy(to: &mut [u8; MOST], tcp: TcpSock, kept: *const Storage) {
    // SAFETY: the storage is the socket's; a local variable stands at an even address.
    let (source, dialled) = unsafe {
        let mut source = Endpoint::default();
        tcp.write_local(tcp.family(), &raw mut source);
        (source, (*kept).original)
    };
    to[..13].copy_from_slice(&PROXY);
    if dialled.address.first_chunk() == Some(&MAPPED_PREFIX) {
        (to[13], to[15]) = (TCP_OVER_IPV4, 12);
        to[16..20].copy_from_slice(&source.address[12..]);
        to[20..24].copy_from_slice(&dialled.address[12..]);
        to[24..26].copy_from_slice(&source.port);
        to[26..28].copy_from_slice(&dialled.port);
    } else {
        (to[13], to[15]) = (TCP_OVER_IPV6, 36);
        to[16..32].copy_from_slice(&source.address);
        to[32..48].copy_from_slice(&dialled.address);
        to[48..50].copy_from_slice(&source.port);
        to[50..52].copy_from_slice(&dialled.port);
    }
}

/// Kmesh's form: type, length, address and port of what was dialled; then type and length of the end.
#[inline(always)]
fn tlv(to: &mut [u8; MOST], kept: *const Storage) {
    // SAFETY: the storage is the socket's.
    let dialled = unsafe { (*kept).original };
    to[0] = ORIGINAL;
    if dialled.address.first_chunk() == Some(&MAPPED_PREFIX) {
        to[4] = 6;
        to[5..9].copy_from_slice(&dialled.address[12..]);
        to[9..11].copy_from_slice(&dialled.port);
        to[11] = END;
    } else {
        to[4] = 18;
        to[5..21].copy_from_slice(&dialled.address);
        to[21..23].copy_from_slice(&dialled.port);
        to[23] = END;
    }
}
