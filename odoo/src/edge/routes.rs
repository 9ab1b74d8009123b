//! Routes as symbolic links: the form of a link's target, and the file operations on `hosts/` and `to/`.
//!
//! Everything here blocks, for the few microseconds of some system calls.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::{EdgeError, at};
use super::hostname::Hostname;
use super::lock::Lock;
use crate::names::{DatabaseKind, DatabaseName, PoolId};

/// Whether the edge lets a tenant's visitors through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// Visitors reach Odoo.
    Active,
    /// Visitors read that the tenant is suspended (402).
    Suspended,
    /// Visitors read that the tenant is under maintenance (503, `Retry-After`).
    Maintenance,
}

impl RouteState {
    const ALL: [RouteState; 3] = [RouteState::Active, RouteState::Suspended, RouteState::Maintenance];

    const fn as_str(self) -> &'static str {
        match self {
            RouteState::Active => "active",
            RouteState::Suspended => "suspended",
            RouteState::Maintenance => "maintenance",
        }
    }
}

/// Where requests of a host go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The pool whose secret the edge shows.
    pub pool: PoolId,
    /// The port of the pool's HTTP server.
    pub web_port: u16,
    /// The port of the pool's evented server, for websockets.
    pub gevent_port: u16,
    /// The tenant's database.
    pub database: DatabaseName,
    /// Whether visitors are let through.
    pub state: RouteState,
}

/// What `hosts/` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// The routes, by host.
    pub routes: Vec<(Hostname, Route)>,
    /// Names of entries that are no routes of ours. They serve nothing and are never touched.
    pub foreign: Vec<String>,
}

impl Route {
    /// `<web port>-<gevent port>-<pool>/<database>.<state>`, the form that the map in `nginx.conf.in` takes apart.
    fn target(&self) -> PathBuf {
        let pool = format!("{}-{}-{}", self.web_port, self.gevent_port, self.pool);
        Path::new(&pool).join(format!("{}.{}", self.database, self.state.as_str()))
    }

    fn parse(target: &str) -> Option<Self> {
        let (directory, file) = target.split_once('/')?;
        let mut parts = directory.splitn(3, '-');
        let (web_port, gevent_port, pool) = (parts.next()?, parts.next()?, parts.next()?);
        let (database, state) = file.split_once('.')?;
        let route = Self {
            pool: pool.parse().ok()?,
            web_port: web_port.parse().ok()?,
            gevent_port: gevent_port.parse().ok()?,
            database: database.parse().ok()?,
            state: RouteState::ALL
                .into_iter()
                .find(|known| known.as_str() == state)?,
        };
        // Ports with leading zeros and the like are not of our making.
        (route.target().to_str() == Some(target)).then_some(route)
    }
}

/// The directory `EDGE_PATH`.
#[derive(Debug, Clone)]
pub(super) struct RouteDirectory {
    path: PathBuf,
}

impl RouteDirectory {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn link(&self, host: &Hostname) -> PathBuf {
        self.path.join("hosts").join(host.as_str())
    }

    pub(super) fn prepare(&self) -> Result<(), EdgeError> {
        for directory in [self.path.clone(), self.path.join("hosts"), self.path.join("to")] {
            make_directory(&directory)?;
        }
        Ok(())
    }

