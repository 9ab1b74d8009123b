//! A minimal HTTP client for the platform's own API and the Docker Engine's socket. It speaks HTTP/1.0, so that no
//! answer comes in chunks, one request a connection, always with deadlines. Not for anything public.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A port of 127.0.0.1.
    Loopback(u16),
    /// `host:port`.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A request.
pub(crate) struct Request<'a> {
    /// Method.
    pub(crate) method: &'a str,
    /// Path with query.
    pub(crate) target: &'a str,
    /// Value of `Host`.
    pub(crate) host: &'a str,
    /// More headers.
    pub(crate) headers: Vec<(&'a str, String)>,
    /// Body.
    pub(crate) body: Body<'a>,
    /// Longest wait for the connection, and for each piece of the answer.
    pub(crate) patience: Duration,
}

/// A request's body.
pub(crate) enum Body<'a> {
    /// None.
    Empty,
    /// JSON.
    Json(&'a Value),
    /// A stream of known length.
    Stream(&'a mut (dyn Read + Send), u64),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Headers with lower-case names.
    headers: Vec<(String, String)>,
    /// Body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// First header of that (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(present, _)| present == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The body's beginning as text, for messages.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(400).collect()
    }

    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends a request and reads the whole answer.
pub(crate) fn send(address: &Address, request: Request<'_>) -> Result<Response> {
    match address {
        Address::Loopback(port) => tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), request),
        Address::Tcp(name) => {
            use std::net::ToSocketAddrs as _;
            let resolved = name
                .to_socket_addrs()?
                .next()
                .with_context(|| format!("{name} has no address"))?;
            tcp(resolved, request)
        }
        Address::Unix(path) => {
            let stream =
                UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
            stream.set_read_timeout(Some(request.patience))?;
            stream.set_write_timeout(Some(request.patience))?;
            exchange(stream, request)
        }
    }
}

fn tcp(address: SocketAddr, request: Request<'_>) -> Result<Response> {
    let stream = TcpStream::connect_timeout(&address, request.patience.min(Duration::from_secs(5)))
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(request.patience))?;
    stream.set_write_timeout(Some(request.patience))?;
    exchange(stream, request)
}

fn exchange(mut stream: impl Read + Write, request: Request<'_>) -> Result<Response> {
    let Request {
        method,
        target,
        host,
        headers,
        body,
        ..
    } = request;
    let mut head = format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match body {
        Body::Empty => {
            head.push_str("Content-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes())?;
        }
        Body::Json(value) => {
            let text = value.to_string();
            head.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            ));
            stream.write_all(head.as_bytes())?;
            stream.write_all(text.as_bytes())?;
        }
        Body::Stream(source, length) => {
            head.push_str(&format!(
                "Content-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
            ));
            stream.write_all(head.as_bytes())?;
            std::io::copy(source, &mut stream)?;
        }
    }
    stream.flush()?;
    read(stream)
}

fn read(stream: impl Read) -> Result<Response> {
    const LARGEST: u64 = 16 * 1024 * 1024;
    let mut reader = BufReader::new(stream.take(LARGEST));
    let mut line = String::new();
    reader.read_line(&mut line).context("no answer")?;
    let Some(status) = line.split_whitespace().nth(1).and_then(|code| code.parse().ok()) else {
        bail!("not an HTTP answer: {line:?}");
    };
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok());
    let mut body = Vec::new();
    match length {
        // The server may keep the connection open although it was asked not to.
        Some(length) => {
            reader.take(length).read_to_end(&mut body)?;
        }
        None => {
            reader.read_to_end(&mut body)?;
        }
    }
    Ok(Response {
        status,
        headers,
        body,
    })
}
