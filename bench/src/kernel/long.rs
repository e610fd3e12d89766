//! A connection that stays open and is used again and again: what either end does over it. Both wait for events: only sockets of such
//! programs are redirected.

use std::io::{self, Read, Write};

use anyhow::{Context as _, Result, ensure};

use tests::EventStream;

use super::load::MESSAGE;

/// What the client announces before it does it.
#[derive(Clone, Copy)]
struct Announced {
    /// Whether each message comes back.
    trips: bool,
    bytes: u32,
    count: u64,
}

impl Announced {
    fn write(self, stream: &mut EventStream) -> io::Result<()> {
        let mut message = [0; MESSAGE];
        message[0] = self.trips.into();
        message[4..8].copy_from_slice(&self.bytes.to_le_bytes());
        message[8..16].copy_from_slice(&self.count.to_le_bytes());
        stream.write_all(&message)
    }

    /// Reads what is next; nothing at the connection's end.
    fn read(stream: &mut EventStream) -> io::Result<Option<Self>> {
        let mut message = [0; MESSAGE];
        if stream.read(&mut message[..1])? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut message[1..])?;
        let bytes = u32::from_le_bytes(message[4..8].try_into().expect("four bytes are four"));
        let count = u64::from_le_bytes(message[8..16].try_into().expect("eight bytes are eight"));
        Ok(Some(Self { trips: message[0] != 0, bytes, count }))
    }
}

/// Sends so many messages and reads each back before the next; returns how many.
pub fn trips(stream: &mut EventStream, bytes: usize, count: u64) -> Result<u64> {
    announce(stream, true, bytes, count)?;
    let mut message = vec![1; bytes];
    for _ in 0..count {
        stream.write_all(&message).context("a message")?;
        stream.read_exact(&mut message).context("the echo")?;
    }
    Ok(count)
}

/// Sends so many blocks and waits until the other end has read them all; returns how many.
pub fn flow(stream: &mut EventStream, bytes: usize, count: u64) -> Result<u64> {
    announce(stream, false, bytes, count)?;
    let block = vec![1; bytes];
    for _ in 0..count {
        stream.write_all(&block).context("a block")?;
    }
    stream.read_exact(&mut [0; MESSAGE]).context("waiting for the server to have read all")?;
    Ok(count)
}

/// Returns the bytes that went from the client to the server in `trips` or `flow`.
pub fn sent(bytes: usize, count: u64) -> u64 {
    MESSAGE as u64 + bytes as u64 * count
}

fn announce(stream: &mut EventStream, trips: bool, bytes: usize, count: u64) -> Result<()> {
    ensure!(bytes > 0, "messages without bytes");
    Announced { trips, bytes: u32::try_from(bytes)?, count }.write(stream).context("announcing")
}

/// Does the server's part, until the connection ends.
pub fn serve(stream: &mut EventStream) -> io::Result<()> {
    while let Some(Announced { trips, bytes, count }) = Announced::read(stream)? {
        let mut buffer = vec![0; bytes as usize];
        if trips {
            for _ in 0..count {
                stream.read_exact(&mut buffer)?;
                stream.write_all(&buffer)?;
            }
        } else {
            let mut left = count * u64::from(bytes);
            while left > 0 {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                match stream.read(&mut buffer[..most])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => left -= read as u64,
                }
            }
            stream.write_all(&[0; MESSAGE])?;
        }
    }
    Ok(())
}
