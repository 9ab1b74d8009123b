//! Packages that are missing: says which and why, then installs them without starting any service; without root it
//! prints the command and stops. Nothing that was there before is changed, stopped or upgraded.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::instance::Instance;
use crate::screen::{self, Failure};
use crate::{docker, exec, files, image, postgres};

/// What `invoke-rc.d` asks before it starts a service (<https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt>).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// A policy that was there and allowed starting, moved away for the time of installing.
const SAVED_POLICY: &str = "/usr/sbin/policy-rc.d.before-odoo-saas";
const OUR_POLICY: &str = "#!/bin/sh\n# odoo-saas-platform: no service is started while `cargo xtask up` installs packages\nexit 101\n";

/// Something that has to be on the machine.
struct Need {
    package: &'static str,
    why: &'static str,
}

/// What the caller needs beyond the platform's own servers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run.
    Run,
    /// To fuzz the API.
    Fuzz,
    /// To run the tests, which drive a browser, and to fuzz the API.
    Test,
    /// To run the benchmarks, which drive a browser and put load on the API.
    Bench,
}

/// Installs what is missing.
pub(crate) fn ensure(instance: &Instance, purpose: Purpose) -> Result<()> {
    if geteuid().is_root() {
        Policy::recover()?;
    }
    let needs = missing(instance, purpose)?;
    if needs.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = needs.iter().map(|need| need.package).collect();
    let command = format!(
        "apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    let list: Vec<String> = needs
        .iter()
        .map(|need| format!("  {:<22} {}", need.package, need.why))
        .collect();
    if exec::find("apt-get").is_none() {
        bail!(Failure::new(
            format!(
                "missing on this machine (by their Debian names):\n{}",
                list.join("\n")
            ),
            "install them with this system's package manager, then run `cargo xtask up` again",
        ));
    }
    if !geteuid().is_root() {
        bail!(Failure::new(
            format!("missing on this machine:\n{}", list.join("\n")),
            format!("run as root, then `cargo xtask up` again:\n  sudo {command}"),
        ));
    }
    screen::say(&format!(
        "· packages: installing what is missing (no service is started)\n{}",
        list.join("\n")
    ));
    let log = instance.log("packages");
    let _policy = Policy::install()?;
    let mut refreshed = lists_are_old();
    if refreshed {
        update(&log)?;
    }
    for attempt in 0.. {
        match apt(&packages, &log) {
            Ok(()) => break,
            // Lists name versions that a mirror no longer has, or the mirror was away for a moment.
            Err(_) if attempt == 0 => {
                if !refreshed {
                    update(&log)?;
                    refreshed = true;
                }
            }
            Err(error) => bail!(
                Failure::new(
                    format!("packages could not be installed: {error}"),
                    format!("see the log; by hand: {command}"),
                )
                .log(&log)
            ),
        }
    }
    keep_from_boot(&packages);
    Ok(())
}

/// Debian lets a server start with the machine. Those that were just installed would take their usual ports, unasked.
fn keep_from_boot(packages: &[&str]) {
    let Some(systemctl) = exec::find("systemctl") else {
        return;
    };
    for (package, units) in [
        ("postgresql", &["postgresql.service"][..]),
        ("redis-server", &["redis-server.service"]),
        ("nginx", &["nginx.service"]),
        ("docker.io", &["docker.service", "docker.socket"]),
        ("containerd", &["containerd.service"]),
    ] {
        if packages.contains(&package) {
            let mut command = Command::new(&systemctl);
            command.arg("disable").args(units);
            // Without systemd nothing starts at boot.
            exec::capture(&mut command, "", Duration::from_secs(30))
                .map(drop)
                .ok();
        }
    }
}

fn missing(instance: &Instance, purpose: Purpose) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    let mut need = |package, why| needs.push(Need { package, why });
    let given = |variable: &str| std::env::var_os(variable).is_some();
    if postgres::programs().is_none() && !(given("DATABASE_URL") && given("TENANT_DATABASE_URL")) {
        need("postgresql", "databases of the control plane and of the tenants");
    }
    if exec::find("redis-server").is_none() && !given("REDIS_URL") {
        need("redis-server", "hands work from the API to the worker");
    }
    if exec::find("nginx").is_none() {
        need("nginx", "the edge: routes host names to the API and to Odoo");
    }
    if exec::find("setpriv").is_none() {
        need("util-linux", "setpriv: runs each service as a user of its own");
    }
    if docker::existing()?.is_none()
        && (exec::find("dockerd").is_none() || exec::find("containerd").is_none())
    {
        need(
            "docker.io",
            "runs Odoo's containers; no Docker Engine answers here",
        );
        need("containerd", "runs Odoo's containers, below the Docker Engine");
    }
    if exec::find("iptables").is_none() {
        need(
            "iptables",
            "keeps Odoo's containers from this host and private networks",
        );
    }
    if geteuid().is_root() && image::may_be_built(instance) && exec::find("debootstrap").is_none() {
        need(
            "debootstrap",
            "builds the Odoo image where no image registry answers",
        );
        if !Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists() {
            need(
                "debian-archive-keyring",
                "checks the signatures of the image's packages",
            );
        }
    }
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        need("ca-certificates", "checks the certificates of HTTPS servers");
    }
    if matches!(purpose, Purpose::Fuzz | Purpose::Test) && !makes_environments() {
        need(
            "python3-venv",
            "fuzzing the API runs in an environment of its own",
        );
    }
    if matches!(purpose, Purpose::Test | Purpose::Bench) && chromium().is_none() {
        need("chromium", "tests sign in to Odoo with a real browser");
    }
    if purpose == Purpose::Test && !Path::new("/usr/lib/python3/dist-packages/aiosmtpd").exists() {
        need("python3-aiosmtpd", "takes the mail that tests have sent");
    }
    if purpose == Purpose::Bench && exec::find("wrk").is_none() {
        need("wrk", "puts load on the API");
    }
    Ok(needs)
}

