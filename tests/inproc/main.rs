//! Recorded events in, scrape and lines out: the whole record path in one process, without privilege and without a kernel.

mod connection;
mod fuzz;
mod golden;
mod long;
mod pipeline;
mod readme;
mod restart;
mod robust;
mod series;
mod switching;
