//! The kernel tier: the real `meshd` on the real kernel, two pods on a bridge.

pub mod cost;
pub mod load;
pub mod process;
pub mod programs;
pub mod pull;
pub mod rounds;
pub mod worker;
pub mod world;
