//! Whether the committed OpenAPI document keeps the rules that every endpoint promises to keep. A linter from elsewhere
//! knows OpenAPI; these rules know this API, and each finding names its place and its rule.
//!
//! The document is read as plain JSON and nothing is assumed of its shape: what is missing is a finding, never a panic.

mod answers;
mod bodies;
#[cfg(test)]
mod broken;
mod document;
mod names;
mod parameters;
#[cfg(test)]
mod samples;
mod schemas;
mod walk;

use std::fmt;
use std::fs;

use anyhow::{Context as _, Result, bail};

use self::document::Document;
use crate::instance::Instance;
use crate::screen;

/// Where the document is, below the checkout.
pub(super) const DOCUMENT: &str = "openapi/openapi.json";

/// One rule.
struct Rule {
    /// Its name in findings.
    name: &'static str,
    /// What the API promises by it.
    promise: &'static str,
    /// Looks for what breaks it.
    check: fn(&Document, &mut Findings),
}

/// All rules.
fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        names::RULES,
        parameters::RULES,
        bodies::RULES,
        answers::RULES,
        schemas::RULES,
    ]
    .into_iter()
    .flatten()
}

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    rule: &'static str,
    /// An operation, such as `GET /v1/me`, or a JSON pointer.
    place: String,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} [{}]", self.place, self.what, self.rule)
    }
}

/// What a rule has found.
struct Findings {
    rule: &'static str,
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, place: impl fmt::Display, what: impl fmt::Display) {
        self.found.push(Finding {
            rule: self.rule,
            place: place.to_string(),
            what: what.to_string(),
        });
    }
}

/// All that breaks a rule, rule by rule.
fn findings(document: &Document) -> Vec<Finding> {
    let mut all = Vec::new();
    for rule in rules() {
        let mut findings = Findings {
            rule: rule.name,
            found: Vec::new(),
        };
        (rule.check)(document, &mut findings);
        findings.found.sort();
        findings.found.dedup();
        all.append(&mut findings.found);
    }
    all
}

/// Runs the check.
pub(super) fn run(instance: &Instance) -> Result<()> {
    let path = instance.checkout.join(DOCUMENT);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let document = Document::new(serde_json::from_slice(&text).context("the document is not JSON")?);
    let found = findings(&document);
    for rule in rules() {
        let of_rule: Vec<_> = found.iter().filter(|finding| finding.rule == rule.name).collect();
        if !of_rule.is_empty() {
            screen::say(&format!("\n{}: {}", rule.name, rule.promise));
        }
        for finding in of_rule {
            screen::say(&format!("  {}: {}", finding.place, finding.what));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} findings in {DOCUMENT}, listed above", found.len());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_sound_document_has_no_findings() {
        let found = findings(&Document::new(samples::sound()));
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn each_rule_finds_what_it_is_for_and_nothing_else() {
        for (rule, place, spoil) in broken::all() {
            let mut document = samples::sound();
            spoil(&mut document);
            let found = findings(&Document::new(document));
            assert!(
                found
                    .iter()
                    .any(|finding| finding.rule == rule && finding.place == place),
                "{rule} at {place}: {found:#?}"
            );
            let others: Vec<_> = found.iter().filter(|finding| finding.rule != rule).collect();
            assert!(others.is_empty(), "{rule} at {place}: {others:#?}");
        }
    }

    #[test]
    fn every_rule_has_a_broken_document_and_a_name_of_its_own() {
        let names: Vec<&str> = rules().map(|rule| rule.name).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), unique.len());
        let broken: BTreeSet<&str> = broken::all().into_iter().map(|(rule, ..)| rule).collect();
        assert_eq!(unique, broken);
    }

    #[test]
    fn a_document_without_its_parts_is_read_without_a_panic() {
        for empty in [
            "{}",
            "[]",
            "null",
            r#"{"paths": {"/x": {"get": {}, "post": null}}}"#,
        ] {
            findings(&Document::new(serde_json::from_str(empty).unwrap()));
        }
    }
}
