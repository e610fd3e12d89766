//! A connection of a program that waits for events, as most servers do, and never in a read or write.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    ops::Deref,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Nothing takes longer, unless something was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket with `O_NONBLOCK`; what can not be done at once is done after the event that says it can, for which it waits a minute at most.
#[derive(Debug)]
pub struct EventStream {
    stream: TcpStream,
    /// The last read took all that there was room for: there may be more.
    more: AtomicBool,
}

impl TryFrom<TcpStream> for EventStream {
    type Error = io::Error;

    fn try_from(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, more: AtomicBool::new(false) })
    }
}

impl Deref for EventStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl EventStream {
    fn wait(&self, event: PollFlags) -> io::Result<()> {
        let mut this = [PollFd::new(self.stream.as_fd(), event)];
        match poll(&mut this, PollTimeout::try_from(PATIENCE).expect("a minute fits")) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn once_it_can<T>(&self, event: PollFlags, mut act: impl FnMut(&TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(event)?,
                done => return done,
            }
        }
    }
}

impl Read for &EventStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.more.load(Ordering::Relaxed) {
            self.wait(PollFlags::POLLIN)?;
        }
        let read = self.once_it_can(PollFlags::POLLIN, |mut stream| stream.read(buffer))?;
        self.more.store(read == buffer.len(), Ordering::Relaxed);
        Ok(read)
    }
}

impl Write for &EventStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.once_it_can(PollFlags::POLLOUT, |mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for EventStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for EventStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
