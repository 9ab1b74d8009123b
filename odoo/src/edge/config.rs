//! Nginx's main configuration, rendered from settings. It is the same for every tenant and pool: those are found by
//! the links and the map that [`super::Edge`] writes, so this changes only with the settings.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::hostname::Hostname;
use super::notices;

const TEMPLATE: &str = include_str!("nginx.conf.in");

/// How visitors reach the edge: cookies, redirects and a websocket's Origin depend on it, also where another server
/// in front ends TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicScheme {
    /// Plain HTTP.
    Http,
    /// HTTPS.
    Https,
}

/// Everything that the configuration is made of.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Host of the API and the dashboard. `localhost`, `127.0.0.1` and `[::1]` lead there too.
    pub admin_domain: Hostname,
    /// Scheme of the public URLs.
    pub public_scheme: PublicScheme,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Address on which the pools' ports are published.
    pub pools: IpAddr,
    /// The directory of routes, `EDGE_PATH`: absolute and without symbolic links in it, since Nginx compares it with
    /// real paths (`std::fs::canonicalize` gives that form).
    pub edge_path: PathBuf,
    /// Where Nginx writes the process id of its master.
    pub pid_file: PathBuf,
    /// Where request bodies and answers that don't fit into memory wait. Nginx makes what is below, not this.
    pub temp_path: PathBuf,
    /// Log of requests, a JSON object a line, without query strings. Reopened on SIGUSR1.
    pub access_log: PathBuf,
    /// Log of Nginx itself. Reopened on SIGUSR1.
    pub error_log: PathBuf,
    /// User, and group if another than the user's own, of the processes that serve. Only root can set it: `None`
    /// for an Nginx that is started unprivileged.
    pub user: Option<(String, Option<String>)>,
    /// Open files a serving process may have: two a connection. `None` leaves the limit that Nginx was started with.
    /// It can't be raised above the hard limit.
    pub open_files: Option<u32>,
    /// Addresses or networks (CIDR) of proxies in front whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// Whether Nginx leaves the process that started it. False for a supervisor.
    pub daemon: bool,
}

/// A setting that can't stand in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EdgeConfigError {
    /// A path is relative, or has characters that mean something to Nginx.
    #[error("{what} {path:?} must be absolute and consist of letters, digits and the characters / . _ + -")]
    Path {
        /// Which path.
        what: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// There is no address to listen on.
    #[error("the edge needs at least one address to listen on")]
    NoListen,
    /// A name of a user or group is none.
    #[error("{0:?} is not the name of a user or group")]
    User(String),
    /// A trusted proxy is neither an address nor a network.
    #[error("{0:?} is neither an IP address nor a network like 10.0.0.0/8")]
    TrustedProxy(String),
}

impl EdgeConfig {
    /// The text of `nginx.conf`, to be run as `nginx -e <error log> -c <file>`.
    ///
    /// # Errors
    /// [`EdgeConfigError`] for a value that Nginx would misunderstand.
    pub fn render(&self) -> Result<String, EdgeConfigError> {
        if self.listen.is_empty() {
            return Err(EdgeConfigError::NoListen);
        }
        let edge = harmless("the directory of routes", &self.edge_path)?;
        let https = self.public_scheme == PublicScheme::Https;
        let values = [
            ("user", self.user_directive()?),
            ("daemon", if self.daemon { "on" } else { "off" }.to_owned()),
            (
                "open_files",
                self.open_files
                    .map_or_else(String::new, |n| format!("worker_rlimit_nofile {n};")),
            ),
            (
                "pid",
                harmless("the file of the process id", &self.pid_file)?.to_owned(),
            ),
            (
                "error_log",
                harmless("the error log", &self.error_log)?.to_owned(),
            ),
            (
                "access_log",
                harmless("the access log", &self.access_log)?.to_owned(),
            ),
            (
                "temp",
                harmless("the directory of temporary files", &self.temp_path)?.to_owned(),
            ),
            ("edge", edge.to_owned()),
            ("edge_regex", edge.replace('.', r"\.").replace('+', r"\+")),
            ("scheme", if https { "https" } else { "http" }.to_owned()),
            ("cookie_secure", if https { " secure" } else { "" }.to_owned()),
            ("listen", self.listen_directives("")),
            ("default_listen", self.listen_directives(" default_server")),
            ("admin_names", self.admin_names()),
            ("api", self.api.to_string()),
            ("pools", host_of(self.pools)),
            ("trusted_proxies", self.trusted_proxy_directives()?),
            ("codes", notices::rows(|notice| notice.code)),
            ("titles", notices::rows(|notice| notice.title)),
            ("details", notices::rows(|notice| notice.detail)),
            ("other_errors", notices::statuses()),
            ("page", indent(12, &notices::page())),
            ("problem", indent(12, &notices::problem())),
            ("fixed_notices", fixed_notices()),
            ("forwarded", indent(12, &headers(FORWARDED))),
            (
                "tenant_headers",
                indent(12, &format!("{}{}", headers(TENANT), headers(FORWARDED))),
            ),
        ];
        Ok(fill(&values))
    }

