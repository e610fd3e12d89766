//! Observation: what becomes of connections.

pub(crate) mod attempt;
mod lifecycle;
mod packet;
pub(crate) mod payload;
mod release;
mod reset;
mod snapshot;
