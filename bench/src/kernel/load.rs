//! What runs in a pod: a server and a client that do what they are told, one order a line on standard input.

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tests::EventStream;

use super::{long, relay};
use crate::machine;

/// Bytes of a ping-pong message, and the fewest of a request.
pub const MESSAGE: usize = 64;
/// The most bytes of a request.
const MOST: usize = 64 << 10;
const BULK: usize = 256 << 10;

/// What a load process is told to do.
#[expect(missing_docs, reason = "each order says what its fields are")]
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Listen on ports of an address, a thread each.
    Serve { address: IpAddr, ports: Range<u16> },
    /// Run on this processor alone.
    Pin { processor: usize },
    /// As many clients open, ask, read the answer, as long as the request, and close, one connection after the other, over the targets in
    /// turn.
    Short { targets: Vec<SocketAddr>, clients: usize, millis: u64, bytes: usize },
    /// One connection, so many messages there and back, one at a time.
    PingPong { target: SocketAddr, count: u64 },
    /// One connection, as fast as it goes, one way.
    Bulk { target: SocketAddr, millis: u64 },
    /// Open connections and keep them.
    Hold { targets: Vec<SocketAddr>, count: usize },
    /// Send a byte over each connection that is kept.
    Touch,
    /// Open a connection, exchange so many messages over it, and keep it.
    Begin { target: SocketAddr, messages: u64 },
    /// So many messages there and back over the connection that was begun last, one at a time.
    Trips { bytes: usize, count: u64 },
    /// So many blocks one way over the connection that was begun last.
    Flow { bytes: usize, count: u64 },
    /// Relay what is redirected to this port.
    Relay { port: u16 },
    /// Close what is kept, at either end.
    Release,
    /// Nothing; the answer tells the processor time so far.
    Rest,
}

/// What came of an order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Connections, round trips or bytes.
    pub count: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Processor time of this process since it began, seconds.
    pub cpu: f64,
    /// Why it could not be done.
    pub error: Option<String>,
}

/// How a server treats a connection: the first byte of its first message.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Manner {
    Answer = b'a',
    Echo = b'e',
    Discard = b'd',
    Keep = b'k',
    Long = b'l',
}

type Kept = Arc<Mutex<Vec<TcpStream>>>;

const NO_PANIC: &str = "no thread panics while it holds the lock";

/// Enters a namespace and a cgroup and obeys orders until standard input ends.
pub fn run(netns: &Path, cgroup: &Path) -> Result<()> {
    setns(fs::File::open(netns).context("opening the namespace")?, CloneFlags::CLONE_NEWNET).context("entering it")?;
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).context("entering the cgroup")?;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").context("widening the local ports")?;
    // The client closes first: its ports wait in TIME_WAIT, and may be used again after a second.
    fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").context("having ports used again")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("asking how many files may be open")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("allowing more open files")?;
    let kept = Kept::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let order = serde_json::from_str(&line.context("reading an order")?).context("an order")?;
        let mut done = obey(order, &kept).unwrap_or_else(|e| Done { error: Some(format!("{e:#}")), ..Done::default() });
        done.cpu = machine::cpu()?;
        serde_json::to_writer(&mut out, &done).context("answering")?;
        writeln!(out).context("answering")?;
        out.flush().context("answering")?;
    }
    Ok(())
}

fn obey(order: Order, kept: &Kept) -> Result<Done> {
    let begin = Instant::now();
    let count = match order {
        Order::Serve { address, ports } => serve(address, ports, kept)?,
        Order::Pin { processor } => pin(processor)?,
        Order::Short { targets, clients, millis, bytes } => {
            short(&targets, clients, bytes, begin + Duration::from_millis(millis))?
        }
        Order::PingPong { target, count } => ping_pong(target, count)?,
        Order::Bulk { target, millis } => bulk(target, begin + Duration::from_millis(millis))?,
        Order::Hold { targets, count } => hold(&targets, count, kept)?,
        Order::Touch => touch(kept)?,
        Order::Begin { target, messages } => begin_long(target, messages, kept)?,
        Order::Trips { bytes, count } => long::trips(&mut last(kept)?, bytes, count)?,
        Order::Flow { bytes, count } => long::flow(&mut last(kept)?, bytes, count)?,
        Order::Relay { port } => relay::start(port)?,
        Order::Release => kept.lock().expect(NO_PANIC).drain(..).count() as u64,
        Order::Rest => 0,
    };
    Ok(Done { count, seconds: begin.elapsed().as_secs_f64(), ..Done::default() })
}

fn pin(processor: usize) -> Result<u64> {
    let mut set = CpuSet::new();
    set.set(processor).context("a processor's number")?;
    for task in fs::read_dir("/proc/self/task").context("listing threads")? {
        let task = task.context("listing threads")?.file_name();
        let thread = task.to_string_lossy().parse().context("a thread's number")?;
        sched_setaffinity(Pid::from_raw(thread), &set).context("pinning a thread")?;
    }
    Ok(0)
}

