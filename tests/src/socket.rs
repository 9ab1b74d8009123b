//! A tenant's websocket, as a browser opens it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::place::Place;

/// An open websocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens the websocket of a host with the headers that a page of `origin` would send, and others.
    ///
    /// # Errors
    /// The status of the refusal, or nothing answers.
    pub async fn open(
        host: &str,
        origin: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Result<Self, u16>> {
        let stream = TcpStream::connect(Place::get().edge()).await?;
        let mut request = format!("ws://{host}/websocket?version=19.0-2").into_client_request()?;
        for (name, value) in [("origin", origin)].iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse()?);
        }
        let opening = tokio_tungstenite::client_async(request, stream);
        match tokio::time::timeout(Duration::from_secs(30), opening)
            .await
            .context("no handshake")?
        {
            Ok((socket, _)) => Ok(Ok(Self(socket))),
            Err(Error::Http(response)) => Ok(Err(response.status().as_u16())),
            Err(error) => Err(error.into()),
        }
    }

    /// Subscribes to channels, as the web client does.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn subscribe(&mut self, channels: &[&str]) -> Result<()> {
        let event = json!({ "event_name": "subscribe", "data": { "channels": channels, "last": 0 } });
        Ok(self.0.send(Message::text(event.to_string())).await?)
    }

    /// Waits for a notification of this type and answers its payload; others are passed over.
    ///
    /// # Errors
    /// It does not come in time, or the connection is lost.
    pub async fn payload(&mut self, kind: &str, deadline: Duration) -> Result<Value> {
        let wait = async {
            while let Some(message) = self.0.next().await {
                let message = message?;
                let Ok(text) = message.to_text() else { continue };
                let notices: Value = serde_json::from_str(text).unwrap_or_default();
                for notice in notices.as_array().into_iter().flatten() {
                    if notice["message"]["type"] == kind {
                        return Ok(notice["message"]["payload"].clone());
                    }
                }
            }
            bail!("the websocket was closed")
        };
        tokio::time::timeout(deadline, wait)
            .await
            .with_context(|| format!("no {kind} came"))?
    }
}
