//! Which endpoint a service address stands for.

use abi::{
    Endpoint,
    steering::{EndpointKey, ServiceKey},
};
use aya_ebpf::helpers::bpf_get_prandom_u32;

use crate::{
    maps::{ENDPOINTS, SERVICES},
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
    /// No service has the address: the connect goes where it wanted to.
    Unchanged,
    /// One of the service's endpoints.
    Backend(Address),
    /// A service has the address, and no endpoint can take the connect.
    NoBackend,
}

/// A changed set of endpoints is written before the service points to it and the old one removed after: who held on to the old number
/// looks again.
const LOOKS: u32 = 3;

/// The stack is accessed in steps that need this alignment.
#[repr(C, align(8))]
struct Aligned<T>(T);

/// Looks a dialled address up and picks one of its endpoints at random.
#[inline(always)]
pub(crate) fn choose(dialled: Address) -> Choice {
    let mut key = Aligned(ServiceKey { vip: Endpoint { address: [0; 16], port: [0; 2] }, reserved: [0; 2] });
    // SAFETY: the key is our own and aligned.
    unsafe { dialled.write(&raw mut key.0.vip) };
    let key = &key.0;
    for _ in 0..LOOKS {
        let Some(service) = SERVICES.get_ptr(key) else { return Choice::Unchanged };
        // SAFETY: an element stays valid while the program runs; its eight bytes are written at once.
        let service = unsafe { service.read_volatile() };
        if service.count == 0 {
            return Choice::NoBackend;
        }
        // SAFETY: the helper takes nothing.
        let index = unsafe { bpf_get_prandom_u32() } % service.count;
        if let Some(endpoint) = ENDPOINTS.get_ptr(EndpointKey { set: service.set, index }) {
            let words = endpoint.cast::<u64>();
            // SAFETY: as above; values of a hash map stand at eight-byte steps.
            let (first, second) = unsafe { (words.read(), words.add(1).read()) };
            // SAFETY: as above.
            let port = unsafe { words.add(2).cast::<u16>().read() };
            return Choice::Backend(Address { first, second, port });
        }
    }
    Choice::NoBackend
}
