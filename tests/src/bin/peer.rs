//! A program that talks TCP as it is told on standard input; one command a line, see [`HELP`].
//!
//! It stands for the application in a pod: run inside a namespace and a cgroup, it opens, uses and ends connections exactly
//! when told, in the way told, and says what it did as one line of JSON.
#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tests::{
    conversation::{self, Host, Moved},
    protocol::Reply,
};

const HELP: &str = "
listen LISTENER ADDRESS             listens
accept LISTENER NAME                takes one connection, called NAME from now on
connect NAME ADDRESS [from ADDRESS] opens a connection, from a local address that may be in TIME_WAIT
give-up ADDRESS                     begins to connect and closes the socket at once
send NAME BYTES                     writes
receive NAME BYTES                  reads exactly so many
finish NAME                         ends the writing half
drain NAME                          reads to the end
close NAME                          closes
reset NAME                          closes with a reset
serve ADDRESS                       accepts for ever, each connection echoed to its end
served                              tells what serving came to
scan ADDRESS COUNT                  tries so many ports from the address's on, each of which refuses
roam ADDRESS COUNT                  tries so many addresses from this one on, each of which refuses
churn ADDRESS COUNT BYTES           connections one after another, each sends BYTES, reads them back and closes
host ADDRESS                        accepts for ever, each connection a conversation
hosted                              tells what hosting came to
converse ADDRESS NUMBER             holds the conversation of this number";

fn main() -> Result<()> {
    let mut peer = Peer::default();
    for line in io::stdin().lock().lines() {
        let line = line.context("reading a command")?;
        let reply = peer.obey(&line).unwrap_or_else(|error| Reply { error: Some(reason(&error)), ..Reply::default() });
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &reply).context("answering")?;
        writeln!(out).and_then(|()| out.flush()).context("answering")?;
    }
    Ok(())
}

/// Names the errno where there is one: that is what tests compare with what `meshd` says.
fn reason(error: &anyhow::Error) -> String {
    let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    errno.map_or_else(|| format!("{error:#}"), |number| format!("{:?}", Errno::from_raw(number)))
}

#[derive(Default)]
struct Peer {
    sockets: HashMap<String, Socket>,
    served: Arc<Served>,
    host: Arc<Host>,
}

#[derive(Default)]
struct Served {
    connections: AtomicU64,
    bytes: AtomicU64,
}

impl Peer {
    fn obey(&mut self, line: &str) -> Result<Reply> {
        match *line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["listen", name, address] => {
                let socket = listen(address.parse()?)?;
                let reply = addresses(&socket);
                self.sockets.insert(name.to_owned(), socket);
                Ok(reply)
            }
            ["accept", listener, name] => {
                let (socket, _) = self.socket(listener)?.accept()?;
                Ok(self.keep(name, socket))
            }
            ["connect", name, address] => Ok(self.keep(name, connect(address.parse()?, None)?)),
            ["connect", name, address, "from", local] => {
                Ok(self.keep(name, connect(address.parse()?, Some(local.parse()?))?))
            }
            ["give-up", address] => give_up(address.parse()?),
            ["send", name, bytes] => send(self.socket(name)?, bytes.parse()?),
            ["receive", name, bytes] => receive(self.socket(name)?, bytes.parse()?),
            ["finish", name] => Ok(self.socket(name)?.shutdown(Shutdown::Write).map(|()| Reply::default())?),
            ["drain", name] => drain(self.socket(name)?),
            ["close", name] => self.sockets.remove(name).map(|_| Reply::default()).context("no such connection"),
            ["reset", name] => {
                let socket = self.sockets.remove(name).context("no such connection")?;
                Ok(socket.set_linger(Some(Duration::ZERO)).map(|()| Reply::default())?)
            }
            ["serve", address] => self.serve(address.parse()?),
            ["served"] => {
                let (connections, bytes) = (self.served.connections.load(Relaxed), self.served.bytes.load(Relaxed));
                Ok(Reply { connections, sent: bytes, received: bytes, ..Reply::default() })
            }
            ["scan", address, count] => {
                refused(address.parse()?, count.parse()?, |n, first| (first.ip(), first.port() + n as u16))
            }
            ["roam", address, count] => {
                refused(address.parse()?, count.parse()?, |n, first| (beyond(first.ip(), n), first.port()))
            }
            ["host", address] => self.host(address.parse()?),
            ["hosted"] => {
                let (connections, Moved { sent, received }) = self.host.tell()?;
                Ok(Reply { connections, sent, received, ..Reply::default() })
            }
            ["converse", address, number] => converse(address.parse()?, number.parse()?),
            ["churn", address, count, bytes] => churn(address.parse()?, count.parse()?, bytes.parse()?),
            _ => bail!("not a command: `{line}`; these are:{HELP}"),
        }
    }

    fn socket(&self, name: &str) -> Result<&Socket> {
        self.sockets.get(name).with_context(|| format!("no socket is called {name}"))
    }

    fn keep(&mut self, name: &str, socket: Socket) -> Reply {
        let reply = addresses(&socket);
        self.sockets.insert(name.to_owned(), socket);
        reply
    }

    fn serve(&self, address: SocketAddr) -> Result<Reply> {
        let listener = listen(address)?;
        let reply = addresses(&listener);
        let served = Arc::clone(&self.served);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let served = Arc::clone(&served);
                thread::spawn(move || echo(&socket, &served));
            }
        });
        Ok(reply)
    }

    fn host(&self, address: SocketAddr) -> Result<Reply> {
        let listener = listen(address)?;
        let reply = addresses(&listener);
        let host = Arc::clone(&self.host);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let host = Arc::clone(&host);
                thread::spawn(move || host.hold(socket.into()));
            }
        });
        Ok(reply)
    }
}

