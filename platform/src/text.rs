//! Parses what people type: slugs, e-mail addresses, names, labels. Parse at the door, trust inside.

use std::collections::BTreeMap;

use crate::error::Violation;

/// A tenant's host label: 2–40 lower-case ASCII letters, digits and hyphens, a letter or digit at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug(String);

/// Labels that would confuse people or serve another purpose under the tenants' domain.
const RESERVED_SLUGS: &[&str] = &[
    "admin",
    "administrator",
    "api",
    "app",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "cdn",
    "console",
    "dashboard",
    "dev",
    "dns",
    "docs",
    "edge",
    "email",
    "ftp",
    "git",
    "grafana",
    "help",
    "imap",
    "internal",
    "localhost",
    "login",
    "mail",
    "metrics",
    "mx",
    "ns",
    "ns1",
    "ns2",
    "odoo",
    "pop",
    "pop3",
    "portal",
    "postmaster",
    "prometheus",
    "root",
    "security",
    "smtp",
    "ssl",
    "staging",
    "static",
    "status",
    "support",
    "system",
    "test",
    "vpn",
    "webmail",
    "webmaster",
    "wpad",
    "www",
];

impl Slug {
    /// Parses one.
    ///
    /// # Errors
    /// A violation that says what a slug must be.
    pub fn parse(text: &str) -> Result<Self, Violation> {
        let bytes = text.as_bytes();
        let edge_is_fine =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fine = (2..=40).contains(&bytes.len())
            && edge_is_fine(bytes.first())
            && edge_is_fine(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if !fine {
            return Err(Violation::at(
                "/slug",
                "invalid_slug",
                "must be 2 to 40 lower-case ASCII letters, digits or hyphens, with a letter or digit at both ends",
            ));
        }
        // Labels with hyphens in the third and fourth place are reserved for encodings such as punycode's (RFC 5890).
        if bytes.get(2..4) == Some(b"--") {
            return Err(Violation::at(
                "/slug",
                "invalid_slug",
                "must not have hyphens in both the third and fourth place",
            ));
        }
        if RESERVED_SLUGS.contains(&text) {
            return Err(Violation::at(
                "/slug",
                "reserved_slug",
                "is reserved; choose another",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks an e-mail address as far as it is worth: one `@`, a local part, a dotted or plain domain, no blanks or
/// control characters, at most 254 characters (RFC 5321). An international domain is written in its `xn--` form. Answers
/// it with its domain in lower case.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn email(text: &str) -> Result<String, &'static str> {
    let wrong = "must be an e-mail address";
    let (local, domain) = text.rsplit_once('@').ok_or(wrong)?;
    let fine = text.chars().count() <= 254
        && (1..=64).contains(&local.chars().count())
        && !domain.is_empty()
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && !local.contains('@')
        && domain.split('.').all(|label| {
            !label.is_empty()
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
        });
    if fine {
        Ok(format!("{local}@{}", domain.to_lowercase()))
    } else {
        Err(wrong)
    }
}

/// Checks an e-mail address that an account is to have: as [`email`], and of ASCII only, without quotes, so that there is
/// one way to write it but for upper and lower case.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn account_email(text: &str) -> Result<String, &'static str> {
    let address = email(text)?;
    let (local, domain) = address.rsplit_once('@').unwrap_or_default();
    // The atoms of RFC 5322, section 3.2.3.
    let fine = local.split('.').all(|atom| {
        !atom.is_empty()
            && atom
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    }) && domain
        .split('.')
        .all(|label| label.len() <= 63 && !label.ends_with('-'))
        && !address.bytes().any(|byte| byte == 0);
    if fine {
        Ok(address)
    } else {
        Err("must be an e-mail address of ASCII characters, without quotes")
    }
}

/// The field `name` of what has a display name.
///
/// # Errors
/// A violation that says what is wrong.
pub fn display_name(text: &str) -> Result<String, Violation> {
    name(text, 128).map_err(|detail| Violation::at("/name", "invalid_name", detail))
}

/// Checks a display name: 1–`max` characters, none of them a control character, not only blanks. Answers it trimmed.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn name(text: &str, max: usize) -> Result<String, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() || text.chars().count() > max || text.chars().any(char::is_control) {
        return Err(format!(
            "must have 1 to {max} characters, none of them a control character"
        ));
    }
    Ok(trimmed.to_owned())
}

/// Checks labels: at most 64, keys of 1–63 of `a-z A-Z 0-9 . _ / -` beginning with a letter or digit, values of at
/// most 255 characters without control characters.
///
/// # Errors
/// A violation for each label that is not so.
pub fn labels(labels: &BTreeMap<String, String>) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    if labels.len() > 64 {
        violations.push(Violation::at(
            "/labels",
            "too_many",
            "must have at most 64 labels",
        ));
    }
    for (key, value) in labels {
        let pointer = format!("/labels/{}", key.replace('~', "~0").replace('/', "~1"));
        let key_is_fine = (1..=63).contains(&key.len())
            && key.starts_with(|c: char| c.is_ascii_alphanumeric())
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        if !key_is_fine {
            violations.push(Violation::at(
                pointer.clone(),
                "invalid_label",
                "keys must be 1 to 63 ASCII letters, digits, '.', '_', '/' or '-', beginning with a letter or digit",
            ));
        }
        if value.chars().count() > 255 || value.chars().any(char::is_control) {
            violations.push(Violation::at(
                pointer,
                "invalid_label",
                "values must have at most 255 characters, none of them a control character",
            ));
        }
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(violations)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slug_is_one_plain_host_label() {
        for good in ["ab", "a1", "0a", "acme-corp", &"a".repeat(40)] {
            assert!(Slug::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(41);
        for bad in [
            "", "a", "-ab", "ab-", "Ab", "a.b", "a_b", "é1", "a b", "xn--ab", "ab--cd", "www", "ab\n", &long,
        ] {
            assert!(Slug::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_email_address_has_one_shape() {
        for good in ["a@b", "a.b+c@example.com", "ü@xn--exmple-cua.org"] {
            assert!(email(good).is_ok(), "{good}");
        }
        assert_eq!(email("Ada@EXAMPLE.com"), Ok("Ada@example.com".to_owned()));
        for bad in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b..c", "a@-b", "a@b\n"] {
            assert!(email(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            drop(Slug::parse(&text));
            drop(email(&text));
            drop(name(&text, 20));
        }
    }
}
