//! What only the kernel decides: the programs on real sockets, in a cgroup and network namespaces of each test's own.
//!
//! Needs root, and fails without.

mod bytes;
mod failures;
mod losses;
mod rights;
mod sandbox;
mod signal;
mod snapshot;
mod steering;
mod switching;
mod world;