    fn user_directive(&self) -> Result<String, EdgeConfigError> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        let Some((user, group)) = &self.user else {
            return Ok(String::new());
        };
        for name in std::iter::once(user).chain(group) {
            if !is_name(name) {
                return Err(EdgeConfigError::User(name.clone()));
            }
        }
        Ok(format!("user {user} {};", group.as_ref().unwrap_or(user)))
    }

    fn listen_directives(&self, suffix: &str) -> String {
        let lines: Vec<_> = self
            .listen
            .iter()
            .map(|address| format!("        listen {address}{suffix};"))
            .collect();
        lines.join("\n")
    }

    fn admin_names(&self) -> String {
        let mut names = vec![self.admin_domain.as_str()];
        names.extend(
            ADMIN_ALIASES
                .iter()
                .filter(|alias| **alias != self.admin_domain.as_str()),
        );
        names.join(" ")
    }

    fn trusted_proxy_directives(&self) -> Result<String, EdgeConfigError> {
        if self.trusted_proxies.is_empty() {
            return Ok(String::new());
        }
        let mut lines = String::new();
        for proxy in &self.trusted_proxies {
            if !is_network(proxy) {
                return Err(EdgeConfigError::TrustedProxy(proxy.clone()));
            }
            writeln!(lines, "    set_real_ip_from {proxy};").expect("a String takes everything");
        }
        lines.push_str("    real_ip_header X-Forwarded-For;\n    real_ip_recursive on;");
        Ok(lines)
    }
}

/// Names that always lead to the API: programs on the same machine need no name service.
pub(super) const ADMIN_ALIASES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What an upstream may believe about the visitor. Whatever the visitor said about it is overwritten or removed.
const FORWARDED: &[(&str, &str)] = &[
    ("X-Forwarded-For", "$remote_addr"),
    ("X-Forwarded-Host", "$edge_authority"),
    ("X-Forwarded-Proto", "@scheme@"),
    ("X-Real-IP", "$remote_addr"),
    ("Forwarded", ""),
    ("X-Forwarded-Port", ""),
    ("X-Forwarded-Prefix", ""),
    ("X-Forwarded-Server", ""),
    ("X-Forwarded-Ssl", ""),
    ("X-Original-Url", ""),
    ("X-Rewrite-Url", ""),
    ("Proxy", ""),
];

/// What tells a pool which database is meant, and that the edge says so. Several Cookie headers become one, as two
/// readers of two headers could choose differently.
const TENANT: &[(&str, &str)] = &[
    ("Host", "$edge_authority"),
    ("X-Request-Id", "$edge_request_id"),
    ("X-Platform-Edge", "$edge_secret"),
    ("X-Platform-Database", "$edge_database"),
    ("Cookie", "$http_cookie"),
    ("X-Odoo-Database", ""),
    ("X-Odoo-Dbfilter", ""),
    ("X-Openerp-Dbfilter", ""),
    ("X-Openerp-Session-Id", ""),
];

fn headers(list: &[(&str, &str)]) -> String {
    list.iter().fold(String::new(), |mut text, (name, value)| {
        let value = if value.is_empty() { "\"\"" } else { value };
        writeln!(text, "proxy_set_header {name} {value};").expect("a String takes everything");
        text
    })
}

/// The notices of servers whose errors may come before Nginx has read an address: named locations need one.
fn fixed_notices() -> String {
    let location = |name: &str, body: &str| {
        format!(
            "\n        location = {name} {{\n            internal;\n{}        }}\n",
            indent(12, body)
        )
    };
    location("/.edge/problem", &notices::problem()) + &location("/.edge/page", &notices::page())
}

fn indent(width: usize, text: &str) -> String {
    text.lines().fold(String::new(), |mut indented, line| {
        writeln!(indented, "{:width$}{line}", "").expect("a String takes everything");
        indented
    })
}

