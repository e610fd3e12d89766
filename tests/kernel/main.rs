//! What only a kernel decides: real sockets in namespaces of each test's own, observed by the real `meshd`.
//!
//! Needs root, and fails without; `make test` sets up the rest.
#![forbid(unsafe_code)]

mod adoption;
mod bytes;
mod change;
mod control;
mod dump;
mod failures;
mod flood;
mod ignored;
mod lifecycle;
mod listed;
mod long;
mod loss;
mod managed;
mod mesh_file;
mod pair;
mod prometheus;
mod refusals;
mod restart;
mod rights;
mod services;
mod stalled;
mod stopped;
mod waypoints;
