//! The kernel tier: the real `meshd` on the real kernel, two pods on a bridge.

pub mod assemble;
pub mod cost;
pub mod least;
pub mod load;
pub mod long;
pub mod maps;
pub mod minute;
pub mod plane;
pub mod process;
pub mod programs;
pub mod pull;
pub mod redirect;
pub mod relay;
pub mod rounds;
pub mod samples;
pub mod shortcut;
pub mod sidecar;
pub mod sockets;
pub mod steering;
pub mod worker;
pub mod world;
