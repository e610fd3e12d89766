//! What only the kernel decides: the programs on real sockets, in a cgroup and network namespaces of each test's own.
//!
//! Needs root, and fails without.

mod adoption;
mod balance;
mod bytes;
mod failures;
mod losses;
mod metadata;
mod network;

mod redirect;
mod restart;
mod rights;
mod sandbox;
mod signal;
mod snapshot;
mod steering;
mod switching;
mod waypoints;
mod world;
