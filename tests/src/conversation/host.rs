//! Who holds conversations that others begin, and what they came to.

use std::{net::TcpStream, sync::Mutex};

use anyhow::{Result, bail};

use super::{Moved, follow};

/// Conversations held, and those that went wrong.
#[derive(Debug, Default)]
pub struct Host(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    held: u64,
    moved: Moved,
    wrong: Vec<String>,
}

impl Host {
    /// Holds the conversation that comes over a connection.
    pub fn hold(&self, stream: TcpStream) {
        let remote = stream.peer_addr();
        let result = follow(stream);
        let mut account = self.0.lock().expect("no thread panics while it holds the lock");
        match result {
            Ok(Moved { sent, received }) => {
                account.held += 1;
                account.moved.sent += sent;
                account.moved.received += received;
            }
            Err(error) => account.wrong.push(format!("with {remote:?}: {error:#}")),
        }
    }

    /// Tells how many there were and what they came to; it is an error if one went wrong.
    pub fn tell(&self) -> Result<(u64, Moved)> {
        let account = self.0.lock().expect("no thread panics while it holds the lock");
        if let Some(first) = account.wrong.first() {
            bail!("{} conversations went wrong; the first {first}", account.wrong.len());
        }
        Ok((account.held, account.moved))
    }
}
