//! `cargo xtask test`: every check and every test, on real servers of an instance of its own that is made for the run
//! and removed after it. It ends with one line that programs can read.

pub(crate) mod breaking;
mod cargo;
mod deny;
mod fuzz;
mod lint;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::access::Access;
use crate::build::{self, Artifact, Selection};
use crate::install::{self, Purpose};
use crate::instance::{self, Instance, Name};
use crate::postgres::{self, Cluster};
use crate::screen::{self, say};
use crate::up::{self, Extent, Facts};
use crate::users::Accounts;
use crate::{down, exec, files, interrupt, redis};

/// Checks beside the tests, by their names on the command line. They need no servers.
const CHECKS: [&str; 5] = ["fmt", "clippy", "deny", "openapi", "breaking"];

/// The check of the running API, by its name on the command line.
const FUZZ: &str = "fuzz";

/// How a check ended that may lack what it needs.
enum Outcome {
    /// All is well.
    Checked,
    /// Something is not as it should be.
    Failed(String),
    /// It could not be run.
    NotChecked(String),
}

/// What shall be run.
struct Plan {
    checks: Vec<&'static str>,
    packages: Vec<String>,
    filters: Vec<String>,
    tests: bool,
    fuzz: bool,
}

/// Passed and failed tests and checks.
#[derive(Default)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
    remarks: Vec<String>,
}

impl Summary {
    fn check(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.fail(format!("{name}: {error:#}")),
        }
    }

    fn count(&mut self, name: &str, outcome: Result<Outcome>) {
        match outcome {
            Ok(Outcome::Checked) => self.passed += 1,
            Ok(Outcome::Failed(why)) => self.fail(format!("{name}: {why}")),
            Ok(Outcome::NotChecked(why)) => self.remarks.push(format!("{name}: not checked: {why}")),
            Err(error) => self.fail(format!("{name}: {error:#}")),
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }
}

