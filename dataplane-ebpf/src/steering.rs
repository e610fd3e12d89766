//! Steering: where a connect goes.

mod backend;
mod connect;
pub(crate) mod signal;
