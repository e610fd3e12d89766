//! What only a kernel decides: real sockets in namespaces of each test's own, observed by the real `meshd`.
//!
//! Needs root, and fails without; `make test` sets up the rest.
#![forbid(unsafe_code)]

mod bytes;
mod control;
mod failures;
mod ignored;
mod lifecycle;
mod long;
mod loss;
mod managed;
mod mesh_file;
mod pair;
mod prometheus;
mod refusals;
mod services;
