//! Where the mesh state comes from: istiod, by the Workload API over delta ADS, or a file.
//!
//! [`client::run`] keeps a [`cache::Cache`] as the control plane says, through reconnects, restarts and bad input.
#![forbid(unsafe_code)]

pub mod address;
pub mod client;
mod convert;
pub mod file;
mod framing;
mod node;
mod policy;
pub mod proto;
mod session;
pub mod status;
mod versions;
mod wire;

pub use address::{Address, AddressError};
pub use client::{Config, Timing, run};
pub use node::Identity;
pub use status::Status;
