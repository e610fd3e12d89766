//! Which endpoint a service address stands for.

use abi::{
    Endpoint,
    maps::setting::ANY_PORT,
    steering::{DIRECT, EndpointKey, ServiceKey, ServiceValue, WaypointKey, tag},
};
use aya_ebpf::helpers::bpf_get_prandom_u32;

use crate::{
    maps::{ENDPOINTS, SERVICES, WAYPOINTS, setting},
    sock::write_endpoint,
};

/// An address as two words in memory order, IPv4 as IPv4-mapped, and a port in network order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) port: u16,
}

impl Address {
    /// Writes the address as an endpoint.
    ///
    /// # Safety
    /// `to` may be written and stands at an even address.
    #[inline(always)]
    pub(crate) unsafe fn write(self, to: *mut Endpoint) {
        // SAFETY: passed on from the caller.
        unsafe { write_endpoint(to, self.first, self.second, self.port) };
    }
}

/// What steering decided.
#[derive(Clone, Copy)]
pub(crate) enum Choice {
    /// Nothing is known of the address: the connect goes where it wanted to.
    Unchanged,
    /// One of the service's endpoints.
    Backend(Address),
    /// An endpoint of the waypoint that stands before what was dialled.
    Waypoint(Address),
    /// The address is steered, and no endpoint can take the connect.
    NoBackend,
}

/// A changed set of endpoints is written before the service points to it and the old one removed after: who held on to the old number
/// looks again. A waypoint's own namespace looks once more.
const LOOKS: u32 = 4;

/// The stack is accessed in steps that need this alignment.
#[repr(C, align(8))]
struct Aligned<T>(T);

/// Looks a dialled address up and picks one of its endpoints at random, by weight.
#[inline(always)]
pub(crate) fn choose(netns: u64, dialled: Address) -> Choice {
    let mut key = Aligned(ServiceKey { dialled: Endpoint { address: [0; 16], port: [0; 2] }, way: [0; 2] });
    // SAFETY: the key is our own and aligned.
    unsafe { dialled.write(&raw mut key.0.dialled) };
    for _ in 0..LOOKS {
        let Some(service) = find(&mut key.0, dialled) else { return Choice::Unchanged };
        if service.waypoint != 0 && is_own(netns, service.waypoint) {
            key.0.dialled.port = dialled.port.to_ne_bytes();
            key.0.way = DIRECT;
            continue;
        }
        if service.tag != tag(dialled.first, dialled.second, u16::from_ne_bytes(key.0.dialled.port)) {
            continue;
        }
        if service.count == 0 {
            return Choice::NoBackend;
        }
        if let Some(to) = pick(service) {
            return if service.waypoint == 0 { Choice::Backend(to) } else { Choice::Waypoint(to) };
        }
    }
    Choice::NoBackend
}

/// Finds what stands for a port of an address, or else for any port of it.
#[inline(always)]
fn find(key: &mut ServiceKey, dialled: Address) -> Option<ServiceValue> {
    let found = match entry(key) {
        Some(found) => found,
        None if setting(ANY_PORT) != 0 && key.way != DIRECT => {
            key.dialled.port = [0; 2];
            let found = entry(key);
            if found.is_none() {
                key.dialled.port = dialled.port.to_ne_bytes();
            }
            found?
        }
        None => return None,
    };
    let words = found.cast::<u32>();
    // SAFETY: an element stays readable while the program runs. Its tag stands first, and is read last: what was another's while
    // the rest was read, is not ours then.
    unsafe {
        let [set, count, waypoint] =
            [words.add(1).read_volatile(), words.add(2).read_volatile(), words.add(3).read_volatile()];
        Some(ServiceValue { tag: words.read_volatile(), set, count, waypoint })
    }
}

#[inline(always)]
fn entry(key: &ServiceKey) -> Option<*const ServiceValue> {
    SERVICES.get_ptr(key)
}

/// Tells whether a namespace is the waypoint's own.
#[inline(always)]
fn is_own(netns: u64, waypoint: u32) -> bool {
    let key = Aligned(WaypointKey { netns, waypoint, reserved: 0 });
    let key = &key.0;
    WAYPOINTS.get_ptr(key).is_some()
}

/// Picks a slot, and one of the slot's two endpoints. None: the set is not there any more.
#[inline(always)]
fn pick(service: ServiceValue) -> Option<Address> {
    // SAFETY: the helper takes nothing.
    let random = u64::from(unsafe { bpf_get_prandom_u32() }) * u64::from(service.count);
    // What is above the point is the slot; what is below it is as random, and tells the two endpoints apart.
    let (index, below) = ((random >> 32) as u32, random as u32);
    let slot = ENDPOINTS.get_ptr(EndpointKey { set: service.set, index })?;
    let (numbers, words) = (slot.cast::<u32>(), slot.cast::<u64>());
    // SAFETY: as in `find`; values of a hash map stand at eight-byte steps.
    unsafe {
        let to = if below <= numbers.add(1).read_volatile() {
            let port = slot.cast::<u16>().add(20).read_volatile();
            Address { first: words.add(1).read_volatile(), second: words.add(2).read_volatile(), port }
        } else {
            let port = slot.cast::<u16>().add(21).read_volatile();
            Address { first: words.add(3).read_volatile(), second: words.add(4).read_volatile(), port }
        };
        (numbers.read_volatile() == service.set).then_some(to)
    }
}