/// Whether Python can make environments; Debian packs the half of that by itself.
fn makes_environments() -> bool {
    exec::find("python3").is_some_and(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import ensurepip, venv"]);
        exec::capture(&mut command, "", Duration::from_secs(20)).is_ok_and(|outcome| outcome.status.success())
    })
}

/// The browser for tests.
pub(crate) fn chromium() -> Option<std::path::PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find_map(exec::find)
}

fn apt(packages: &[&str], log: &Path) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args([
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Dpkg::Options::=--force-confold",
        ])
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1");
    exec::logged_to_the_end(&mut command, log, Duration::from_secs(900))
}

fn update(log: &Path) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=300", "update"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    exec::logged(&mut command, log, Duration::from_secs(300)).map_err(|error| {
        Failure::new(
            format!("apt-get update: {error}"),
            "check the network and /etc/apt/sources.list",
        )
        .log(log)
        .into()
    })
}

/// Whether apt's lists are missing or older than a day.
fn lists_are_old() -> bool {
    let newest = fs::read_dir("/var/lib/apt/lists").ok().and_then(|entries| {
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("Release"))
            .filter_map(|entry| entry.metadata().ok()?.modified().ok())
            .max()
    });
    newest
        .and_then(|time| time.elapsed().ok())
        .is_none_or(|age| age > Duration::from_secs(24 * 3600))
}

/// Keeps services from being started while it lives.
struct Policy {
    ours: bool,
}

impl Policy {
    /// Takes away what a predecessor that was killed left behind.
    fn recover() -> Result<()> {
        if fs::read_to_string(POLICY).is_ok_and(|text| text == OUR_POLICY) {
            fs::remove_file(POLICY)?;
        }
        if Path::new(SAVED_POLICY).exists() && !Path::new(POLICY).exists() {
            fs::rename(SAVED_POLICY, POLICY)?;
        }
        Ok(())
    }

    fn install() -> Result<Self> {
        if Path::new(POLICY).exists() {
            let forbids = exec::capture(
                Command::new(POLICY).args(["odoo-saas-platform", "start"]),
                "",
                Duration::from_secs(5),
            )
            .is_ok_and(|outcome| outcome.status.code() == Some(101));
            if forbids {
                return Ok(Self { ours: false });
            }
            fs::rename(POLICY, SAVED_POLICY)?;
        }
        files::write(Path::new(POLICY), OUR_POLICY.as_bytes(), 0o755, None)?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            fs::remove_file(POLICY).ok();
            if Path::new(SAVED_POLICY).exists() {
                fs::rename(SAVED_POLICY, POLICY).ok();
            }
        }
    }
}
