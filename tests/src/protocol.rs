//! What a test and a `peer` say to each other: a command a line, answered by one line of JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The answer to one command; what the command has nothing to say about is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// This socket's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// The peer's address, as the socket reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// Connections made or served.
    #[serde(skip_serializing_if = "is_zero")]
    pub connections: u64,
    /// Payload bytes written.
    #[serde(skip_serializing_if = "is_zero")]
    pub sent: u64,
    /// Payload bytes read.
    #[serde(skip_serializing_if = "is_zero")]
    pub received: u64,
    /// Why it failed: an errno's name, or a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
