//! HTTP/1.1 byte by byte, for what a client library would never send.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::Answer;

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Nothing listens there.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            stream: TcpStream::connect(address).await?,
            read: Vec::new(),
        })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection was closed.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads an answer with its body.
    ///
    /// # Errors
    /// None comes in time, or it is cut off.
    pub async fn answer(&mut self, deadline: Duration) -> Result<Answer> {
        tokio::time::timeout(deadline, self.read_answer(false))
            .await
            .with_context(|| format!("no answer within {deadline:?}"))?
    }

    /// Reads the answer to a HEAD request, which has no body.
    ///
    /// # Errors
    /// None comes in time, or it is cut off.
    pub async fn head_answer(&mut self, deadline: Duration) -> Result<Answer> {
        tokio::time::timeout(deadline, self.read_answer(true))
            .await
            .with_context(|| format!("no answer within {deadline:?}"))?
    }

    /// Sends a request on a connection of its own and reads the answer.
    ///
    /// # Errors
    /// None comes.
    pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Answer> {
        let mut wire = Self::open(address).await?;
        wire.send(request).await?;
        wire.answer(Duration::from_secs(20)).await
    }

    /// Whether the other side closes, and sends nothing more.
    ///
    /// # Errors
    /// It does neither in time.
    pub async fn is_closed(&mut self, deadline: Duration) -> Result<bool> {
        let mut rest = Vec::new();
        let closing = self.stream.read_to_end(&mut rest);
        match tokio::time::timeout(deadline, closing)
            .await
            .context("it stays open")?
        {
            Ok(_) => Ok(rest.is_empty() && self.read.is_empty()),
            // Reset: closed too.
            Err(_) => Ok(true),
        }
    }

    async fn more(&mut self) -> Result<usize> {
        Ok(self.stream.read_buf(&mut self.read).await?)
    }

    async fn read_answer(&mut self, without_body: bool) -> Result<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(self.more().await? > 0, "closed without an answer");
        };
        let head = String::from_utf8(self.read.drain(..end).collect())?;
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .context("no status")?
            .parse()?;
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').context("a header has a colon")?;
            headers.append(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value.trim())?,
            );
        }
        let mut answer = Answer {
            status,
            headers,
            url: String::new(),
            text: String::new(),
        };
        if !without_body && !matches!(status, 100..200 | 204 | 304) {
            answer.text = self.body(&answer).await?;
        }
        Ok(answer)
    }

    async fn body(&mut self, answer: &Answer) -> Result<String> {
        if answer.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16)?;
                let chunk = self.exactly(size + 2).await?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return Ok(String::from_utf8(body)?);
                }
            }
        }
        let length = answer.header("content-length").parse().unwrap_or_default();
        Ok(String::from_utf8(self.exactly(length).await?)?)
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.read.windows(2).position(|bytes| bytes == b"\r\n") {
                return Ok(String::from_utf8(self.read.drain(..at + 2).collect())?);
            }
            ensure!(self.more().await? > 0, "cut off");
        }
    }

    async fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.read.len() < count {
            ensure!(self.more().await? > 0, "cut off");
        }
        Ok(self.read.drain(..count).collect())
    }
}
