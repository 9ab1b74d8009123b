//! Whether a pool serves a tenant, asked as the edge would ask.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use crate::keys::EdgeSecret;
use crate::names::DatabaseName;

/// The header in which the edge shows its secret.
pub const EDGE_HEADER: &str = "x-platform-edge";

/// The header in which the edge names the database.
pub const DATABASE_HEADER: &str = "x-platform-database";

/// One request: the first of a database loads its registry, half a second with many modules and more on a busy
/// machine.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// Why a tenant is not served.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The pool did not answer in time, or not at all.
    #[error("the pool does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The pool answered, but not as it should.
    #[error("the pool answers {0} where 200 was expected")]
    Status(u16),
    /// A host name or secret that no header can carry.
    #[error("the host name or the edge secret holds characters that no header can carry")]
    Header,
}

/// Asks pools. Holds a client without cookies, redirects or proxies.
#[derive(Debug, Clone)]
pub struct Probe {
    client: reqwest::Client,
}

impl Probe {
    /// A probe with a connection pool of its own.
    ///
    /// # Errors
    /// The client's, when the system gives it no resources.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_DEADLINE)
            .connect_timeout(Duration::from_secs(2))
            .build()?;
        Ok(Self { client })
    }

    /// Asks once whether the process at `address` (a pool's web or gevent) answers at all; touches no database. Faster
    /// than the runtime's own check, which looks only every few seconds.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn answers(&self, address: SocketAddr) -> Result<(), ProbeError> {
        let url = format!("http://{address}/platform/health");
        expect_ok(self.client.get(url).send().await)
    }

    /// Asks once whether the tenant is served: one of the pool's processes logs in to its database, loads it and finds its
    /// way to a page. The page is Odoo's smallest: drawing a real one costs more than all the rest, and who visits may come
    /// to another process, which draws it again. Anything but 200 is an error.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn serves(
        &self,
        web: SocketAddr,
        host: &str,
        database: &DatabaseName,
        secret: &EdgeSecret,
    ) -> Result<(), ProbeError> {
        let mut shown = header(secret.expose())?;
        shown.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static(EDGE_HEADER), shown),
            (
                HeaderName::from_static(DATABASE_HEADER),
                header(database.as_str())?,
            ),
            (HOST, header(host)?),
        ]);
        let url = format!("http://{web}/web/health");
        expect_ok(self.client.get(url).headers(headers).send().await)
    }
}

fn header(text: &str) -> Result<HeaderValue, ProbeError> {
    HeaderValue::from_str(text).map_err(|_| ProbeError::Header)
}

fn expect_ok(response: Result<reqwest::Response, reqwest::Error>) -> Result<(), ProbeError> {
    match response.map_err(ProbeError::Unreachable)?.status().as_u16() {
        200 => Ok(()),
        status => Err(ProbeError::Status(status)),
    }
}