fn serve(address: IpAddr, ports: Range<u16>, kept: &Kept) -> Result<u64> {
    for port in ports.clone() {
        let listener = TcpListener::bind((address, port)).with_context(|| format!("listening on {address}:{port}"))?;
        let kept = kept.clone();
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            for stream in listener.incoming().flatten() {
                // What fails here fails at the client too, which tells.
                drop(treat(stream, &kept));
            }
        })?;
    }
    Ok(ports.len() as u64)
}

fn treat(mut stream: TcpStream, kept: &Kept) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    match message[0] {
        b if b == Manner::Answer as u8 => {
            let length = u32::from_le_bytes(message[1..5].try_into().expect("four bytes are four"));
            let mut answer = vec![0; MOST.min(length as usize)];
            stream.read_exact(&mut answer[MESSAGE..])?;
            stream.write_all(&answer)?;
            stream.read(&mut message).map(drop)
        }
        b if b == Manner::Long as u8 => {
            stream.set_nodelay(true)?;
            long::serve(&mut stream.try_into()?)
        }
        b if b == Manner::Echo as u8 => {
            stream.set_nodelay(true)?;
            while stream.write_all(&message).and_then(|()| stream.read_exact(&mut message)).is_ok() {}
            Ok(())
        }
        b if b == Manner::Discard as u8 => {
            let mut buffer = vec![0; BULK];
            while stream.read(&mut buffer)? > 0 {}
            stream.write_all(&message)
        }
        _ => {
            stream.write_all(&message)?;
            kept.lock().expect(NO_PANIC).push(stream);
            Ok(())
        }
    }
}

fn open(target: SocketAddr, manner: Manner) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
    stream.write_all(&[manner as u8; MESSAGE]).context("asking")?;
    Ok(stream)
}

/// What netperf calls TCP_CRR: connect, ask, read the answer, close; the server, which waits for that, closes too.
fn ask_once(target: SocketAddr, request: &[u8], answer: &mut [u8]) -> Result<()> {
    let mut stream = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
    stream.write_all(request).context("asking")?;
    stream.read_exact(answer).context("reading the answer")
}

fn short(targets: &[SocketAddr], clients: usize, bytes: usize, until: Instant) -> Result<u64> {
    let mut request = vec![Manner::Answer as u8; bytes.clamp(MESSAGE, MOST)];
    let length = u32::try_from(request.len())?;
    request[1..5].copy_from_slice(&length.to_le_bytes());
    let request = request.as_slice();
    thread::scope(|scope| {
        let client = |first: usize| {
            let mut own = targets.iter().skip(first).step_by(clients).cycle();
            let (mut answer, mut count) = (vec![0; request.len()], 0);
            while Instant::now() < until {
                ask_once(*own.next().context("fewer targets than clients")?, request, &mut answer)?;
                count += 1;
            }
            Ok(count)
        };
        let threads: Vec<_> = (0..clients).map(|first| scope.spawn(move || client(first))).collect();
        threads.into_iter().map(|t| t.join().expect("a client reports errors and does not panic")).sum()
    })
}

fn ping_pong(target: SocketAddr, count: u64) -> Result<u64> {
    let mut stream = open(target, Manner::Echo)?;
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    for _ in 1..count {
        stream.read_exact(&mut message).context("the echo")?;
        stream.write_all(&message).context("the next message")?;
    }
    stream.read_exact(&mut message).context("the last echo")?;
    Ok(count)
}

fn bulk(target: SocketAddr, until: Instant) -> Result<u64> {
    let mut stream = open(target, Manner::Discard)?;
    let buffer = vec![1; BULK];
    let mut bytes = 0;
    while Instant::now() < until {
        stream.write_all(&buffer).context("sending")?;
        bytes += BULK as u64;
    }
    stream.shutdown(std::net::Shutdown::Write).context("ending")?;
    // Once the server has read all, it says so.
    stream.read_exact(&mut [0; MESSAGE]).context("waiting for the server to have read all")?;
    Ok(bytes)
}

fn hold(targets: &[SocketAddr], count: usize, kept: &Kept) -> Result<u64> {
    for target in targets.iter().cycle().take(count) {
        let mut stream = open(*target, Manner::Keep)?;
        stream.read_exact(&mut [0; MESSAGE]).context("waiting for the server to keep it")?;
        kept.lock().expect(NO_PANIC).push(stream);
    }
    Ok(count as u64)
}

fn touch(kept: &Kept) -> Result<u64> {
    let kept = kept.lock().expect(NO_PANIC);
    for mut stream in kept.iter() {
        stream.write_all(&[0]).context("sending a byte")?;
    }
    Ok(kept.len() as u64)
}

fn begin_long(target: SocketAddr, messages: u64, kept: &Kept) -> Result<u64> {
    let stream = open(target, Manner::Long)?;
    stream.set_nodelay(true)?;
    kept.lock().expect(NO_PANIC).push(stream);
    let exchanged = long::trips(&mut last(kept)?, MESSAGE, messages)?;
    Ok(exchanged)
}

/// The connection that was begun last: another handle of the same socket.
fn last(kept: &Kept) -> Result<EventStream> {
    let kept = kept.lock().expect(NO_PANIC);
    let last = kept.last().context("no connection was begun")?;
    last.try_clone().and_then(EventStream::try_from).context("one more handle of a connection")
}