fn converse(address: SocketAddr, number: u64) -> Result<Reply> {
    let socket = connect(address, None)?;
    let reply = addresses(&socket);
    // Not the errno alone: at which step it came is what tells.
    let held = conversation::lead(socket.into(), number).map_err(|error| anyhow::anyhow!("{error:#}"));
    let Moved { sent, received } = held?;
    Ok(Reply { connections: 1, sent, received, ..reply })
}

fn addresses(socket: &Socket) -> Reply {
    let address = |a: io::Result<SockAddr>| a.ok().and_then(|a| a.as_socket());
    Reply { local: address(socket.local_addr()), remote: address(socket.peer_addr()), ..Reply::default() }
}

fn listen(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket)
}

fn connect(address: SocketAddr, local: Option<SocketAddr>) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(local) = local {
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
    }
    socket.connect(&address.into())?;
    Ok(socket)
}

fn give_up(address: SocketAddr) -> Result<Reply> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(addresses(&socket)),
        Err(error) => Err(error.into()),
        Ok(()) => bail!("connected at once"),
    }
}

fn send(mut socket: &Socket, bytes: u64) -> Result<Reply> {
    let block = vec![b'x'; 1 << 18];
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        socket.write_all(&block[..size])?;
        left -= size as u64;
    }
    Ok(Reply { sent: bytes, ..Reply::default() })
}

fn receive(socket: &Socket, bytes: u64) -> Result<Reply> {
    let received = read_away(socket, bytes)?;
    if received < bytes {
        bail!("the peer ended after {received} of {bytes} bytes");
    }
    Ok(Reply { received, ..Reply::default() })
}

fn drain(socket: &Socket) -> Result<Reply> {
    Ok(Reply { received: read_away(socket, u64::MAX)?, ..Reply::default() })
}

fn read_away(mut socket: &Socket, bytes: u64) -> Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0;
    while received < bytes {
        let wanted = usize::try_from(bytes - received).unwrap_or(usize::MAX).min(buffer.len());
        match socket.read(&mut buffer[..wanted])? {
            0 => break,
            n => received += n as u64,
        }
    }
    Ok(received)
}

fn echo(mut socket: &Socket, served: &Served) {
    served.connections.fetch_add(1, Relaxed);
    let mut buffer = [0; 1 << 16];
    while let Ok(n @ 1..) = socket.read(&mut buffer) {
        served.bytes.fetch_add(n as u64, Relaxed);
        if socket.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

fn refused(first: SocketAddr, count: u32, nth: impl Fn(u32, SocketAddr) -> (IpAddr, u16)) -> Result<Reply> {
    for n in 0..count {
        match connect(nth(n, first).into(), None) {
            Err(error) if reason(&error) == "ECONNREFUSED" => {}
            Err(error) => return Err(error),
            Ok(_) => bail!("{:?} does not refuse", nth(n, first)),
        }
    }
    Ok(Reply { connections: count.into(), ..Reply::default() })
}

/// The nth IPv4 address after this one; of IPv6 the same.
fn beyond(address: IpAddr, n: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().wrapping_add(n)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().wrapping_add(n.into())).into(),
    }
}

fn churn(address: SocketAddr, count: u64, bytes: u64) -> Result<Reply> {
    let mut total = Reply::default();
    for _ in 0..count {
        let socket = connect(address, None)?;
        total.sent += send(&socket, bytes)?.sent;
        socket.shutdown(Shutdown::Write)?;
        total.received += drain(&socket)?.received;
        total.connections += 1;
    }
    Ok(total)
}