    pub(super) fn publish(&self, host: &Hostname, route: &Route, writer: &str) -> Result<bool, EdgeError> {
        if route.database.kind() != DatabaseKind::Tenant {
            return Err(EdgeError::NotATenant(route.database.clone()));
        }
        let lock = self.lock()?;
        let present = self.route(host)?;
        match &present {
            Some(present) if present == route => return Ok(false),
            Some(present) if present.database != route.database => {
                return Err(EdgeError::HostTaken {
                    host: host.clone(),
                    database: present.database.clone(),
                });
            }
            Some(_) | None => {}
        }
        let target = self.path.join("to").join(route.target());
        make_directory(target.parent().expect("a target has its pool's directory"))?;
        make_empty_file(&target)?;

        // Staged under a name that no host has, then renamed: a request sees the old route or the new one.
        let staged = self.path.join("hosts").join(staging_name(host, writer));
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&staged)(error)),
            Ok(()) | Err(_) => {}
        }
        symlink(Path::new("../to").join(route.target()), &staged).map_err(at(&staged))?;
        let link = self.link(host);
        lock.ensure_held()?;
        fs::rename(&staged, &link).map_err(at(&link))?;
        if let Some(present) = present {
            self.retire(&present)?;
        }
        Ok(true)
    }

    pub(super) fn withdraw(&self, host: &Hostname, database: &DatabaseName) -> Result<bool, EdgeError> {
        let lock = self.lock()?;
        match self.route(host)? {
            Some(present) if present.database == *database => {
                let link = self.link(host);
                lock.ensure_held()?;
                fs::remove_file(&link).map_err(at(&link))?;
                self.retire(&present)?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Marks the file of a replaced route as used just now, so that [`Self::sweep`] counts its age from here: a
    /// request that has read the old link may look for it. The time of a file that another user made can't be set; the
    /// route is replaced all the same.
    fn retire(&self, route: &Route) -> Result<(), EdgeError> {
        let target = self.path.join("to").join(route.target());
        match OpenOptions::new()
            .write(true)
            .open(&target)
            .and_then(|file| file.set_modified(SystemTime::now()))
        {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                Err(at(&target)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(super) fn route(&self, host: &Hostname) -> Result<Option<Route>, EdgeError> {
        let link = self.link(host);
        match fs::read_link(&link) {
            Ok(target) => parse_link(&target).map(Some).ok_or(EdgeError::Foreign(link)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // What is there is no symbolic link.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Err(EdgeError::Foreign(link)),
            Err(error) => Err(at(&link)(error)),
        }
    }

    pub(super) fn routes(&self) -> Result<Routes, EdgeError> {
        let mut found = Routes::default();
        for entry in list(&self.path.join("hosts"))? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(STAGING_PREFIX) {
                continue;
            }
            let route = name
                .parse::<Hostname>()
                .ok()
                .map(|host| (self.route(&host), host));
            match route {
                Some((Ok(Some(route)), host)) => found.routes.push((host, route)),
                // Withdrawn since the directory was read.
                Some((Ok(None), _)) => {}
                Some((Err(EdgeError::Foreign(_)), _)) | None => found.foreign.push(name),
                Some((Err(error), _)) => return Err(error),
            }
        }
        found.routes.sort_by(|a, b| a.0.cmp(&b.0));
        found.foreign.sort();
        Ok(found)
    }

    pub(super) fn sweep(&self, min_age: Duration) -> Result<usize, EdgeError> {
        let lock = self.lock()?;
        let mut removed = 0;
        for entry in list(&self.path.join("hosts"))? {
            let staged = entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX);
            if staged && is_older(&entry.path(), min_age)? {
                removed += remove(&entry.path())?;
            }
        }
        let used: std::collections::HashSet<_> = self
            .routes()?
            .routes
            .iter()
            .map(|(_, route)| self.path.join("to").join(route.target()))
            .collect();
        for pool in list(&self.path.join("to"))? {
            for entry in list(&pool.path())? {
                let target = entry.path();
                let relative = target
                    .strip_prefix(self.path.join("to"))
                    .expect("listed from there");
                let ours = relative.to_str().and_then(Route::parse).is_some();
                if ours && !used.contains(&target) && is_older(&target, min_age)? {
                    lock.ensure_held()?;
                    removed += remove(&target)?;
                }
            }
            // Fails where something is left, as it should. `publish` makes it anew, under the same lock.
            match fs::remove_dir(pool.path()) {
                Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                    return Err(at(&pool.path())(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(removed)
    }

    /// Writes `name` as a whole or not at all, readable by the group, durable before it is visible: Nginx does not
    /// start with half a file. Does nothing where the content is the same already.
    pub(super) fn write(&self, lock: &Lock, name: &str, content: &str) -> Result<(), EdgeError> {
        use std::io::Write as _;
        let path = self.path.join(name);
        if fs::read(&path).is_ok_and(|present| present == content.as_bytes()) {
            return Ok(());
        }
        // The caller holds the lock, so nobody else writes under this name.
        let staged = self.path.join(format!("{STAGING_PREFIX}{name}"));
        remove(&staged)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&staged)
            .map_err(at(&staged))?;
        file.set_permissions(fs::Permissions::from_mode(0o640))
            .map_err(at(&staged))?;
        file.write_all(content.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(at(&staged))?;
        lock.ensure_held()?;
        fs::rename(&staged, &path).map_err(at(&path))
    }

    /// Changes of several processes, one after another. Readers need no lock.
    pub(super) fn lock(&self) -> Result<Lock, EdgeError> {
        Lock::take(&self.path)
    }
}

/// Begins with what no host name begins with, so that Nginx can't be asked for it.
const STAGING_PREFIX: &str = ".staged-";

fn staging_name(host: &Hostname, writer: &str) -> String {
    use sha2::Digest as _;
    // Hashed, as host and writer together may be longer than a file name.
    let digest = sha2::Sha256::digest(format!("{writer}\n{host}").as_bytes());
    let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{STAGING_PREFIX}{name}")
}

fn parse_link(target: &Path) -> Option<Route> {
    Route::parse(target.to_str()?.strip_prefix("../to/")?)
}

fn make_directory(path: &Path) -> Result<(), EdgeError> {
    match DirBuilder::new().mode(0o750).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made.map_err(at(path))?,
    }
    // The umask may have taken the group's rights, without which Nginx sees no route. Other bits (the parent's
    // setgid, which hands its group down) stay.
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode();
    if mode & 0o750 == 0o750 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o750)).map_err(at(path))
}

fn make_empty_file(path: &Path) -> Result<(), EdgeError> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)
    {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop).map_err(at(path)),
    }
}

fn list(directory: &Path) -> Result<Vec<fs::DirEntry>, EdgeError> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect::<io::Result<_>>().map_err(at(directory)),
        // A file of somebody else's, or a pool's directory that was swept meanwhile.
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(at(directory)(error)),
    }
}

