//! HTTP/1.1 written by hand: the tests need requests that no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);

/// An answer, its body whole and free of its transfer coding.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// All values of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The only value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice: {all:?}");
        all.first().copied()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The request as the fake upstream saw it.
    pub(crate) fn seen(&self) -> Seen {
        assert_eq!(self.status, 200, "{self:?}");
        Seen(self.json())
    }
}

/// What an upstream saw.
#[derive(Debug)]
pub(crate) struct Seen(serde_json::Value);

impl Seen {
    pub(crate) fn upstream(&self) -> &str {
        self.0["upstream"].as_str().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.0["target"].as_str().unwrap()
    }

    pub(crate) fn body_length(&self) -> u64 {
        self.0["body_length"].as_u64().unwrap()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.0["headers"].as_array().unwrap();
        headers
            .iter()
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().unwrap())
            .collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice: {all:?}");
        all.first().copied()
    }
}

/// Sends bytes and reads one answer.
pub(crate) async fn send(edge: SocketAddr, request: &[u8]) -> Answer {
    try_send(edge, request).await.expect("an answer")
}

/// Like [`send`], with nothing where the connection was closed without an answer.
pub(crate) async fn try_send(edge: SocketAddr, request: &[u8]) -> Option<Answer> {
    timeout(DEADLINE, async {
        let mut stream = TcpStream::connect(edge).await.unwrap();
        // A refused request may be answered and closed while it is still being sent.
        let written = stream.write_all(request).await;
        let mut raw = Vec::new();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            if let Some(answer) = parse(&raw) {
                return Some(answer);
            }
            match stream.read(&mut chunk).await {
                Ok(0) => return parse_closed(&raw),
                Ok(count) => raw.extend_from_slice(&chunk[..count]),
                Err(error) if written.is_err() => panic!("{error} after {written:?}"),
                Err(_) => return parse_closed(&raw),
            }
        }
    })
    .await
    .expect("an answer in time")
}

/// `GET target` at `host`, with further headers as lines.
pub(crate) async fn get(edge: SocketAddr, host: &str, target: &str, headers: &[&str]) -> Answer {
    send(edge, request("GET", host, target, headers).as_bytes()).await
}

/// The text of a request without a body.
pub(crate) fn request(method: &str, host: &str, target: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
}

fn parse_head(raw: &[u8]) -> Option<(Answer, usize)> {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some((
        Answer {
            status,
            headers,
            body: String::new(),
        },
        end + 4,
    ))
}

fn parse(raw: &[u8]) -> Option<Answer> {
    let (mut answer, start) = parse_head(raw)?;
    let body = &raw[start..];
    if matches!(answer.status, 204 | 304) || answer.status == 101 {
        return Some(answer);
    }
    if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().unwrap();
        let body = body.get(..length)?;
        answer.body = String::from_utf8_lossy(body).into_owned();
        return Some(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = String::from_utf8_lossy(&unchunk(body)?).into_owned();
        return Some(answer);
    }
    None
}

fn parse_closed(raw: &[u8]) -> Option<Answer> {
    let (mut answer, start) = parse_head(raw)?;
    answer.body = String::from_utf8_lossy(&raw[start..]).into_owned();
    Some(answer)
}

fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = raw.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..line]).unwrap(), 16).unwrap();
        let data = raw.get(line + 2..line + 2 + size)?;
        raw.get(line + 2 + size..line + 4 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(data);
        raw = &raw[line + 4 + size..];
    }
}
