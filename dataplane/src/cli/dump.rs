//! Flags of `meshd dump`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// Flags of `meshd dump`.
#[derive(Args, Clone, Debug)]
pub struct Dump {
    /// Of what
    #[arg(value_enum, value_name = "WHAT")]
    pub kind: Kind,
    /// Form of the output
    #[arg(long, short, value_enum, value_name = "FORM", default_value = "table")]
    pub output: Output,
    /// Where the running daemon serves switches and debug output
    #[arg(long, value_name = "ADDR", env = "MESHD_ADMIN_ADDRESS", default_value = "127.0.0.1:15200")]
    pub admin_address: SocketAddr,
}

/// What is dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Workloads: who has which address
    Workloads,
    /// Services: where the kernel sends what is dialled, endpoints with their weights; as JSON what the mesh says of them
    Services,
}

/// The form of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns to read
    Table,
    /// A JSON list, one element a line
    Json,
}
