//! Odoo's filestores: one directory a database, content-addressed files that Odoo never writes in place.
//!
//! A template's files belong to the platform's user with mode 0444, and a tenant's tree hard-links them: Odoo's user
//! may remove its name of a file but can neither write nor chmod it. A tree appears and disappears by one rename,
//! so that nobody meets half of one.
//!
//! ```text
//! <root>/tenants/<database>/<xx>/<file>      what pools mount
//! <root>/templates/<template>/<xx>/<file>    never mounted
//! <root>/staging/<name>, <root>/trash/<name> on their way in and out
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::names::DatabaseName;

/// Directories that Odoo's group may write to; files in them inherit the group, so that we may remove what Odoo
/// made.
const SHARED_DIRECTORY: u32 = 0o2775;

/// A template's file: nobody writes it again.
const SEALED_FILE: u32 = 0o444;

/// Where trees are on their way in and out.
const UNDER_WAY: [&str; 2] = ["staging", "trash"];

/// What can go wrong with a filestore.
#[derive(Debug, thiserror::Error)]
pub enum FilestoreError {
    /// A file or directory could not be handled.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is no published filestore of this template.
    #[error("template {0} has no filestore")]
    NoTemplate(DatabaseName),
    /// A tree holds something that is neither a file nor a directory.
    #[error("{0} is neither a file nor a directory")]
    Irregular(PathBuf),
}

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CloneReport {
    /// Files that share the template's inode.
    pub linked: u64,
    /// Files that had to be copied: another file system, or a file with as many links as it can have.
    pub copied: u64,
    /// Files that were there already.
    pub present: u64,
}

/// A database's tree, for whoever compares what should be with what is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeEntry {
    /// The database that it is named after.
    pub database: DatabaseName,
    /// Whether it belongs to the filestore's own user, who makes all of them. Another's was put there by hand.
    pub ours: bool,
}

/// The filestores of one platform. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Filestore {
    root: PathBuf,
    group: Option<u32>,
}

