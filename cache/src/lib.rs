//! What the mesh is made of: workloads, services and identities, by address, VIP, uid and hostname.
//!
//! A [`Cache`] holds one immutable [`Snapshot`] behind an `ArcSwap`: readers load it once an event and never wait; the one
//! writer makes the next snapshot, whole ([`Cache::replace`]) or by delta ([`Cache::apply`]), and swaps it in.
#![forbid(unsafe_code)]

pub mod model;
pub mod snapshot;

pub use model::{Health, NetworkMode, Ports, Service, Str, Workload};
pub use snapshot::{Cache, Change, Delta, Node, Snapshot};
