//! What becomes of a connection's end that finds the ring full: kept whole, added up, or lost and counted.

use abi::{
    Direction, Endpoint, Kind, Record, TcpState,
    maps::{
        counter::{ASIDE, LOST_CONNECTIONS, LOST_FAILED, LOST_RECEIVED, LOST_SENT, SUMMED},
        setting::EPOCH,
    },
    record::flags,
    storage::Told,
    sum::{KEY_OFFSET, SUM_OFFSET, Sum, SumKey},
};
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::{
    counters, fair,
    maps::{self, AsideKey, SUMS, UNTOLD, setting},
};

/// Keeps the end of a connection for user space. `told` is what that knows of the connection, nothing if it has never heard of it.
/// Tells whether it was kept.
///
/// An end that it has heard of must be told apart from all others: it has its map to itself. Others may as well be added up, since they
/// are in no number yet.
#[inline(always)]
pub(crate) fn put(record: &mut Record, told: Option<Told>) -> bool {
    record.flags |= flags::ASIDE;
    let key = AsideKey { cookie: record.cookie, start_ns: record.start_ns };
    let whole: &Record = record;
    let kept = match told {
        Some(_) => maps::ASIDE.insert(key, whole, BPF_NOEXIST.into()).is_ok(),
        None => fair::may_keep(whole.netns) && UNTOLD.insert(key, whole, BPF_NOEXIST.into()).is_ok(),
    };
    if kept {
        counters::add(ASIDE, 1);
        return true;
    }
    let (kind, sent, received) = (record.kind, record.sent, record.received);
    if told.is_none() && add_up(record) {
        counters::add(SUMMED, 1);
        return true;
    }
    let told = told.unwrap_or_default();
    counters::add(LOST_CONNECTIONS, 1);
    if kind == Kind::Failed as u32 {
        counters::add(LOST_FAILED, 1);
    }
    counters::add(LOST_SENT, sent.saturating_sub(told.sent));
    counters::add(LOST_RECEIVED, received.saturating_sub(told.received));
    false
}

/// Adds a record to the sum of its like, or, where its pod has begun too many sums, to that of all the pod's ends with whomever; tells
/// whether there was room. The record is used up: key and sum are made in its place, since
/// the stack has no room for more.
#[inline(always)]
fn add_up(record: &mut Record) -> bool {
    let by = Sum {
        sent: record.sent,
        received: record.received,
        retransmits: record.retransmits,
        lost: record.lost,
        connections: 1,
    };
    let (kind, netns) = (record.kind, record.netns);
    let flags = record.flags & (flags::RESET | flags::NO_HEALTHY_ENDPOINT | flags::ADOPTED);
    let error = if kind == Kind::Failed as u32 { record.error } else { 0 };
    let base = core::ptr::from_mut(record).cast::<u8>();
    // SAFETY: key and sum lie in the record, aligned and apart from each other, as `abi` asserts; all of the key is written but what the
    // record has at the same place. A value of a map stays valid while the program runs, and others add to it at the same time.
    unsafe {
        let key = base.add(KEY_OFFSET).cast::<SumKey>();
        let sum = base.add(SUM_OFFSET).cast::<Sum>();
        (*key).netns = netns;
        (*key).kind = kind;
        (*key).flags = flags;
        (*key).epoch = setting(EPOCH) as u32;
        (*key).error = error;
        (*key).state = TcpState::Close as u8;
        if (*key).direction == Direction::Outbound as u8 {
            (*key).local.port = [0; 2];
        } else {
            (*key).remote.port = [0; 2];
        }
        (*sum).connections = 1;
        for coarse in [false, true] {
            if coarse {
                (*key).remote = Endpoint { address: [0; 16], port: [0; 2] };
                (*key).original = Endpoint { address: [0; 16], port: [0; 2] };
            }
            let (key, first): (&SumKey, &Sum) = (&*key, &*sum);
            if add(key, &by) {
                return true;
            }
            // Another processor may be first.
            if (coarse || fair::may_begin(netns))
                && (SUMS.insert(key, first, BPF_NOEXIST.into()).is_ok() || add(key, &by))
            {
                return true;
            }
        }
    }
    false
}

/// Adds to a sum, if there is one.
#[inline(always)]
unsafe fn add(key: &SumKey, by: &Sum) -> bool {
    let Some(value) = SUMS.get_ptr_mut(key) else { return false };
    // SAFETY: the value stays valid while the program runs; others add to it at the same time.
    unsafe {
        counters::add_to(&raw mut (*value).sent, by.sent);
        counters::add_to(&raw mut (*value).received, by.received);
        counters::add_to(&raw mut (*value).retransmits, by.retransmits);
        counters::add_to(&raw mut (*value).lost, by.lost);
        counters::add_to(&raw mut (*value).connections, by.connections);
    }
    true
}
