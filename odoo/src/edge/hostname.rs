//! Names under which tenants are reached. A [`Hostname`] is also a file name below the edge's `hosts/`.

use std::fmt;
use std::str::FromStr;

/// A host name in the one spelling that Nginx's `$host` has: lower-case ASCII labels of 1–63 letters, digits and
/// inner hyphens, at most 253 characters together, without a trailing dot or a port (RFC 1123, 2.1; internationalised
/// names in their `xn--` form). An address is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(String);

/// A text that is not a [`Hostname`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name: lower-case labels of letters, digits and hyphens, joined by dots")]
pub struct HostnameError(String);

impl Hostname {
    /// The name as a browser sends it, without a port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        // A name whose last label is a number is read as an IPv4 address (URL standard, "ends in a number").
        let is_address = text
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if text.len() > 253 || is_address || !text.split('.').all(is_label) {
            return Err(HostnameError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::Hostname;

    #[test]
    fn names_of_hosts_parse_and_nothing_else() {
        for name in [
            "demo.localhost",
            "localhost",
            "a.b-c.example.com",
            "xn--bcher-kva.example",
            "1.example.com",
        ] {
            assert_eq!(name.parse::<Hostname>().unwrap().as_str(), name);
        }
        let long_label = format!("{}.example.com", "a".repeat(64));
        let long_name = format!("{}com", "abc.".repeat(63));
        for text in [
            "",
            ".",
            "..",
            "demo.",
            ".demo",
            "a..b",
            "Demo.localhost",
            "de_mo.localhost",
            "-a.example",
            "a-.example",
            "127.0.0.1",
            "8",
            "[::1]",
            "a/b",
            "../a",
            "demo.localhost:8080",
            "bücher.example",
            "a b",
            "a\n",
            &long_label,
            &long_name,
        ] {
            assert!(text.parse::<Hostname>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_host_name_is_always_one_harmless_file_name(text in any::<String>()) {
            if let Ok(name) = text.parse::<Hostname>() {
                assert!(!name.as_str().starts_with('.') && !name.as_str().contains(['/', '\0']));
            }
        }
    }
}
