//! Where the running kernel keeps the fields that the programs read, from its own type information (BTF).

use std::collections::HashMap;

use abi::globals::{NONE, Offsets};
use anyhow::{Context as _, Result, bail, ensure};

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;

/// The kernel's type information, indexed.
#[derive(Debug)]
pub(super) struct Types {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type stands in `bytes`; type 0 is `void`.
    types: Vec<u32>,
}

/// Reads the running kernel's types.
pub(super) fn kernel() -> Result<Types> {
    let bytes = std::fs::read(PATH)
        .with_context(|| format!("cannot read {PATH}: meshd needs a kernel built with CONFIG_DEBUG_INFO_BTF"))?;
    Types::parse(bytes).with_context(|| format!("{PATH} is not what it should be"))
}

impl Types {
    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let header = |at: usize| word(&bytes, at);
        ensure!(bytes.get(..2) == Some(&MAGIC.to_le_bytes()), "wrong magic number");
        let after = header(4)? as usize;
        let begin = after + header(8)? as usize;
        let end = begin + header(12)? as usize;
        let strings = after + header(16)? as usize;
        let mut types = vec![0];
        let mut at = begin;
        while at < end {
            types.push(u32::try_from(at).context("too long")?);
            let info = word(&bytes, at + 4)?;
            at += 12 + trailing(info >> 24 & 0x1f, (info & 0xffff) as usize)?;
        }
        Ok(Self { bytes, strings, types })
    }

    /// Finds every field the programs read.
    pub(super) fn offsets(&self) -> Result<Offsets> {
        let structs = self.structs(&["sock", "tcp_sock", "socket", "file"])?;
        let psock = self.structs(&["sk_psock"]).ok();
        let psock =
            |path: &str| psock.as_ref().and_then(|found| self.offset(found["sk_psock"], path).ok()).unwrap_or(NONE);
        let sock = |path: &str| self.offset(structs["sock"], path).with_context(|| missing("sock", path));
        let tcp = |path: &str| self.offset(structs["tcp_sock"], path).with_context(|| missing("tcp_sock", path));
        let other =
            |name: &'static str, path: &str| self.offset(structs[name], path).with_context(|| missing(name, path));
        Ok(Offsets {
            family: sock("__sk_common.skc_family")?,
            state: sock("__sk_common.skc_state")?,
            flags: sock("__sk_common.skc_flags")?,
            remote_v4: sock("__sk_common.skc_daddr")?,
            local_v4: sock("__sk_common.skc_rcv_saddr")?,
            remote_v6: sock("__sk_common.skc_v6_daddr").unwrap_or(NONE),
            local_v6: sock("__sk_common.skc_v6_rcv_saddr").unwrap_or(NONE),
            remote_port: sock("__sk_common.skc_dport")?,
            local_port: sock("__sk_common.skc_num")?,
            error: sock("sk_err")?,
            route: sock("sk_dst_cache")?,
            lock: sock("sk_lock.slock")?,
            owned: sock("sk_lock.owned")?,
            bytes_acked: tcp("bytes_acked")?,
            bytes_received: tcp("bytes_received")?,
            snd_una: tcp("snd_una")?,
            snd_nxt: tcp("snd_nxt")?,
            write_seq: tcp("write_seq")?,
            bytes_sent: tcp("bytes_sent")?,
            bytes_retrans: tcp("bytes_retrans")?,
            callbacks: tcp("bpf_sock_ops_cb_flags")?,
            total_retrans: tcp("total_retrans")?,
            lost: tcp("lost")?,
            segs_in: tcp("segs_in")?,
            segs_out: tcp("segs_out")?,
            srtt_us: tcp("srtt_us")?,
            mdev_us: tcp("mdev_us")?,
            rtt_min: tcp("rtt_min.s.v")?,
            mss_cache: tcp("mss_cache")?,
            snd_cwnd: tcp("snd_cwnd")?,
            rcv_nxt: tcp("rcv_nxt")?,
            copied_seq: tcp("copied_seq")?,
            cookie: sock("__sk_common.skc_cookie")?,
            unread: sock("sk_backlog.rmem_alloc")?,
            low_mark: sock("sk_rcvlowat")?,
            socket: sock("sk_socket")?,
            file: other("socket", "file")?,
            file_flags: other("file", "f_flags")?,
            user_data: sock("sk_user_data")?,
            redirected: psock("ingress_msg"),
            zero_copy: self.enumerator("SOCK_ZEROCOPY").context("the kernel's enum sock_flags has no SOCK_ZEROCOPY")?,
            reserved: 0,
        })
    }

    /// Tells whether the kernel has a helper, by its name in `enum bpf_func_id`.
    pub(super) fn has_helper(&self, name: &str) -> bool {
        let name = format!("\0{name}\0");
        self.bytes[self.strings.min(self.bytes.len())..].windows(name.len()).any(|found| found == name.as_bytes())
    }

    /// Finds the value of an enumerator.
    fn enumerator(&self, name: &str) -> Option<u32> {
        (1..self.types.len() as u32).filter(|id| self.kind(*id).is_ok_and(|kind| kind == KIND_ENUM)).find_map(|id| {
            let at = self.at(id).ok()?;
            let entries = word(&self.bytes, at + 4).ok()? as usize & 0xffff;
            let entry = (0..entries).map(|i| at + 12 + 8 * i);
            let mut named = entry.filter(|at| word(&self.bytes, *at).is_ok_and(|called| self.string_is(called, name)));
            word(&self.bytes, named.next()? + 4).ok()
        })
    }

    fn structs<'a>(&self, names: &[&'a str]) -> Result<HashMap<&'a str, u32>> {
        let mut found = HashMap::new();
        for id in 1..self.types.len() as u32 {
            if self.kind(id)? == KIND_STRUCT
                && let Some(name) = names.iter().find(|name| self.named(id, name))
            {
                found.entry(*name).or_insert(id);
            }
        }
        for name in names {
            ensure!(found.contains_key(name), "the kernel has no struct {name}");
        }
        Ok(found)
    }

    /// Finds the byte offset of a member by its path; unnamed structs and unions on the way are looked into, of an array the first
    /// element is meant.
    fn offset(&self, id: u32, path: &str) -> Result<u32> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let (bits, member) = self.member(id, name)?.with_context(|| format!("no member {name}"))?;
        ensure!(bits % 8 == 0, "{name} does not begin with a byte");
        let below = rest.map_or(Ok(0), |rest| self.offset(self.resolve(member)?, rest))?;
        Ok(bits / 8 + below)
    }

    fn member(&self, id: u32, name: &str) -> Result<Option<(u32, u32)>> {
        let at = self.at(id)?;
        let info = word(&self.bytes, at + 4)?;
        ensure!(matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION), "not a struct");
        for i in 0..(info & 0xffff) as usize {
            let entry = at + 12 + 12 * i;
            let (called, member, offset) =
                (word(&self.bytes, entry)?, word(&self.bytes, entry + 4)?, word(&self.bytes, entry + 8)?);
            // With bit 31 of `info` the upper byte is the width of a bit field.
            let bits = if info >> 31 == 1 { offset & 0x00ff_ffff } else { offset };
            if called == 0 {
                let inner = self.resolve(member)?;
                if matches!(self.kind(inner)?, KIND_STRUCT | KIND_UNION)
                    && let Some((below, found)) = self.member(inner, name)?
                {
                    return Ok(Some((bits + below, found)));
                }
            } else if self.string_is(called, name) {
                return Ok(Some((bits, member)));
            }
        }
        Ok(None)
    }

    /// Follows names and qualifiers, and arrays to their element.
    fn resolve(&self, mut id: u32) -> Result<u32> {
        const TYPEDEF_VOLATILE_CONST_RESTRICT_TAG: [u32; 5] = [8, 9, 10, 11, 18];
        for _ in 0..32 {
            let at = self.at(id)?;
            id = match self.kind(id)? {
                KIND_ARRAY => word(&self.bytes, at + 12)?,
                kind if TYPEDEF_VOLATILE_CONST_RESTRICT_TAG.contains(&kind) => word(&self.bytes, at + 8)?,
                _ => return Ok(id),
            };
        }
        bail!("types go round in a circle")
    }

    fn at(&self, id: u32) -> Result<usize> {
        self.types.get(id as usize).map(|at| *at as usize).with_context(|| format!("no type {id}"))
    }

    fn kind(&self, id: u32) -> Result<u32> {
        Ok(word(&self.bytes, self.at(id)? + 4)? >> 24 & 0x1f)
    }

    fn named(&self, id: u32, name: &str) -> bool {
        self.at(id).and_then(|at| word(&self.bytes, at)).is_ok_and(|called| self.string_is(called, name))
    }

    fn string_is(&self, offset: u32, name: &str) -> bool {
        let begin = self.strings + offset as usize;
        self.bytes.get(begin..begin + name.len()) == Some(name.as_bytes())
            && self.bytes.get(begin + name.len()) == Some(&0)
    }
}