/// Fills the template's `@name@`s, and those that values bring along. Later values may not bring new ones.
fn fill(values: &[(&str, String)]) -> String {
    let replace_all = |text: String| {
        values.iter().fold(text, |text, (name, value)| {
            // A value that stands alone brings its own line end, or stands for no line at all.
            let whole_line = value.trim_end_matches('\n');
            text.replace(&format!("@{name}@"), whole_line)
        })
    };
    let text = replace_all(replace_all(TEMPLATE.to_owned()));
    let mut lines = Vec::new();
    for line in text.lines() {
        let blank_twice = line.is_empty() && lines.last().is_none_or(|last: &&str| last.is_empty());
        if !blank_twice {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// A path that means to Nginx what it means to us: quotes, variables, patterns and spaces have no place in it.
fn harmless<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, EdgeConfigError> {
    path.to_str()
        .filter(|text| text.starts_with('/'))
        .filter(|text| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/._+-".contains(&b))
        })
        .map(|text| text.trim_end_matches('/'))
        .ok_or_else(|| EdgeConfigError::Path {
            what,
            path: path.to_owned(),
        })
}

fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text
        .split_once('/')
        .map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EdgeConfig {
        EdgeConfig {
            listen: vec!["127.0.0.1:8080".parse().unwrap()],
            admin_domain: "localhost".parse().unwrap(),
            public_scheme: PublicScheme::Http,
            api: "127.0.0.1:8081".parse().unwrap(),
            pools: "127.0.0.1".parse().unwrap(),
            edge_path: "/srv/platform/edge".into(),
            pid_file: "/srv/platform/run/nginx.pid".into(),
            temp_path: "/srv/platform/nginx".into(),
            access_log: "/srv/platform/logs/access.log".into(),
            error_log: "/srv/platform/logs/nginx.log".into(),
            user: None,
            open_files: None,
            trusted_proxies: Vec::new(),
            daemon: false,
        }
    }

    #[test]
    fn an_unprivileged_edge_on_one_machine() {
        insta::assert_snapshot!(config().render().unwrap());
    }

    #[test]
    fn an_edge_behind_a_proxy_that_ends_tls() {
        let plain = config().render().unwrap();
        let proxied = EdgeConfig {
            listen: vec!["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()],
            admin_domain: "console.example.com".parse().unwrap(),
            public_scheme: PublicScheme::Https,
            pools: "::1".parse().unwrap(),
            edge_path: "/srv/a.b+c/edge/".into(),
            user: Some(("platform-edge".to_owned(), None)),
            open_files: Some(20_000),
            trusted_proxies: vec!["10.0.0.0/8".to_owned(), "::1".to_owned()],
            ..config()
        };
        let proxied = proxied.render().unwrap();
        let changed: Vec<_> = proxied
            .lines()
            .filter(|line| !plain.lines().any(|other| other == *line))
            .collect();
        insta::assert_snapshot!(changed.join("\n"));
    }

    #[test]
    fn every_place_of_the_template_is_filled() {
        let text = config().render().unwrap();
        // Named locations are the only thing of Nginx that starts with this sign.
        let left = text.replace("@page", "").replace("@problem", "");
        assert!(!left.contains('@'), "{left}");
    }

    #[test]
    fn values_that_would_change_the_configuration_are_refused() {
        for path in [
            "relative",
            "/a b",
            "/a$host",
            "/a\"; include /etc/passwd; \"",
            "/a{b}",
            "/a\nb",
            "/ä",
        ] {
            let refused = EdgeConfig {
                edge_path: path.into(),
                ..config()
            };
            assert!(
                matches!(refused.render(), Err(EdgeConfigError::Path { .. })),
                "{path}"
            );
        }
        for user in ["", "root;", "a b"] {
            let refused = EdgeConfig {
                user: Some((user.to_owned(), None)),
                ..config()
            };
            assert!(
                matches!(refused.render(), Err(EdgeConfigError::User(_))),
                "{user}"
            );
        }
        for proxy in ["10.0.0.0/33", "localhost", "10.0.0.1; deny all", "::1/129", ""] {
            let refused = EdgeConfig {
                trusted_proxies: vec![proxy.to_owned()],
                ..config()
            };
            assert!(
                matches!(refused.render(), Err(EdgeConfigError::TrustedProxy(_))),
                "{proxy}"
            );
        }
        assert_eq!(
            EdgeConfig {
                listen: Vec::new(),
                ..config()
            }
            .render(),
            Err(EdgeConfigError::NoListen)
        );
    }
}
