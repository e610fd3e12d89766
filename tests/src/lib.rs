//! What whole-program tests stand on: a node and pods made of network namespaces, a cgroup of the test's own, programs that
//! talk TCP in them, the real `meshd`, and readers of what it says.
//!
//! Everything made here is named after its test and removed by `Drop`; what a killed run left is removed by the next one.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod artifacts;
pub mod cgroup;
pub mod command;
pub mod conversation;
pub mod crew;
pub mod event_stream;
pub mod fuzz;
pub mod http;
pub mod kernel_log;
pub mod mesh;
pub mod meshd;
pub mod netns;
pub mod pattern;
pub mod peer;
pub mod protocol;
pub mod retry;
pub mod sandbox;
pub mod scrape;
pub mod truth;

pub use access_log::LogLine;
pub use crew::Crew;
pub use event_stream::EventStream;
pub use mesh::Mesh;
pub use meshd::Meshd;
pub use peer::Peer;
pub use sandbox::{Pod, Sandbox};
pub use scrape::Scrape;
