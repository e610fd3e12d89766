//! Conversations of two programs over one connection, at random: who says how much and when, and how it ends. Each end checks every byte
//! that the other one sent.
//!
//! A number determines all of it. The end that connects sends it first, so that from then on both know what comes; each has its bytes from
//! a [`Pattern`] of its own.

mod host;
mod script;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::stat::fstat;
use socket2::SockRef;

use crate::{
    event_stream::EventStream,
    pattern::Pattern,
    retry::{DEADLINE, eventually},
};
pub use host::Host;
use script::{Ending, Script, Side, Step, Words};

/// What an end came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Payload bytes written.
    pub sent: u64,
    /// Payload bytes read.
    pub received: u64,
}

/// Holds the conversation of a number, as the end that has connected.
pub fn lead(mut stream: TcpStream, number: u64) -> Result<Moved> {
    stream.write_all(&number.to_le_bytes()).context("the first bytes")?;
    converse(stream, number, Side::Client)
}

/// Holds whichever conversation the other end begins.
pub fn follow(mut stream: TcpStream) -> Result<Moved> {
    let mut number = [0; 8];
    stream.read_exact(&mut number).context("the first bytes")?;
    converse(stream, u64::from_le_bytes(number), Side::Server)
}

fn converse(stream: TcpStream, number: u64, side: Side) -> Result<Moved> {
    let stream = EventStream::try_from(stream)?;
    stream.set_nodelay(!number.is_multiple_of(8))?;
    let Script { steps, ending } = Script::new(number);
    let pattern = |of: Side| Pattern::new(number ^ (of as u64) << 32);
    let mut end = End { out: pattern(side), into: pattern(side.other()), stream, side };
    for (n, step) in steps.iter().enumerate() {
        end.take(step).with_context(|| format!("{side:?}, step {n} of {}, {step:?}, {}", steps.len(), end.stands()))?;
    }
    end.end(&ending).with_context(|| format!("{side:?}, after {} steps, {ending:?}, {}", steps.len(), end.stands()))?;
    let head = size_of_val(&number) as u64;
    let (sent, received) = (end.out.passed(), end.into.passed());
    Ok(match side {
        Side::Client => Moved { sent: sent + head, received },
        Side::Server => Moved { sent, received: received + head },
    })
}

struct End {
    stream: EventStream,
    side: Side,
    out: Pattern,
    into: Pattern,
}

impl End {
    fn stands(&self) -> String {
        format!("{} bytes sent and {} received", self.out.passed(), self.into.passed())
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Say(of, words) if *of == self.side => say(&self.stream, &mut self.out, *words),
            Step::Say(_, words) => hear(&self.stream, &mut self.into, *words),
            Step::Both(words) => {
                let [mine, yours] = if self.side == Side::Client { [words[0], words[1]] } else { [words[1], words[0]] };
                let Self { stream, out, into, .. } = self;
                let stream = &*stream;
                thread::scope(|scope| {
                    let said = scope.spawn(|| say(stream, out, mine));
                    let heard = hear(stream, into, yours);
                    said.join().expect("who writes reports errors and does not panic").and(heard)
                })
            }
            Step::Rest(time) => {
                pass(*time);
                Ok(())
            }
        }
    }

    fn end(&mut self, ending: &Ending) -> Result<()> {
        match *ending {
            Ending::Finish { first, more } => {
                if first == self.side {
                    self.stream.shutdown(Shutdown::Write).context("ending to write")?;
                    hear(&self.stream, &mut self.into, more)?;
                    self.is_at_end()
                } else {
                    self.is_at_end()?;
                    say(&self.stream, &mut self.out, more)?;
                    self.stream.shutdown(Shutdown::Write).context("ending to write")
                }
            }
            // What a reset overtakes is counted by one end and not by the other. So all is acknowledged by then: the answer at once, and for the
            // rest it is waited. (An answer beside TCP acknowledges nothing.)
            Ending::Reset { by } if by == self.side => {
                say(&self.stream, &mut self.out, Words::FEW)?;
                hear(&self.stream, &mut self.into, Words::FEW)?;
                let socket = SockRef::from(&*self.stream);
                socket.set_tcp_quickack(true).context("acknowledging")?;
                eventually(DEADLINE, || is_acknowledged(&self.stream))?;
                socket.set_linger(Some(Duration::ZERO)).context("resetting")
            }
            Ending::Reset { .. } => {
                hear(&self.stream, &mut self.into, Words::FEW)?;
                say(&self.stream, &mut self.out, Words::FEW)?;
                match self.stream.read(&mut [0]) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                    other => bail!("not reset but {other:?}"),
                }
            }
        }
    }

    /// Says that the other end has sent no more than it should have.
    fn is_at_end(&mut self) -> Result<()> {
        let read = self.stream.read(&mut [0; 64]).context("waiting for the end")?;
        ensure!(read == 0, "{read} bytes too many");
        Ok(())
    }
}

/// Says that the other end's TCP has acknowledged all that was sent, as `/proc/net/tcp` has it of the socket's inode.
fn is_acknowledged(stream: &TcpStream) -> Result<()> {
    const QUEUES: usize = 4;
    const INODE: usize = 9;
    let inode = fstat(stream).context("examining the socket")?.st_ino.to_string();
    let list = if stream.local_addr()?.is_ipv6() { "tcp6" } else { "tcp" };
    let list = fs::read_to_string(Path::new("/proc/thread-self/net").join(list)).context("the list of sockets")?;
    let mut sockets = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let socket = sockets.find(|socket| socket.get(INODE) == Some(&&*inode)).context("the socket is not listed")?;
    let waiting = socket[QUEUES].split(':').next();
    ensure!(waiting == Some("00000000"), "{waiting:?} bytes (hexadecimal) are not acknowledged");
    Ok(())
}

fn say(mut stream: &EventStream, pattern: &mut Pattern, words: Words) -> Result<()> {
    let mut buffer = vec![0; words.piece.min(words.bytes) as usize];
    let mut left = words.bytes;
    while left > 0 {
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        pattern.fill(&mut buffer[..piece]);
        stream.write_all(&buffer[..piece]).context("writing")?;
        left -= piece as u64;
    }
    Ok(())
}

fn hear(mut stream: &EventStream, pattern: &mut Pattern, words: Words) -> Result<()> {
    if words.late > Duration::ZERO {
        pass(words.late);
    }
    let mut buffer = vec![0; words.ear.min(words.bytes) as usize];
    let mut left = words.bytes;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..most]).context("reading")?;
        ensure!(read > 0, "the other end has ended, {left} bytes are missing");
        pattern.check(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

/// Lets time pass in which an end does nothing: that is part of what it does.
#[expect(clippy::disallowed_methods, reason = "nothing is waited for")]
fn pass(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn both_ends_of_any_conversation_come_to_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mut reset, mut finished) = (0, 0);
        for number in (0..).filter(|n| Script::new(*n).bytes() < 100_000).take(40) {
            match Script::new(number).ending {
                Ending::Reset { .. } => reset += 1,
                Ending::Finish { .. } => finished += 1,
            }
            let leader = thread::spawn(move || lead(TcpStream::connect(address).unwrap(), number));
            let followed = follow(listener.accept().unwrap().0).unwrap();
            let led = leader.join().unwrap().unwrap();
            assert_eq!((led.sent, led.received), (followed.received, followed.sent));
        }
        assert!(reset > 3 && finished > 10, "{reset} were reset and {finished} finished");
    }
}
