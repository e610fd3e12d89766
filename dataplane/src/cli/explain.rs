//! Flags of `meshd explain`.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::dump::Output;

/// Flags of `meshd explain`.
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// The address of who connects
    #[arg(value_name = "SRC")]
    pub source: IpAddr,
    /// The address and port that is dialled
    #[arg(value_name = "DST:PORT")]
    pub destination: SocketAddr,
    /// Form of the output
    #[arg(long, short, value_enum, value_name = "FORM", default_value = "table")]
    pub output: Output,
    /// Where the running daemon serves switches and debug output
    #[arg(long, value_name = "ADDR", env = "MESHD_ADMIN_ADDRESS", default_value = "127.0.0.1:15200")]
    pub admin_address: SocketAddr,
}
