//! The settings of the processes: one struct shared by all, one more a binary. Read once at start; a value that is
//! missing, unknown or senseless stops the start with a line that names the variable and what it wants.

mod reader;
mod structs;

pub use reader::{Declared, Reader, SettingsError};
pub use structs::{
    ApiSettings, Domains, EdgeConfigSettings, EdgeSettings, LogSettings, MailSettings, MigrateSettings,
    PoolSettings, PortRange, RuntimeKind, SharedSettings, WorkerSettings,
};

/// Beginnings of names that are the platform's own: an unknown variable with one of them is a mistake, not somebody
/// else's.
const FAMILIES: &[&str] = &[
    "BOOTSTRAP_",
    "TENANT_DATABASE_",
    "POOL_",
    "EDGE_",
    "PLATFORM_",
    "MASTER_KEY",
    "ADMIN_DOMAIN",
    "PUBLIC_",
    "WORKER_",
    "SMTP_",
    "MAIL_",
];

fn of_our_families(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Whether another of our processes has a setting of this name: api and worker may share one environment or file.
fn of_another_process(name: &str) -> bool {
    let stem = name.strip_suffix("_FILE").unwrap_or(name);
    declarations().iter().any(|(_, settings)| {
        settings
            .iter()
            .any(|setting| setting.name == stem || setting.name == name)
    })
}

/// The declarations of every process, in the order in which the documentation shows them.
#[must_use]
pub fn declarations() -> Vec<(&'static str, Vec<Declared>)> {
    let declared = |read: fn(&mut Reader)| {
        let mut reader = Reader::new("", std::collections::BTreeMap::new());
        read(&mut reader);
        reader.declared().to_vec()
    };
    vec![
        (
            "Every process",
            declared(|reader| drop(SharedSettings::read(reader, "127.0.0.1:9081"))),
        ),
        (
            "`odoo-saas-api`",
            declared(|reader| drop(ApiSettings::read_own(reader))),
        ),
        (
            "`odoo-saas-worker`",
            declared(|reader| drop(WorkerSettings::read_own(reader))),
        ),
    ]
}

/// The reference page of all settings, as `docs/configuration.md` holds it.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Settings come from the environment, over a file of `NAME=value` lines that `CONFIG_FILE` names. An empty\n\
         variable counts as unset. A secret may also be given by `<NAME>_FILE`, the path of a file that holds it. A\n\
         value that is missing, unknown or senseless stops the start with a line that names it.\n\n\
         This page is printed from the code's own declarations: `odoo-saas-api settings`.\n",
    );
    for (process, settings) in declarations() {
        page += &format!(
            "\n## {process}\n\n| variable | wants | default | what it is for |\n| --- | --- | --- | --- |\n"
        );
        for setting in settings {
            let default = match (&setting.default, setting.required) {
                (Some(value), _) => format!("`{value}`"),
                (None, true) => "required".to_owned(),
                (None, false) => "unset".to_owned(),
            };
            let file = if setting.secret {
                format!(", `{}_FILE`", setting.name)
            } else {
                String::new()
            };
            page += &format!(
                "| `{}`{file} | {} | {default} | {} |\n",
                setting.name,
                setting.wants.replace('|', "\\|"),
                setting.about.replace('|', "\\|"),
            );
        }
    }
    page
}

/// The known name nearest to a misspelt one: one of at most two edits away.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= 2)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<SharedSettings, SettingsError> {
        let environment: BTreeMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut reader = Reader::new(file, environment);
        let settings = SharedSettings::read(&mut reader, "127.0.0.1:9081");
        reader.finish(settings)
    }

    const GOOD: &str = "DATABASE_URL=postgres://a:b@127.0.0.1/platform\n# a comment\nREDIS_URL = \"redis://127.0.0.1/\"\n\
                        MASTER_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

    #[test]
    fn defaults_make_a_url_that_works_on_one_machine() {
        let settings = read(GOOD, &[]).unwrap();
        assert_eq!(settings.domains.tenant_url("acme"), "http://acme.localhost:8080");
        let settings = read(
            GOOD,
            &[
                ("PUBLIC_SCHEME", "https"),
                ("PUBLIC_PORT", "443"),
                ("DOMAIN", "example.com"),
                ("ADMIN_DOMAIN", "example.net"),
            ],
        )
        .unwrap();
        assert_eq!(settings.domains.tenant_url("acme"), "https://acme.example.com");
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let error = read(
            "DATABASE_URL=mysql://x/y\nREDIS_URL=redis://127.0.0.1/\nMASTER_KEY=short\nDOMIAN=x\nREDIS_URL=redis://x/\n",
            &[("PUBLIC_PORT", "0"), ("LOG_FORMAT", "xml"), ("PUBLIC_PRT", "1"), ("PATH", "/bin")],
        )
        .unwrap_err();
        let text = error.to_string();
        for wanted in [
            "DATABASE_URL: the value is not usable",
            "MASTER_KEY: the value is not usable",
            "PUBLIC_PORT: the value \"0\" is not usable; wants a port",
            "LOG_FORMAT: the value \"xml\" is not usable; wants json or text",
            "DOMIAN: there is no such setting; did you mean DOMAIN?",
            "PUBLIC_PRT: there is no such setting; did you mean PUBLIC_PORT?",
            "REDIS_URL: set twice",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert!(
            !text.contains("short") && !text.contains("mysql") && !text.contains("PATH"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_setting_says_what_it_wants() {
        let text = read("", &[]).unwrap_err().to_string();
        assert!(
            text.contains("DATABASE_URL (or DATABASE_URL_FILE): missing; wants a postgres:// URL"),
            "{text}"
        );
        assert!(
            text.contains("MASTER_KEY (or MASTER_KEY_FILE): missing; wants 32 bytes in base64"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_may_come_from_a_file_but_not_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("url");
        std::fs::write(&path, "postgres://from/file\n").unwrap();
        let path = path.to_str().unwrap();
        let file = GOOD.replace("DATABASE_URL=", "#");
        assert!(read(&file, &[("DATABASE_URL_FILE", path)]).is_ok());
        assert!(
            read(GOOD, &[("DATABASE_URL_FILE", path)])
                .unwrap_err()
                .to_string()
                .contains("set together with")
        );
        let missing = read(&file, &[("DATABASE_URL_FILE", "/nonexistent")])
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("DATABASE_URL_FILE: can't read /nonexistent"),
            "{missing}"
        );
    }

    #[test]
    fn tenants_and_administrators_live_under_different_registrable_domains() {
        let same = read(
            GOOD,
            &[
                ("DOMAIN", "odoo.example.com"),
                ("ADMIN_DOMAIN", "admin.example.com"),
            ],
        );
        assert!(
            same.unwrap_err()
                .to_string()
                .contains("ADMIN_DOMAIN: admin.example.com shares")
        );
        assert!(
            read(
                GOOD,
                &[("DOMAIN", "example.com"), ("ADMIN_DOMAIN", "example.net")]
            )
            .is_ok()
        );
    }

    #[test]
    fn the_reference_page_is_what_the_code_declares() {
        let committed = include_str!("../../../docs/configuration.md");
        assert_eq!(
            committed,
            reference(),
            "print it anew: odoo-saas-api settings > docs/configuration.md"
        );
    }
}
