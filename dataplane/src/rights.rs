//! What the process may do: the rights that it needs, and no others.

mod calls;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

pub use calls::{confine, filters};

/// The capabilities that are used: to load programs and attach them to a cgroup, to see namespaces by their processes and enter them, and
/// to mount the bpf file system.
const NEEDED: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
];

/// Gives up every capability but those that are needed, and what others could be had by. Capabilities are a thread's: to be called before
/// any other thread is started.
///
/// # Errors
/// The kernel refused.
pub fn reduce() -> Result<()> {
    prctl::set_no_new_privs().context("cannot give up to gain rights (no_new_privs)")?;
    let needed = CapsHashSet::from(NEEDED);
    // Who may not change what an exec could give is given nothing more by one either, now.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).context(TOLD)? {
        for capability in caps::read(None, CapSet::Bounding).context(TOLD)?.difference(&needed) {
            caps::drop(None, CapSet::Bounding, *capability).context(GIVEN_UP)?;
        }
    }
    let kept = caps::read(None, CapSet::Permitted).context(TOLD)?.intersection(&needed).copied().collect();
    caps::set(None, CapSet::Effective, &kept).context(GIVEN_UP)?;
    caps::set(None, CapSet::Permitted, &kept).context(GIVEN_UP)?;
    // The ambient ones go with them.
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context(GIVEN_UP)
}

/// Names the capabilities that are needed and not there.
///
/// # Errors
/// The kernel does not tell.
pub fn missing() -> Result<Vec<String>> {
    let held = caps::read(None, CapSet::Effective).context(TOLD)?;
    Ok(NEEDED.iter().filter(|needed| !held.contains(needed)).map(ToString::to_string).collect())
}

const TOLD: &str = "the kernel does not tell this process's capabilities";
const GIVEN_UP: &str = "cannot give up capabilities";
