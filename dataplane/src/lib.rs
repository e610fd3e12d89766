//! The library behind `meshd`: what it is made of, from the command line to the ports.
//!
//! [`app`] is the map of the program.

pub mod accelerate;
pub mod app;
pub mod ask;
pub mod cli;
pub mod control;
pub mod doctor;
pub mod dump;
pub mod enrol;
pub mod explain;
pub mod health;
pub mod kernel;
pub mod log;
pub mod memory;
pub mod mesh;
pub mod node;
pub mod ports;
mod process;
pub mod record;
pub mod rights;
pub mod serve;
pub mod sync;
pub mod tasks;
pub mod uninstall;
pub mod version;
