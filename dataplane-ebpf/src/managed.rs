//! The one check whether a network namespace is the mesh's.

use crate::{
    globals::global,
    maps::{MANAGER, SIGNALLED},
};

/// Tells whether sockets of the namespace with this cookie are steered and observed.
#[inline(always)]
pub(crate) fn managed(netns: u64) -> bool {
    if global!(manage_all) != 0 {
        return netns != global!(host_netns);
    }
    MANAGER.get_ptr(netns).is_some() || SIGNALLED.get_ptr(netns).is_some()
}