/// Runs the command.
pub(crate) fn command(names: &[String]) -> Result<ExitCode> {
    interrupt::watch()?;
    let begin = Instant::now();
    let mut instance = Instance::open(Name::Test)?;
    let plan = Plan::of(&instance, names)?;
    let elsewhere = fuzz::elsewhere()?;
    let needs_servers = plan.tests || (plan.fuzz && elsewhere.is_none());
    let _reserved = needs_servers.then(|| instance.reserve()).transpose()?;
    let mut summary = Summary::default();
    let outcome = run(&mut instance, &plan, elsewhere.as_ref(), &mut summary);
    let interrupted = interrupt::requested();
    // Cleaning up is not to be interrupted by the interrupt that caused it.
    interrupt::clear();
    if let Err(error) = outcome
        && !interrupted
    {
        screen::failure(&error);
        summary.fail(format!("{error:#}"));
    }
    let kept = (summary.failed > 0 && instance.exists())
        .then(|| keep_logs(&instance))
        .transpose()?;
    if instance.exists() {
        down::take_down(&instance, true)?;
    }
    if interrupted {
        say("interrupted");
        return Ok(ExitCode::from(130));
    }
    report(&summary, kept.as_deref(), begin.elapsed());
    Ok(if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(
    instance: &mut Instance,
    plan: &Plan,
    elsewhere: Option<&Instance>,
    summary: &mut Summary,
) -> Result<()> {
    for check in &plan.checks {
        interrupted()?;
        match *check {
            "fmt" => {
                let mut command = build::cargo(instance);
                command.args(["fmt", "--all", "--check"]);
                summary.check("cargo fmt", cargo::run(&mut command));
            }
            "clippy" => {
                let mut command = build::cargo(instance);
                command.args([
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--quiet",
                    "--",
                    "-D",
                    "warnings",
                ]);
                summary.check("cargo clippy", cargo::run(&mut command));
            }
            "deny" => summary.count("cargo deny", deny::run(instance)),
            "openapi" => summary.check("openapi", lint::run(instance)),
            _ => summary.count("breaking", breaking::run(instance)),
        }
    }
    let mut facts = None;
    if plan.tests || (plan.fuzz && elsewhere.is_none()) {
        interrupted()?;
        facts = run_tests(instance, plan, summary)?;
    }
    if plan.fuzz {
        interrupted()?;
        match (elsewhere, facts) {
            (Some(main), _) => fuzz::run(main, &Accounts::ensure()?.postgres, summary)?,
            (None, Some(facts)) => fuzz::run(instance, &facts.accounts.postgres, summary)?,
            (None, None) => bail!("fuzz needs the platform"),
        }
    }
    if plan.tests && plan.packages.is_empty() && plan.filters.is_empty() {
        cargo::run_documentation(instance, summary)?;
    }
    Ok(())
}

/// Compiles, starts what is needed, and runs the test programs; none of them for fuzzing alone.
fn run_tests(instance: &mut Instance, plan: &Plan, summary: &mut Summary) -> Result<Option<Facts>> {
    if !plan.tests {
        say("· compiling the platform");
        let compiled = build::compile(instance, Selection::Programs, None)?;
        return Ok(Some(start(instance, Extent::Platform, Purpose::Fuzz, &compiled)?));
    }
    say("· compiling the tests");
    let compiled =
        build::compile(instance, plan.selection(instance), None).context("the tests do not compile")?;
    let facts = match plan.extent() {
        Some(extent) => {
            let purpose = match extent {
                Extent::Platform => Purpose::Test,
                Extent::Stores => Purpose::Run,
            };
            Some(start(instance, extent, purpose, &compiled)?)
        }
        None => None,
    };
    let mut environment = facts
        .as_ref()
        .map(|facts| variables(instance, facts))
        .transpose()?
        .unwrap_or_default();
    // Checkouts may share their build artefacts: a program that another one compiled finds its snapshots in this one.
    environment.insert("INSTA_WORKSPACE_ROOT", instance.checkout.display().to_string());
    cargo::run_programs(&compiled, plan, &environment, summary)?;
    Ok(facts)
}

/// Starts what is needed on a fresh instance.
fn start(instance: &mut Instance, extent: Extent, purpose: Purpose, compiled: &[Artifact]) -> Result<Facts> {
    if instance.exists() {
        // A run that was killed left it.
        down::take_down(instance, true)?;
    }
    instance.ports.move_taken();
    up::bring_up(instance, purpose, Some(compiled), extent)
}

/// Where the instance's parts are, for tests and benchmarks.
pub(crate) fn variables(instance: &Instance, facts: &Facts) -> Result<BTreeMap<&'static str, String>> {
    let control = |secret| postgres::url(instance, Cluster::Control, "postgres", secret, "postgres");
    let tenants = |role, secret| postgres::url(instance, Cluster::Tenants, role, secret, "postgres");
    let found = |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    Ok(BTreeMap::from([
        ("TEST_DATABASE_URL", control("control-superuser.password")?),
        ("TEST_REDIS_URL", redis::url(instance)?),
        (
            "TEST_TENANT_DATABASE_URL",
            tenants("platform_admin", "platform_admin.password")?,
        ),
        (
            "TEST_TENANT_SUPERUSER_URL",
            tenants("postgres", "tenants-superuser.password")?,
        ),
        (
            "TEST_TENANT_SOCKET_DIR",
            Cluster::Tenants.socket_folder(instance).display().to_string(),
        ),
        ("TEST_DOCKER_HOST", facts.engine.host.clone()),
        ("TEST_ODOO_IMAGE", facts.image.clone()),
        ("TEST_NETWORK_RANGE", instance.network_range.clone()),
        ("TEST_POOL_UID", facts.accounts.odoo.uid.to_string()),
        ("TEST_POOL_GID", facts.accounts.odoo.gid.to_string()),
        ("TEST_NGINX", found(exec::find("nginx"))),
        ("TEST_ACCESS_FILE", Access::path(instance).display().to_string()),
        ("TEST_STATE_DIR", instance.state.display().to_string()),
        ("TEST_CHROMIUM", found(install::chromium())),
        // A test's error says enough; forty frames of the runtime below it hide the next one.
        ("RUST_LIB_BACKTRACE", "0".to_owned()),
    ]))
}

impl Plan {
    fn of(instance: &Instance, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(Self {
                checks: CHECKS.to_vec(),
                packages: Vec::new(),
                filters: Vec::new(),
                tests: true,
                fuzz: true,
            });
        }
        let members = cargo::packages(instance)?;
        let mut plan = Self {
            checks: Vec::new(),
            packages: Vec::new(),
            filters: Vec::new(),
            tests: false,
            fuzz: false,
        };
        for name in names {
            if let Some(check) = CHECKS.iter().find(|check| *check == name) {
                plan.checks.push(check);
            } else if name == FUZZ {
                plan.fuzz = true;
            } else if let Some(package) = members
                .iter()
                .find(|member| *member == name || member.ends_with(&format!("-{name}")))
            {
                plan.packages.push(package.clone());
                plan.tests = true;
            } else {
                plan.filters.push(name.clone());
                plan.tests = true;
            }
        }
        Ok(plan)
    }

    /// What to compile: where only whole test programs are asked for, only these.
    fn selection(&self, instance: &Instance) -> Selection<'_> {
        let is_program = |name: &String| {
            let members = fs::read_dir(&instance.checkout).into_iter().flatten().flatten();
            members
                .map(|member| member.path().join("tests").join(name))
                .any(|path| path.with_extension("rs").is_file() || path.join("main.rs").is_file())
        };
        if self.packages.is_empty() && !self.filters.is_empty() && self.filters.iter().all(is_program) {
            Selection::Named(&self.filters)
        } else {
            Selection::Tests
        }
    }

    /// Only the end-to-end tests need the platform itself; the crates' own need the stores.
    fn extent(&self) -> Option<Extent> {
        if self.fuzz {
            return Some(Extent::Platform);
        }
        let only = |names: &[&str]| {
            !self.packages.is_empty()
                && self
                    .packages
                    .iter()
                    .all(|package| names.contains(&package.as_str()))
        };
        if only(&["xtask"]) {
            None
        } else if only(&["entity", "jobs", "migration", "odoo", "platform"]) {
            Some(Extent::Stores)
        } else {
            Some(Extent::Platform)
        }
    }
}

