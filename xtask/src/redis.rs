//! The instance's Redis: on loopback, with a password, never evicting, its log synced each second.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::instance::Instance;
use crate::screen::Failure;
use crate::supervisor::{Leftovers, Service};
use crate::users::{self, Account};
use crate::{exec, files, process, secrets};

/// Name of the service.
pub(crate) const NAME: &str = "redis";

/// Writes the configuration and describes the service.
pub(crate) fn service(instance: &Instance, account: &Account) -> Result<Service> {
    let data = instance.state.join("redis");
    files::directory(&data, 0o700, Some(account))?;
    let configuration = format!(
        "# Written by `cargo xtask up`: a change made here by hand is lost.\n\
         bind 127.0.0.1\n\
         port {}\n\
         protected-mode yes\n\
         daemonize no\n\
         supervised no\n\
         dir {}\n\
         requirepass {}\n\
         appendonly yes\n\
         appendfsync everysec\n\
         save \"\"\n\
         maxmemory-policy noeviction\n\
         # Higher would ask for a limit of open files that some machines refuse.\n\
         maxclients 4000\n\
         # The log goes to standard output.\n\
         logfile \"\"\n",
        instance.ports.redis,
        data.display(),
        secrets::ensure(instance, "redis.password", None)?,
    );
    let file = instance.state.join("config/redis.conf");
    files::write(&file, configuration.as_bytes(), 0o400, Some(account))?;
    let program = exec::find("redis-server").context("redis-server is missing")?;
    let mut argv = Vec::new();
    if nix::unistd::geteuid().is_root() {
        argv.push("setpriv".to_owned());
        argv.extend(users::privileges(account, &[]));
    }
    argv.extend([program.display().to_string(), file.display().to_string()]);
    Ok(Service {
        name: NAME.to_owned(),
        argv,
        environment: BTreeMap::from([
            ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("LANG".into(), "C.UTF-8".into()),
        ]),
        stop_signal: "TERM".into(),
        stop_seconds: 20,
        tier: 0,
        leftovers: Leftovers::Group,
        stale_files: Vec::new(),
        reload: None,
        fingerprint: files::fingerprint(&[configuration.as_bytes()]),
    })
}

/// Connection URL.
pub(crate) fn url(instance: &Instance) -> Result<String> {
    Ok(format!(
        "redis://:{}@127.0.0.1:{}/0",
        secrets::ensure(instance, "redis.password", None)?,
        instance.ports.redis
    ))
}

/// Waits until Redis answers.
pub(crate) fn wait_ready(instance: &Instance) -> Result<()> {
    if !process::wait_until(Duration::from_secs(30), || ping(instance).is_ok()) {
        bail!(
            Failure::new(
                "Redis does not start",
                "see its log; then run `cargo xtask up` again"
            )
            .log(&instance.log(NAME))
        );
    }
    Ok(())
}

/// Signs in and asks for a sign of life.
pub(crate) fn ping(instance: &Instance) -> Result<()> {
    let password = secrets::read(instance, "redis.password").context("Redis has no password yet")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, instance.ports.redis));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes())?;
    let mut answer = [0; 64];
    let mut length = 0;
    while length < answer.len() {
        let got = stream.read(&mut answer[length..])?;
        length += got;
        let text = String::from_utf8_lossy(&answer[..length]);
        if text.contains("+PONG") {
            return Ok(());
        }
        if got == 0 || text.starts_with('-') {
            break;
        }
    }
    bail!("unexpected answer")
}
