//! Steering: where a connect goes.

mod backend;
mod connect;
mod join;
mod message;
mod metadata;
mod other;
pub(crate) mod signal;
mod waypoint;
