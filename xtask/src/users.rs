//! Each process runs as a user of its own, so that a hole in one opens no other. Without root all are the present user.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Group, Uid, User, geteuid};

use crate::exec;

/// A user as services run it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Name.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Primary group's id.
    pub(crate) gid: u32,
    /// Supplementary groups' ids.
    pub(crate) groups: Vec<u32>,
}

/// The users of the platform's processes.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    /// The api.
    pub(crate) api: Account,
    /// The worker; a member of Odoo's group, so that it can delete what Odoo made.
    pub(crate) worker: Account,
    /// Odoo's containers.
    pub(crate) odoo: Account,
    /// Nginx's workers.
    pub(crate) edge: Account,
    /// The one command that changes the control plane's tables.
    pub(crate) migrator: Account,
    /// Both Postgres clusters.
    pub(crate) postgres: Account,
    /// Redis.
    pub(crate) redis: Account,
    /// Gid of those who may read the master key.
    pub(crate) platform_gid: u32,
}

impl Accounts {
    /// Makes the users that are missing (as root), or takes the present user for all.
    pub(crate) fn ensure() -> Result<Self> {
        if !geteuid().is_root() {
            let me = present()?;
            let all = |_: &str| me.clone();
            return Ok(Self {
                api: all("api"),
                worker: all("worker"),
                odoo: all("odoo"),
                edge: all("edge"),
                migrator: all("migrator"),
                postgres: all("postgres"),
                redis: all("redis"),
                platform_gid: me.gid,
            });
        }
        ensure_group("platform")?;
        for name in [
            "platform-odoo",
            "platform-api",
            "platform-worker",
            "platform-edge",
            "platform-migrator",
        ] {
            ensure_user(name)?;
        }
        for name in ["platform-api", "platform-worker"] {
            ensure_member(name, "platform")?;
        }
        ensure_member("platform-worker", "platform-odoo")?;
        Ok(Self {
            api: account("platform-api")?,
            worker: account("platform-worker")?,
            odoo: account("platform-odoo")?,
            edge: account("platform-edge")?,
            migrator: account("platform-migrator")?,
            postgres: packaged("postgres", "platform-postgres")?,
            redis: packaged("redis", "platform-redis")?,
            platform_gid: Group::from_name("platform")?
                .context("the group was just made")?
                .gid
                .as_raw(),
        })
    }
}

/// A command that runs as the given user, with that user's groups and no way to gain rights.
pub(crate) fn as_user(account: &Account, program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(privileges(account, &[])).arg(program);
    command
}

/// `setpriv`'s arguments for a user with extra groups. It replaces itself by the program: the pid stays.
pub(crate) fn privileges(account: &Account, extra_groups: &[u32]) -> Vec<String> {
    let mut groups: Vec<String> = account
        .groups
        .iter()
        .chain(extra_groups)
        .map(std::string::ToString::to_string)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let mut arguments = vec![
        format!("--reuid={}", account.uid),
        format!("--regid={}", account.gid),
    ];
    if groups.is_empty() {
        arguments.push("--clear-groups".into());
    } else {
        arguments.push(format!("--groups={}", groups.join(",")));
    }
    arguments.push("--no-new-privs".into());
    arguments.push("--".into());
    arguments
}

/// Name of the present user.
pub(crate) fn present() -> Result<Account> {
    let user = User::from_uid(geteuid())?.context("the present user has no entry in the user database")?;
    Ok(of(&user))
}

/// A package's user, or one of our own where the program came another way.
fn packaged(name: &str, own: &str) -> Result<Account> {
    if User::from_name(name)?.is_some() {
        return account(name);
    }
    ensure_user(own)?;
    account(own)
}

fn account(name: &str) -> Result<Account> {
    let user = User::from_name(name)?.with_context(|| format!("there is no user {name}"))?;
    Ok(of(&user))
}

fn of(user: &User) -> Account {
    let groups = std::ffi::CString::new(user.name.as_str())
        .ok()
        .and_then(|name| nix::unistd::getgrouplist(&name, user.gid).ok())
        .unwrap_or_default();
    let gid = user.gid.as_raw();
    Account {
        name: user.name.clone(),
        uid: user.uid.as_raw(),
        gid,
        groups: groups
            .into_iter()
            .map(nix::unistd::Gid::as_raw)
            .filter(|group| *group != gid)
            .collect(),
    }
}

fn ensure_group(name: &str) -> Result<()> {
    if Group::from_name(name)?.is_some() {
        return Ok(());
    }
    administer(&["groupadd", "--system", name], || {
        Ok(Group::from_name(name)?.is_some())
    })
}

fn ensure_user(name: &str) -> Result<()> {
    if User::from_name(name)?.is_some_and(|user| user.uid != Uid::from_raw(0)) {
        return Ok(());
    }
    ensure_group(name)?;
    administer(
        &[
            "useradd",
            "--system",
            "--gid",
            name,
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            name,
        ],
        || Ok(User::from_name(name)?.is_some()),
    )
}

fn ensure_member(name: &str, group: &str) -> Result<()> {
    let entry = Group::from_name(group)?.with_context(|| format!("there is no group {group}"))?;
    if entry.mem.iter().any(|member| member == name) {
        return Ok(());
    }
    administer(&["usermod", "--append", "--groups", group, name], || {
        Ok(Group::from_name(group)?.is_some_and(|entry| entry.mem.iter().any(|member| member == name)))
    })
}

/// Runs an administration command; two instances may do so at once, so what counts is the result.
fn administer(argv: &[&str], done: impl Fn() -> Result<bool>) -> Result<()> {
    let (program, arguments) = argv.split_first().context("a command has a name")?;
    let path = exec::find(program).with_context(|| format!("{program} is missing"))?;
    for attempt in 0..10 {
        let outcome = exec::capture(Command::new(&path).args(arguments), "", Duration::from_secs(30))?;
        if outcome.status.success() || done()? {
            return Ok(());
        }
        if attempt == 9 {
            bail!(
                "{} {}: {}",
                argv.join(" "),
                exec::ending(outcome.status),
                outcome.stderr.trim()
            );
        }
        // Another administration tool holds the lock of the user database.
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}