fn is_older(path: &Path, age: Duration) -> Result<bool, EdgeError> {
    let modified = fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(at(path))?;
    Ok(SystemTime::now()
        .duration_since(modified)
        .is_ok_and(|present| present >= age))
}

fn remove(path: &Path) -> Result<usize, EdgeError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(1),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(at(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use uuid::Uuid;

    use super::*;

    fn route(web_port: u16, gevent_port: u16, pool: u128, tenant: u128, state: usize) -> Route {
        Route {
            pool: PoolId::new(Uuid::from_u128(pool)),
            web_port,
            gevent_port,
            database: DatabaseName::tenant(Uuid::from_u128(tenant)),
            state: RouteState::ALL[state],
        }
    }

    proptest! {
        #[test]
        fn a_route_is_read_as_it_was_written(
            web in any::<u16>(), gevent in any::<u16>(), pool in any::<u128>(), tenant in any::<u128>(), state in 0..3_usize,
        ) {
            let route = route(web, gevent, pool, tenant, state);
            prop_assert_eq!(parse_link(&Path::new("../to").join(route.target())), Some(route));
        }

        #[test]
        fn whatever_a_link_says_reading_it_does_not_fail(target in any::<String>()) {
            drop(parse_link(Path::new(&target)));
        }
    }

    #[test]
    fn only_the_one_spelling_is_a_route() {
        let good = format!("../to/{}", route(8600, 8601, 1, 2, 0).target().display());
        assert!(parse_link(Path::new(&good)).is_some());
        for bad in [
            good.replace("../to/", "to/"),
            good.replace("../to/", "../../to/"),
            good.replace("../to/", "../to//"),
            good.replace("8600", "08600"),
            good.replace("8600", "+8600"),
            good.replace("8600", "86000"),
            good.replace(".active", ".gone"),
            good.replace(".active", ""),
            good.replace("/t_", "/tpl_x"),
            format!("{good}/"),
            format!("{good}/.."),
        ] {
            assert!(parse_link(Path::new(&bad)).is_none(), "{bad}");
        }
    }
}
