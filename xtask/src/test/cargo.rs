//! Runs compiled test programs: their output goes to the screen as it comes, and their results are counted.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Plan, Summary};
use crate::build::Artifact;
use crate::instance::Instance;
use crate::{build, exec, interrupt, screen};

/// Longest time of one cargo command or test program.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// Names of the workspace's packages.
pub(super) fn packages(instance: &Instance) -> Result<Vec<String>> {
    let mut command = build::cargo(instance);
    command.args(["metadata", "--no-deps", "--format-version=1"]);
    let outcome = exec::capture(&mut command, "", Duration::from_secs(120))?;
    if !outcome.status.success() {
        bail!("cargo metadata: {}", outcome.stderr.trim());
    }
    let metadata: Value = serde_json::from_str(&outcome.stdout)?;
    Ok(metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect())
}

/// Runs a command whose output belongs on the screen.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let mut child = interrupt::spawn(command.stdin(Stdio::null())).context("cannot start cargo")?;
    let status = exec::wait(&mut child, "cargo", DEADLINE)?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {}", exec::ending(status))
    }
}

/// Runs test programs one after the other and counts their results. No packages means all.
pub(super) fn run_programs(
    compiled: &[Artifact],
    plan: &Plan,
    environment: &BTreeMap<&'static str, String>,
    summary: &mut Summary,
) -> Result<()> {
    for program in compiled.iter().filter(|artifact| artifact.is_test) {
        if !plan.packages.is_empty() && !plan.packages.contains(&program.package) {
            continue;
        }
        super::interrupted()?;
        let title = format!("{}: {}", program.package, program.name);
        screen::say(&format!("\n──── {title}"));
        let mut command = Command::new(&program.path);
        // A name that the program itself has means all of it.
        let whole = plan
            .filters
            .iter()
            .any(|filter| program.name.contains(filter.as_str()));
        // As cargo runs them (https://doc.rust-lang.org/cargo/commands/cargo-test.html#working-directory-of-tests).
        command
            .args(plan.filters.iter().filter(|_| !whole))
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder);
        command.env("CARGO_PKG_NAME", &program.package).envs(environment);
        run_counted(&mut command, &title, summary)?;
    }
    Ok(())
}

/// Runs the examples in the documentation.
pub(super) fn run_documentation(instance: &Instance, summary: &mut Summary) -> Result<()> {
    screen::say("\n──── examples in the documentation");
    let mut command = build::cargo(instance);
    command.args(["test", "--workspace", "--doc", "--quiet", "--no-fail-fast"]);
    run_counted(&mut command, "cargo test --doc", summary)
}

fn run_counted(command: &mut Command, title: &str, summary: &mut Summary) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = interrupt::spawn(command).with_context(|| format!("cannot start {title}"))?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let reader = std::thread::spawn(move || {
        let mut counted = Counted::default();
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            screen::say(&line);
            counted.line(&line);
        }
        counted
    });
    let status = exec::wait(&mut child, title, DEADLINE)?;
    let counted = reader.join().unwrap_or_default();
    summary.passed += counted.passed;
    summary.failed += counted.failed;
    summary.ignored += counted.ignored;
    summary
        .failures
        .extend(counted.names.into_iter().map(|name| format!("{title}: {name}")));
    if !status.success() && counted.failed == 0 {
        // A test program that was killed prints no result.
        summary.fail(format!("{title} {}", exec::ending(status)));
    }
    Ok(())
}

#[derive(Default)]
struct Counted {
    passed: u64,
    failed: u64,
    ignored: u64,
    names: Vec<String>,
}

impl Counted {
    /// Reads one line of libtest's output.
    fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split([';', '.']) {
                let mut words = part.split_whitespace();
                if let (Some(count), Some(what)) = (
                    words.next().and_then(|word| word.parse::<u64>().ok()),
                    words.next(),
                ) {
                    match what {
                        "passed" => self.passed += count,
                        "failed" => self.failed += count,
                        "ignored" => self.ignored += count,
                        _ => {}
                    }
                }
            }
        } else if let Some(test) = line.strip_prefix("test ")
            && let Some((name, "FAILED")) = test.rsplit_once(" ... ")
        {
            self.names.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counted;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut counted = Counted::default();
        for line in [
            "test a::b ... ok",
            "test c ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.50s",
        ] {
            counted.line(line);
        }
        assert_eq!((counted.passed, counted.failed, counted.ignored), (7, 1, 2));
        assert_eq!(counted.names, ["c"]);
    }
}