impl Filestore {
    /// The filestores under `root`, shared with Odoo's processes by the group `group`; without one the directories
    /// keep the group that they are made with.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, group: Option<u32>) -> Self {
        Self {
            root: root.into(),
            group,
        }
    }

    /// The directory that pools mount as Odoo's `filestore`.
    #[must_use]
    pub fn tenants(&self) -> PathBuf {
        self.root.join("tenants")
    }

    fn tree(&self, database: &DatabaseName) -> PathBuf {
        self.tenants().join(database.as_str())
    }

    fn template(&self, template: &DatabaseName) -> PathBuf {
        self.root.join("templates").join(template.as_str())
    }

    /// Makes the directories that everything else expects. Safe to run at each start.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn prepare(&self) -> Result<(), FilestoreError> {
        self.blocking(|store| {
            for (name, mode) in [
                ("tenants", 0o755),
                ("templates", 0o700),
                ("staging", 0o700),
                ("trash", 0o700),
            ] {
                let path = store.root.join(name);
                fs::create_dir_all(&path).map_err(failed("make", &path))?;
                set_mode(&path, mode)?;
            }
            Ok(())
        })
        .await
    }

    /// Makes an empty tree that Odoo may write to; one that is there stays.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn make_empty(&self, database: &DatabaseName) -> Result<(), FilestoreError> {
        let database = database.clone();
        self.blocking(move |store| store.make_shared(&store.tree(&database)))
            .await
    }

    /// Gives `database` every file of `template`, as links. A tree that is there is completed, so a second run finds
    /// what the first one made. `tag` names the run (its job and epoch): two runs never share a staging directory.
    ///
    /// # Errors
    /// [`FilestoreError::NoTemplate`], [`FilestoreError::Io`].
    pub async fn clone_template(
        &self,
        template: &DatabaseName,
        database: &DatabaseName,
        tag: &str,
    ) -> Result<CloneReport, FilestoreError> {
        let (template, database, staged) = (template.clone(), database.clone(), staging_name(database, tag));
        self.blocking(move |store| {
            let source = store.template(&template);
            if !source.is_dir() {
                return Err(FilestoreError::NoTemplate(template));
            }
            let target = store.tree(&database);
            let mut report = CloneReport::default();
            if target.is_dir() {
                store.link_tree(&source, &target, &mut report)?;
                return Ok(report);
            }
            let staged = store.root.join("staging").join(staged);
            remove_tree(&staged)?;
            store.link_tree(&source, &staged, &mut report)?;
            fs::rename(&staged, &target).map_err(failed("publish", &target))?;
            Ok(report)
        })
        .await
    }

    /// Takes the tree that Odoo wrote while a template was built, copies it into files of our own that nobody may
    /// write, and publishes them as the template's. Says how many files there are.
    ///
    /// # Errors
    /// [`FilestoreError::Io`], [`FilestoreError::Irregular`].
    pub async fn seal_template(&self, template: &DatabaseName, tag: &str) -> Result<u64, FilestoreError> {
        let (template, staged) = (template.clone(), staging_name(template, tag));
        self.blocking(move |store| {
            let target = store.template(&template);
            if target.is_dir() {
                return count_files(&target);
            }
            let staged = store.root.join("staging").join(staged);
            remove_tree(&staged)?;
            let source = store.tree(&template);
            let files = if source.is_dir() {
                store.copy_sealed(&source, &staged)?
            } else {
                make_directory(&staged).map(|()| 0)?
            };
            fs::rename(&staged, &target).map_err(failed("publish", &target))?;
            Ok(files)
        })
        .await
    }

    /// Whether the template's files have been published.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn has_template(&self, template: &DatabaseName) -> Result<bool, FilestoreError> {
        let template = template.clone();
        self.blocking(move |store| Ok(store.template(&template).is_dir()))
            .await
    }

    /// Names of `names` (as `ir_attachment.store_fname` holds them) that the template lacks.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn missing_from_template(
        &self,
        template: &DatabaseName,
        names: Vec<String>,
    ) -> Result<Vec<String>, FilestoreError> {
        let template = template.clone();
        self.blocking(move |store| {
            let root = store.template(&template);
            Ok(names
                .into_iter()
                .filter(|name| !root.join(name).is_file())
                .collect())
        })
        .await
    }

    /// Removes the database's tree, if it is there: out of the way by one rename, then file by file.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn delete(&self, database: &DatabaseName) -> Result<(), FilestoreError> {
        let database = database.clone();
        self.blocking(move |store| store.discard(&store.tree(&database), database.as_str()))
            .await
    }

    /// Removes the template's files, if they are there. Trees that link them keep theirs.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn delete_template(&self, template: &DatabaseName) -> Result<(), FilestoreError> {
        let template = template.clone();
        self.blocking(move |store| store.discard(&store.template(&template), template.as_str()))
            .await
    }

    /// Names of the trees on their way in and out, each a database's with the run that staged it or a random part
    /// behind a full stop. Those of running jobs are among them.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn under_way(&self) -> Result<Vec<String>, FilestoreError> {
        self.blocking(|store| {
            let mut names = Vec::new();
            for place in UNDER_WAY {
                let paths = entries(&store.root.join(place))?;
                names.extend(
                    paths
                        .iter()
                        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned)),
                );
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    /// Removes trees on their way in or out, by names of [`Filestore::under_way`]: what runs that were killed left. Says
    /// how many there were.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn remove_left_behind(&self, names: Vec<String>) -> Result<u64, FilestoreError> {
        self.blocking(move |store| {
            let mut removed = 0;
            for place in UNDER_WAY {
                for path in entries(&store.root.join(place))? {
                    let listed = |name: &str| names.iter().any(|listed| listed == name);
                    if path
                        .file_name()
                        .and_then(std::ffi::OsStr::to_str)
                        .is_some_and(listed)
                    {
                        remove_tree(&path)?;
                        removed += 1;
                    }
                }
            }
            Ok(removed)
        })
        .await
    }

    /// The trees of databases.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn databases(&self) -> Result<Vec<TreeEntry>, FilestoreError> {
        self.blocking(|store| trees(&store.tenants())).await
    }

    /// The published trees of templates.
    ///
    /// # Errors
    /// [`FilestoreError::Io`].
    pub async fn templates(&self) -> Result<Vec<TreeEntry>, FilestoreError> {
        self.blocking(|store| trees(&store.root.join("templates"))).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, FilestoreError> + Send + 'static,
    ) -> Result<T, FilestoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .expect("work on files neither panics nor is cancelled")
    }

    fn make_shared(&self, path: &Path) -> Result<(), FilestoreError> {
        make_directory(path)?;
        // Odoo's user may have put a symbolic link where we would make a directory.
        if !fs::symlink_metadata(path).map_err(failed("read", path))?.is_dir() {
            return Err(FilestoreError::Irregular(path.to_owned()));
        }
        if let Some(group) = self.group {
            // Only where it differs: who is no member of the group may still complete a tree that has it.
            let found = fs::metadata(path).map_err(failed("read", path))?.gid();
            if found != group {
                std::os::unix::fs::chown(path, None, Some(group)).map_err(failed("share", path))?;
            }
        }
        // After the owner: changing it clears the bit that hands the group on. Explicit, since the process's umask
        // would take the group's right to write.
        if fs::metadata(path).map_err(failed("read", path))?.mode() & 0o7777 != SHARED_DIRECTORY {
            set_mode(path, SHARED_DIRECTORY)?;
        }
        Ok(())
    }

    fn link_tree(
        &self,
        source: &Path,
        target: &Path,
        report: &mut CloneReport,
    ) -> Result<(), FilestoreError> {
        self.make_shared(target)?;
        for entry in entries(source)? {
            let to = target.join(entry.file_name().unwrap_or_default());
            if entry.is_dir() {
                self.link_tree(&entry, &to, report)?;
                continue;
            }
            match fs::hard_link(&entry, &to) {
                Ok(()) => report.linked += 1,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => report.present += 1,
                Err(error) if must_copy(&error) => {
                    copy_sealed_file(&entry, &to)?;
                    report.copied += 1;
                }
                Err(error) => return Err(failed("link", &to)(error)),
            }
        }
        Ok(())
    }

    /// Copies a tree that Odoo owns into one that only we may change.
    fn copy_sealed(&self, source: &Path, target: &Path) -> Result<u64, FilestoreError> {
        make_directory(target)?;
        let mut files = 0;
        for entry in entries(source)? {
            let to = target.join(entry.file_name().unwrap_or_default());
            // Not followed: a link that Odoo's process made could lead to any file that we may read.
            let kind = fs::symlink_metadata(&entry)
                .map_err(failed("read", &entry))?
                .file_type();
            if kind.is_dir() {
                files += self.copy_sealed(&entry, &to)?;
            } else if kind.is_file() {
                copy_sealed_file(&entry, &to)?;
                files += 1;
            } else {
                return Err(FilestoreError::Irregular(entry));
            }
        }
        Ok(files)
    }

    fn discard(&self, path: &Path, name: &str) -> Result<(), FilestoreError> {
        let trash = self
            .root
            .join("trash")
            .join(format!("{name}.{}", Uuid::new_v4().simple()));
        match fs::rename(path, &trash) {
            Ok(()) => remove_tree(&trash),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", path)(error)),
        }
    }
}

