//! What meshd costs, in two tiers: `kernel`, the real program on the real kernel between two network namespaces, off
//! against on; and the micro benchmarks under `benches`, one hop of the record path each and then the whole path.
//!
//! Every run says on which machine and kernel, and with which command, its numbers came to be.
#![forbid(unsafe_code)]

pub mod figure;
pub mod heap;
pub mod kernel;
pub mod machine;
pub mod mesh;
pub mod pipeline;
pub mod records;
