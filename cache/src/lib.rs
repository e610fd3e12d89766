//! What the mesh is made of: workloads, services and identities, by address, VIP, uid and hostname.
//!
//! A [`Cache`] holds one immutable [`Snapshot`] behind an `ArcSwap`: readers load it once an event and never wait; the one
//! writer makes the next snapshot, whole ([`Cache::replace`]) or by delta ([`Cache::apply`]), and swaps it in. The indexes are
//! persistent, so the next snapshot shares all that a delta did not touch.
#![forbid(unsafe_code)]

mod addresses;
mod cache;
mod draft;
mod dump;
mod held;
mod intern;
pub mod model;
mod shelf;
pub mod snapshot;
mod subscription;
mod trie;

pub use cache::{Cache, Delta, Node, State};
pub use dump::Dump;
pub use intern::Interner;
pub use model::{Health, NetworkMode, Ports, Service, Str, Workload};
pub use snapshot::{Held, Policies, Snapshot};
pub use subscription::{Change, Subscription};
