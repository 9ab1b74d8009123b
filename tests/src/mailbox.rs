//! A mail server: aiosmtpd, which takes what it is sent and files it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};

use crate::wait;

/// A mail server on loopback. It is killed when a test lets go of it.
#[derive(Debug)]
pub struct Mailbox {
    _server: Child,
    /// Its address, for `SMTP_URL`.
    pub url: String,
    folder: PathBuf,
}

impl Mailbox {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// It does not take mail in time.
    pub async fn open() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let folder = std::env::temp_dir().join(format!("mailbox-{}", uuid::Uuid::new_v4().simple()));
        let server = Command::new("/usr/bin/python3")
            .args(["-m", "aiosmtpd", "--nosetuid", "--listen", &address])
            .args(["--class", "aiosmtpd.handlers.Mailbox"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("aiosmtpd can't be started")?;
        wait::until(Duration::from_secs(15), "the mail server listens", async || {
            tokio::net::TcpStream::connect(&address).await?;
            Ok(())
        })
        .await?;
        Ok(Self {
            _server: server,
            url: format!("smtp://{address}"),
            folder,
        })
    }

    /// The messages that came, as they were sent.
    ///
    /// # Errors
    /// They can't be read.
    pub fn messages(&self) -> Result<Vec<String>> {
        let folder = self.folder.join("new");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        std::fs::read_dir(folder)?
            .map(|file| Ok(std::fs::read_to_string(file?.path())?))
            .collect()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
