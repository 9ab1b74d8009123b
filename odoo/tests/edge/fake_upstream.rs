//! `FakeUpstream`: stands in for Odoo and for the API. It answers with the request it saw, as JSON; some paths make
//! it behave otherwise. What real Odoo does behind the edge is tested with real Odoo elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server on a free port, ended with the value.
pub(crate) struct FakeUpstream {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeUpstream {
    /// Starts a server whose answers carry `name`.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move { serve(stream, name).await });
            }
        });
        Self { address, task }
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Errors of the connection end it: the edge may close at any time.
async fn serve(mut stream: TcpStream, name: &str) -> Option<()> {
    let mut raw = Vec::new();
    let head_end = loop {
        if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        read_more(&mut stream, &mut raw).await?;
    };
    let head = String::from_utf8_lossy(&raw[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let request_line = lines.next().unwrap().to_owned();
    let target = request_line.split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers
        .iter()
        .find(|(key, _)| key == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    while raw.len() < head_end + 4 + length {
        read_more(&mut stream, &mut raw).await?;
    }

    if headers
        .iter()
        .any(|(key, value)| key == "upgrade" && value == "websocket")
    {
        return echo(stream, name).await;
    }
    let path = target.split('?').next().unwrap();
    let seen = serde_json::json!({
        "upstream": name, "target": target, "headers": headers, "body_length": length,
    })
    .to_string();
    match path {
        "/cookies" => {
            let cookies = [
                "session_id=abc; Path=/; HttpOnly",
                "tz=UTC; Domain=.localhost; Path=/",
                "lax=1; SameSite=Lax; Domain=localhost; Secure",
                "none=1; SameSite=None; Secure",
            ];
            let lines: String = cookies
                .iter()
                .map(|cookie| format!("Set-Cookie: {cookie}\r\n"))
                .collect();
            answer(&mut stream, &format!("200 OK\r\n{lines}"), &seen).await
        }
        "/own-headers" => {
            let head = "404 Not Found\r\nCache-Control: public, max-age=604800\r\nETag: \"x\"\r\nX-Accel-Redirect: \
                        /.edge/page\r\nX-Accel-Expires: 100\r\nContent-Security-Policy: default-src none\r\n";
            answer(&mut stream, head, "odoo's own page").await
        }
        "/never" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            None
        }
        "/close" => None,
        path if path.ends_with("/events") => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
                .await
                .ok()?;
            tokio::time::sleep(Duration::from_secs(30)).await;
            None
        }
        _ => {
            answer(
                &mut stream,
                "200 OK\r\nContent-Type: application/json\r\nETag: \"x\"\r\n",
                &seen,
            )
            .await
        }
    }
}

async fn answer(stream: &mut TcpStream, head: &str, body: &str) -> Option<()> {
    let text = format!(
        "HTTP/1.1 {head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.ok()
}

/// The bytes after the handshake come back as they are: the edge must not look into them.
async fn echo(mut stream: TcpStream, name: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Upstream: {name}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        stream.write_all(&buffer[..count]).await.ok()?;
    }
}

async fn read_more(stream: &mut TcpStream, raw: &mut Vec<u8>) -> Option<()> {
    let mut chunk = vec![0; 16 * 1024];
    let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
    raw.extend_from_slice(&chunk[..count]);
    Some(())
}
