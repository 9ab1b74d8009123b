//! A stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::api::Api;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its `event:`.
    pub name: String,
    /// Its `id:`.
    pub id: i64,
    /// Its `data:`.
    pub data: Value,
}

/// An open stream.
#[derive(Debug)]
pub struct Events {
    response: Response,
    text: String,
    /// Comments that came.
    pub comments: Vec<String>,
}

impl Events {
    /// Opens the stream of an operation.
    ///
    /// # Errors
    /// It was refused.
    pub async fn open(api: &Api, operation: &str, last: Option<i64>) -> Result<Self> {
        let mut request = api.request(Method::GET, &format!("/v1/operations/{operation}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await?;
        ensure!(response.status() == 200, "refused: {}", response.status());
        let kind = response.headers().get("content-type").context("no media type")?;
        ensure!(
            kind.to_str()?.starts_with("text/event-stream"),
            "not a stream: {kind:?}"
        );
        Ok(Self {
            response,
            text: String::new(),
            comments: Vec::new(),
        })
    }

    /// The next event; `None` once the stream has ended as it should.
    ///
    /// # Errors
    /// It was cut off, or nothing comes in time.
    pub async fn next(&mut self, deadline: Duration) -> Result<Option<Event>> {
        tokio::time::timeout(deadline, self.read())
            .await
            .with_context(|| format!("no event within {deadline:?}"))?
    }

    async fn read(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(comment) = block.strip_prefix(':') {
                    self.comments.push(comment.trim().to_owned());
                    continue;
                }
                return parse(&block).map(Some);
            }
            match self.response.chunk().await? {
                Some(chunk) => self.text.push_str(std::str::from_utf8(&chunk)?),
                None => {
                    ensure!(self.text.is_empty(), "cut off within an event: {}", self.text);
                    return Ok(None);
                }
            }
        }
    }

    /// All events to the end of the stream.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn rest(mut self, deadline: Duration) -> Result<Vec<Event>> {
        let all = futures::stream::unfold(&mut self, async |events| {
            let next = events.read().await.transpose()?;
            Some((next, events))
        });
        let all: Vec<Result<Event>> = tokio::time::timeout(deadline, all.collect())
            .await
            .with_context(|| format!("the stream goes on after {deadline:?}"))?;
        all.into_iter().collect()
    }
}

fn parse(block: &str) -> Result<Event> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .map(str::trim_start)
            .next()
            .with_context(|| format!("no {name} in {block}"))
    };
    Ok(Event {
        name: field("event:")?.to_owned(),
        id: field("id:")?.parse()?,
        data: serde_json::from_str(field("data:")?)?,
    })
}