fn missing(of: &str, path: &str) -> String {
    format!("this kernel's struct {of} has no {path}; meshd does not know this kernel")
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let found = bytes.get(at..at + 4).context("ends too early")?;
    Ok(u32::from_le_bytes([found[0], found[1], found[2], found[3]]))
}

/// Bytes behind the three words that every type begins with.
fn trailing(kind: u32, entries: usize) -> Result<usize> {
    Ok(match kind {
        2 | 7..=12 | 16 | 18 => 0,
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        KIND_ENUM | 13 => 8 * entries,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * entries,
        other => bail!("unknown kind of type {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernels_fields_are_found() {
        let types = kernel().expect("this kernel has type information");
        let offsets = types.offsets().expect("this kernel has every field");
        // What has been where it is since the oldest kernel that can be used.
        assert_eq!((offsets.remote_v4, offsets.local_v4), (0, 4));
        assert_eq!((offsets.remote_port, offsets.local_port), (12, 14));
        assert_eq!((offsets.family, offsets.state), (16, 18));
        assert!(offsets.bytes_acked > offsets.error);
        assert_eq!(types.enumerator("SOCK_DONE"), Some(1));
        assert!(types.has_helper("BPF_FUNC_skc_to_tcp_sock"));
        assert!(!types.has_helper("BPF_FUNC_skc_to"));
    }

    #[test]
    fn what_is_not_type_information_is_refused() {
        for bytes in [vec![], vec![0x9f], vec![0; 64], {
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            bytes.extend([24, 0, 0, 0].into_iter().chain([0xff; 16]));
            bytes
        }] {
            assert!(Types::parse(bytes).is_err());
        }
    }
}