fn interrupted() -> Result<()> {
    if interrupt::requested() {
        bail!("interrupted")
    } else {
        Ok(())
    }
}

/// Copies the instance's logs to where the next run does not remove them at once.
fn keep_logs(instance: &Instance) -> Result<PathBuf> {
    let name = instance
        .state
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let kept = instance::state_root()?.join(format!("{name}.logs"));
    files::remove_tree(&kept)?;
    files::directory(&kept, 0o755, None)?;
    copy_tree(&instance.state.join("logs"), &kept)?;
    let edge = instance.state.join("edge/logs");
    if edge.is_dir() {
        copy_tree(&edge, &kept)?;
    }
    let outcome = exec::capture(
        Command::new("cp")
            .arg(instance.state.join("run/status.json"))
            .arg(&kept),
        "",
        Duration::from_secs(10),
    );
    // Only a convenience; it is missing where nothing was started.
    outcome.map(drop).ok();
    Ok(kept)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)?.flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn report(summary: &Summary, kept: Option<&Path>, took: Duration) {
    say(&format!("\n──── {} ────", screen::seconds(took)));
    for failure in &summary.failures {
        say(&format!("✗ {failure}"));
    }
    for remark in &summary.remarks {
        say(&format!("· {remark}"));
    }
    if summary.ignored > 0 {
        say(&format!("· {} ignored", summary.ignored));
    }
    if let Some(kept) = kept {
        say(&format!("· logs of the servers: {}", kept.display()));
    }
    say(&format!("{} passed, {} failed", summary.passed, summary.failed));
}