/// What in a directory is named after a database.
fn trees(directory: &Path) -> Result<Vec<TreeEntry>, FilestoreError> {
    let owner = fs::metadata(directory).map_err(failed("read", directory))?.uid();
    let mut trees = Vec::new();
    for path in entries(directory)? {
        let name = path.file_name().and_then(std::ffi::OsStr::to_str);
        let Some(database) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::symlink_metadata(&path) {
            Ok(found) => trees.push(TreeEntry {
                database,
                ours: found.is_dir() && found.uid() == owner,
            }),
            // Discarded since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
    }
    trees.sort();
    Ok(trees)
}

/// A file of another file system, one with as many links as it can have, and one that the system forbids us to link.
fn must_copy(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.raw_os_error().is_some_and(|code| {
        matches!(
            Errno::from_raw(code),
            Errno::EXDEV | Errno::EMLINK | Errno::EPERM | Errno::ENOTSUP
        )
    })
}

/// Copies within the kernel, which shares the blocks where the file system can, and seals the copy. It appears under
/// its name when it is whole.
fn copy_sealed_file(from: &Path, to: &Path) -> Result<(), FilestoreError> {
    let part = to.with_extension("part");
    if let Err(error) = fs::remove_file(&part)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed("remove", &part)(error));
    }
    fs::copy(from, &part).map_err(failed("copy", from))?;
    set_mode(&part, SEALED_FILE)?;
    fs::rename(&part, to).map_err(failed("publish", to))
}

fn staging_name(database: &DatabaseName, tag: &str) -> String {
    let tag: String = tag
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{database}.{tag}")
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilestoreError {
    let path = path.to_owned();
    move |source| FilestoreError::Io { doing, path, source }
}

fn make_directory(path: &Path) -> Result<(), FilestoreError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed("make", path)),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FilestoreError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", path))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, FilestoreError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(failed("list", directory))
}

fn count_files(directory: &Path) -> Result<u64, FilestoreError> {
    entries(directory)?.iter().try_fold(0, |count, path| {
        Ok(count + if path.is_dir() { count_files(path)? } else { 1 })
    })
}

fn remove_tree(path: &Path) -> Result<(), FilestoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove", path)),
    }
}
