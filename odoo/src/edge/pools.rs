//! The pools' secrets as a file that Nginx loads, and the wait until it has.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use reqwest::header::HOST;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use url::Url;

use super::error::EdgeError;
use super::hostname::Hostname;
use super::routes::RouteDirectory;
use crate::keys::EdgeSecret;
use crate::names::PoolId;

/// What the edge needs to know of a pool beside its routes.
#[derive(Debug, Clone)]
pub struct PoolEdge {
    /// The pool.
    pub id: PoolId,
    /// What the edge shows to it.
    pub secret: EdgeSecret,
}

/// Names the content of what Nginx has to load: equal pools have equal generations, so setting them again asks for
/// no reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation(String);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn set(directory: &RouteDirectory, pools: &[PoolEdge]) -> Result<Generation, EdgeError> {
    let mut sorted: Vec<_> = pools.iter().collect();
    sorted.sort_by_key(|pool| pool.id);
    sorted.dedup_by_key(|pool| pool.id);
    let size = sorted.len() * 192;
    let mut text = Zeroizing::new(String::with_capacity(size + 64));
    for pool in sorted {
        writeln!(text, "{} \"{}\";", pool.id, pool.secret.expose()).expect("a String takes everything");
    }
    // A hash of 256-bit secrets tells nothing of them.
    let digest = Sha256::digest(text.as_bytes());
    let generation = Generation(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect());
    writeln!(text, "generation {generation};").expect("a String takes everything");

    // The order matters: whoever sees the new generation finds the new map. A crash in between is mended by the
    // next call, as both are compared with what is there.
    let lock = directory.lock()?;
    directory.write(&lock, "pools.map", &text)?;
    directory.write(&lock, "generation", &format!("{generation}\n"))?;
    Ok(generation)
}

/// Asks the edge which generation it has loaded.
#[derive(Debug, Clone)]
pub(super) struct GenerationProbe {
    client: reqwest::Client,
    url: Url,
    admin_host: Hostname,
}

/// Answers in a row, on new connections, that must agree, and their distance: for about 100 ms after a reload Nginx's
/// old processes go on accepting connections beside the new ones.
const AGREEING: u32 = 4;
const POLL: Duration = Duration::from_millis(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

impl GenerationProbe {
    pub(super) fn new(edge: &Url, admin_host: Hostname) -> Result<Self, EdgeError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(PROBE_TIMEOUT)
            .build()
            .map_err(EdgeError::Client)?;
        let mut url = edge.clone();
        url.set_path("/.edge/generation");
        url.set_query(None);
        Ok(Self {
            client,
            url,
            admin_host,
        })
    }

    pub(super) async fn wait(&self, expected: &Generation, within: Duration) -> Result<(), EdgeError> {
        let start = Instant::now();
        let mut agreed = 0;
        loop {
            let seen = self.loaded().await;
            agreed = if seen.as_deref() == Ok(&expected.0) {
                agreed + 1
            } else {
                0
            };
            if agreed == AGREEING {
                return Ok(());
            }
            if start.elapsed() + POLL > within {
                let seen = match seen {
                    Ok(generation) => format!("it has {generation}"),
                    Err(error) => format!("it could not be asked: {error}"),
                };
                return Err(EdgeError::NotLoaded {
                    expected: expected.clone(),
                    seen,
                    waited: within,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn loaded(&self) -> Result<String, String> {
        let request = self
            .client
            .get(self.url.clone())
            .header(HOST, self.admin_host.as_str());
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        let text = answer
            .text()
            .await
            .map_err(|error| error.without_url().to_string())?;
        Ok(text.trim().to_owned())
    }
}
