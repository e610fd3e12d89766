//! Observation: what becomes of connections.

mod adopt;
pub(crate) mod attempt;
mod carry;
mod lifecycle;
mod packet;
pub(crate) mod payload;
mod release;
mod reset;
mod snapshot;
