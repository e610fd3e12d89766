//! The least of HTTP: one request, one answer, from inside a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, as sent.
    pub head: String,
    /// Body.
    pub body: String,
}

/// Gets a path.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<Answer> {
    request(namespace, address, "GET", path, "", "")
}

/// Sends a request. `headers` are whole lines that end in `\r\n`. HTTP/1.0: the answer is not in chunks and ends with the connection.
pub fn request(
    namespace: &Namespace,
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<Answer> {
    let length = body.len();
    let text =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    let what = format!("{method} {address}{path}");
    namespace.enter(move || exchange(address, &text))?.with_context(|| what)
}

fn exchange(address: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("connecting")?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).context("setting a deadline")?;
    stream.write_all(request.as_bytes()).context("sending")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("reading the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without head")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("an answer without status")?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
