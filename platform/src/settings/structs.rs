//! What each process wants to know.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
};

use secrecy::SecretString;
use telemetry::LogFormat;
use url::Url;

use super::reader::{Reader, SettingsError};

/// Where and how to log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The form of a line.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info` or `info,jobs=debug`.
    pub level: String,
}

/// The names under which the platform is reached.
#[derive(Debug, Clone)]
pub struct Domains {
    /// Tenants live at `<slug>.<domain>`.
    pub domain: String,
    /// The API and the dashboard.
    pub admin_domain: String,
    /// `http` or `https`, as the tenants' users see it.
    pub scheme: String,
    /// The port in public URLs; `None` where it is the scheme's own.
    pub port: Option<u16>,
}

impl Domains {
    /// The host name of a tenant.
    #[must_use]
    pub fn tenant_host(&self, slug: &str) -> String {
        format!("{slug}.{}", self.domain)
    }

    /// The URL of the API and the dashboard, without a slash at the end.
    #[must_use]
    pub fn admin_url(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.scheme, self.admin_domain)
    }

    /// Where an invitation is accepted. The token stands behind the `#`, which no server and no log ever sees.
    #[must_use]
    pub fn invitation_url(&self, token: &str) -> String {
        format!("{}/invitation#{token}", self.admin_url())
    }

    /// The URL of a tenant, without a slash at the end.
    #[must_use]
    pub fn tenant_url(&self, slug: &str) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.scheme, self.tenant_host(slug))
    }
}

/// What every process wants to know.
#[derive(Debug, Clone)]
pub struct SharedSettings {
    /// The control plane's database, as this process's own role.
    pub database_url: SecretString,
    /// The Redis that hands work over.
    pub redis_url: SecretString,
    /// The key that wraps the keys that seal secrets at rest: 32 bytes in base64.
    pub master_key: SecretString,
    /// The one that was in use before it.
    pub master_key_previous: Option<SecretString>,
    /// Public names.
    pub domains: Domains,
    /// Logging.
    pub log: LogSettings,
    /// Where Prometheus reads metrics.
    pub metrics_listen: SocketAddr,
}

impl SharedSettings {
    /// Declares and reads them. Metrics are served at `metrics_default` where nothing is set.
    pub fn read(reader: &mut Reader, metrics_default: &str) -> Option<Self> {
        let database_url = database_url(reader);
        let redis_url = reader
            .setting(
                "REDIS_URL",
                "a redis:// URL",
                "Hands work from the API to workers. Losing it loses no work.",
            )
            .required()
            .secret(|text| {
                text.starts_with("redis")
                    .then(|| SecretString::from(text.to_owned()))
            });
        let master_key = reader
            .setting("MASTER_KEY", "32 bytes in base64", "Wraps the data keys that seal secrets in the control plane's database. Keep a copy apart from it: without this key they can't be read.")
            .required()
            .secret(master_key_text);
        let master_key_previous = reader
            .setting(
                "MASTER_KEY_PREVIOUS",
                "32 bytes in base64",
                "The key that MASTER_KEY replaces, until `rotate-data-key` says that it is needed no longer.",
            )
            .optional_secret_of(master_key_text);
        let domains = domains(reader);
        let format = reader
            .setting("LOG_FORMAT", "json or text", "How log lines are written.")
            .default("json")
            .parse(|text| match text {
                "json" => Some(LogFormat::Json),
                "text" => Some(LogFormat::Text),
                _ => None,
            });
        let level = reader
            .setting(
                "LOG_LEVEL",
                "a tracing filter, such as info or info,jobs=debug",
                "What is logged.",
            )
            .default("info,sqlx::query=warn")
            .parse(|text| telemetry::is_filter(text).then(|| text.to_owned()));
        let metrics_listen = reader
            .setting("METRICS_LISTEN", "an address and port", "Where Prometheus reads metrics; keep it off the public network. The worker's default is 127.0.0.1:9082.")
            .default(metrics_default)
            .parse(|text| text.parse().ok());
        Some(Self {
            database_url: database_url?,
            redis_url: redis_url?,
            master_key: master_key?,
            master_key_previous: master_key_previous?,
            domains: domains?,
            log: LogSettings {
                format: format?,
                level: level?,
            },
            metrics_listen: metrics_listen?,
        })
    }
}

fn domains(reader: &mut Reader) -> Option<Domains> {
    let domain = reader
        .setting(
            "DOMAIN",
            "a domain name",
            "Tenants are reached at `<slug>.DOMAIN`. List it in the Public Suffix List in production.",
        )
        .default("localhost")
        .parse(domain_name);
    let admin_domain = reader
        .setting(
            "ADMIN_DOMAIN",
            "a domain name that shares no registrable domain with DOMAIN",
            "The API and the dashboard are reached here.",
        )
        .default("localhost")
        .parse(domain_name);
    let scheme = reader
        .setting("PUBLIC_SCHEME", "http or https", "The scheme of public URLs.")
        .default("http")
        .parse(|text| ["http", "https"].contains(&text).then(|| text.to_owned()));
    let port = reader
        .setting(
            "PUBLIC_PORT",
            "a port",
            "The port in public URLs; left out of them where it is the scheme's own.",
        )
        .default("8080")
        .parse(|text| text.parse::<u16>().ok().filter(|port| *port > 0));
    if let (Some(domain), Some(admin)) = (&domain, &admin_domain)
        && domain != "localhost"
        && registrable(domain) == registrable(admin)
    {
        reader.mistake(format!(
            "ADMIN_DOMAIN: {admin} shares the registrable domain of DOMAIN ({domain}): a tenant's page could set \
             cookies for it; wants a domain of its own"
        ));
    }
    let (scheme, port) = (scheme?, port?);
    let own = if scheme == "https" { 443 } else { 80 };
    Some(Domains {
        domain: domain?,
        admin_domain: admin_domain?,
        scheme,
        port: (port != own).then_some(port),
    })
}

fn master_key_text(text: &str) -> Option<SecretString> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .ok()?;
    (bytes.len() == 32).then(|| SecretString::from(text.trim().to_owned()))
}

fn database_url(reader: &mut Reader) -> Option<SecretString> {
    reader
        .setting(
            "DATABASE_URL",
            "a postgres:// URL",
            "The control plane's database, as the role of this process (migrator, api or worker).",
        )
        .required()
        .secret(postgres_url)
}

fn postgres_url(text: &str) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    (["postgres", "postgresql"].contains(&url.scheme()) && url.path().len() > 1)
        .then(|| SecretString::from(text.to_owned()))
}

fn domain_name(text: &str) -> Option<String> {
    let labels_are_fine = text.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    (text.len() <= 200 && labels_are_fine).then(|| text.to_owned())
}

/// The last two labels: what a public suffix of one label makes registrable. Longer public suffixes make this refuse
/// more than it must, never less.
fn registrable(domain: &str) -> &str {
    let cut = domain
        .rmatch_indices('.')
        .nth(1)
        .map_or(0, |(index, _)| index + 1);
    &domain[cut..]
}

/// What `odoo-saas-api migrate` wants to know.
#[derive(Debug, Clone)]
pub struct MigrateSettings {
    /// The control plane's database, as the role that owns its tables.
    pub database_url: SecretString,
}

impl MigrateSettings {
    /// Reads them from the environment.
    ///
    /// # Errors
    /// Every mistake that was met.
    pub fn load() -> Result<Self, SettingsError> {
        let mut reader = Reader::from_environment()?;
        let settings = database_url(&mut reader).map(|database_url| Self { database_url });
        reader.finish(settings)
    }
}

/// What the API wants to know.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Shared ones.
    pub shared: SharedSettings,
    /// Where requests are answered.
    pub listen: SocketAddr,
    /// The first owner's e-mail address.
    pub bootstrap_email: String,
    /// The first owner's password; unset: one is generated into `bootstrap_password_out`.
    pub bootstrap_password: Option<SecretString>,
    /// Where a generated first password is written, with mode 0600.
    pub bootstrap_password_out: PathBuf,
    /// How many tenants a shared pool may hold.
    pub pool_capacity: i32,
    /// Requests a second that a credential, or an address without one, may make for long.
    pub rate_limit: u32,
    /// Requests that it may make at once.
    pub rate_burst: u32,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Days after which a new key signs access tokens.
    pub signing_key_days: u16,
    /// Days after which a new data key seals secrets.
    pub data_key_days: u16,
    /// Days for which an operation that is over is kept.
    pub operations_kept_days: u16,
    /// How mail is sent; unset: not at all.
    pub mail: Option<MailSettings>,
}

/// How mail is sent.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// The server, with user and password if it wants them.
    pub smtp_url: SecretString,
    /// The sender.
    pub from: String,
}

impl ApiSettings {
    /// Reads them from the environment.
    ///
    /// # Errors
    /// Every mistake that was met.
    pub fn load() -> Result<Self, SettingsError> {
        let mut reader = Reader::from_environment()?;
        let shared = SharedSettings::read(&mut reader, "127.0.0.1:9081");
        let own = Self::read_own(&mut reader);
        let settings = shared.zip(own).map(|(shared, own)| own(shared));
        reader.finish(settings)
    }

    /// Declares and reads what is the API's own.
    pub(super) fn read_own(reader: &mut Reader) -> Option<impl FnOnce(SharedSettings) -> Self + use<>> {
        let listen = reader
            .setting("LISTEN", "an address and port", "Where requests are answered.")
            .default("127.0.0.1:8081")
            .parse(|text| text.parse().ok());
        let email = reader
            .setting(
                "BOOTSTRAP_EMAIL",
                "an e-mail address",
                "The first owner of the root organization, made at the first start.",
            )
            .default("owner@example.com")
            .parse(|text| crate::text::email(text).ok());
        let password = reader
            .setting(
                "BOOTSTRAP_PASSWORD",
                "a password of at least 12 characters",
                "The first owner's password. Unset: one is generated into BOOTSTRAP_PASSWORD_OUT.",
            )
            .optional_secret();
        if let Some(Some(password)) = &password {
            use secrecy::ExposeSecret as _;
            if password.expose_secret().chars().count() < 12 {
                reader.mistake(
                    "BOOTSTRAP_PASSWORD: too short; wants a password of at least 12 characters".to_owned(),
                );
            }
        }
        let password_out = reader
            .setting(
                "BOOTSTRAP_PASSWORD_OUT",
                "an absolute path",
                "Where a generated first password is written, with mode 0600. Never into a log.",
            )
            .default("/var/lib/odoo-saas-platform/owner-password")
            .path();
        let pool_capacity = reader
            .setting(
                "POOL_CAPACITY",
                "a number of tenants, 1 to 1000",
                "How many tenants a shared pool may hold.",
            )
            .default("200")
            .parse(|text| text.parse().ok().filter(|count| (1..=1000).contains(count)));
        let rate_limit = reader
            .setting(
                "RATE_LIMIT",
                "requests a second, 1 to 1000000",
                "How many requests a second one credential may make for long, or one address without a credential.",
            )
            .default("50")
            .parse(|text| text.parse().ok().filter(|rate| (1..=1_000_000).contains(rate)));
        let rate_burst = reader
            .setting(
                "RATE_BURST",
                "a number of requests, 1 to 1000000",
                "How many it may make at once.",
            )
            .default("200")
            .parse(|text| text.parse().ok().filter(|burst| (1..=1_000_000).contains(burst)));
        let trusted_proxies = reader
            .setting(
                "TRUSTED_PROXIES",
                "addresses with commas between them",
                "Proxies whose X-Forwarded-For tells where a request comes from.",
            )
            .default("127.0.0.1,::1")
            .parse(|text| {
                text.split(',')
                    .map(str::trim)
                    .filter(|address| !address.is_empty())
                    .map(|address| address.parse().ok())
                    .collect::<Option<Vec<IpAddr>>>()
            });
        let signing_key_days = reader
            .setting(
                "SIGNING_KEY_DAYS",
                "a number of days, 1 to 3650",
                "After how many days a new key signs access tokens. Nobody is logged out.",
            )
            .default("30")
            .parse(|text| text.parse().ok().filter(|days| (1..=3650).contains(days)));
        let data_key_days = reader
            .setting(
                "DATA_KEY_DAYS",
                "a number of days, 1 to 3650",
                "After how many days a new data key seals secrets, and those that are stored are sealed again.",
            )
            .default("90")
            .parse(|text| text.parse().ok().filter(|days| (1..=3650).contains(days)));
        let operations_kept_days = reader
            .setting(
                "OPERATIONS_KEPT_DAYS",
                "a number of days, 1 to 3650",
                "For how many days an operation that is over can still be read.",
            )
            .default("90")
            .parse(|text| text.parse().ok().filter(|days| (1..=3650).contains(days)));
        let smtp_url = reader
            .setting(
                "SMTP_URL",
                "an smtp:// or smtps:// URL",
                "The server that takes mail, with user and password in the URL if it wants them; `smtp://…?tls=required` \
                 for STARTTLS. Unset: links are answered to the inviter instead of being mailed.",
            )
            .optional_secret();
        if let Some(Some(url)) = &smtp_url {
            use secrecy::ExposeSecret as _;
            let url = url.expose_secret();
            if !(url.starts_with("smtp://") || url.starts_with("smtps://")) || Url::parse(url).is_err() {
                reader.mistake("SMTP_URL: wants an smtp:// or smtps:// URL".to_owned());
            }
        }
        let mail_from = reader
            .setting("MAIL_FROM", "an e-mail address", "The sender of mail.")
            .default("platform@localhost")
            .parse(|text| crate::text::email(text).ok());
        let (smtp_url, from) = (smtp_url?, mail_from?);
        let mail = smtp_url.map(|smtp_url| MailSettings { smtp_url, from });
        let (listen, bootstrap_email, bootstrap_password) = (listen?, email?, password?);
        let (bootstrap_password_out, pool_capacity) = (password_out?, pool_capacity?);
        let (rate_limit, rate_burst) = (rate_limit?, rate_burst?);
        let (trusted_proxies, signing_key_days) = (trusted_proxies?, signing_key_days?);
        let (data_key_days, operations_kept_days) = (data_key_days?, operations_kept_days?);
        Some(move |shared| Self {
            shared,
            listen,
            bootstrap_email,
            bootstrap_password,
            bootstrap_password_out,
            pool_capacity,
            rate_limit,
            rate_burst,
            trusted_proxies,
            signing_key_days,
            data_key_days,
            operations_kept_days,
            mail,
        })
    }
}

/// What runs the pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Containers on a Docker Engine.
    Docker,
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// What the worker wants to know of pools.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The Odoo image, by reference or id.
    pub image: String,
    /// User id of Odoo's processes.
    pub uid: u32,
    /// Group id of Odoo's processes; the worker is a member.
    pub gid: u32,
    /// Ports on loopback that pools may take.
    pub ports: PortRange,
    /// Where pools' networks take their subnets.
    pub network_range: String,
    /// Where pools reach their Postgres: a socket directory, or a host; unset: the host of `TENANT_DATABASE_URL`.
    pub database_host: Option<String>,
    /// Worker processes of a pool's web container.
    pub web_workers: u16,
}

/// What is to be known of the edge.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// Where the edge's routes are kept.
    pub path: PathBuf,
    /// Where the edge listens.
    pub listen: SocketAddr,
    /// Where the edge finds the API.
    pub api: SocketAddr,
    /// User (and group) of the edge's worker processes, where its master is root.
    pub user: Option<String>,
}

impl EdgeSettings {
    fn read(reader: &mut Reader) -> Option<Self> {
        let edge_path = reader
            .setting(
                "EDGE_PATH",
                "an absolute path",
                "Where the edge's routes and configuration are kept.",
            )
            .default("/var/lib/odoo-saas-platform/edge")
            .path();
        let edge_listen = reader
            .setting("EDGE_LISTEN", "an address and port", "Where the edge listens.")
            .default("127.0.0.1:8080")
            .parse(|text| text.parse().ok());
        let edge_api = reader
            .setting("EDGE_API", "an address and port", "Where the edge finds the API.")
            .default("127.0.0.1:8081")
            .parse(|text| text.parse().ok());
        let edge_user = reader
            .setting(
                "EDGE_USER",
                "a user and, after a space, a group",
                "User of the edge's worker processes where its master is root.",
            )
            .optional(|text| Some(text.to_owned()));
        Some(Self {
            path: edge_path?,
            listen: edge_listen?,
            api: edge_api?,
            user: edge_user?,
        })
    }
}

/// What `odoo-saas-worker edge-config` wants to know.
#[derive(Debug, Clone)]
pub struct EdgeConfigSettings {
    /// Public names.
    pub domains: Domains,
    /// The edge.
    pub edge: EdgeSettings,
}

impl EdgeConfigSettings {
    /// Reads them from the environment.
    ///
    /// # Errors
    /// Every mistake that was met.
    pub fn load() -> Result<Self, SettingsError> {
        let mut reader = Reader::from_environment()?;
        let domains = domains(&mut reader);
        let edge = EdgeSettings::read(&mut reader);
        let settings = domains.zip(edge).map(|(domains, edge)| Self { domains, edge });
        reader.finish(settings)
    }
}

/// What the worker wants to know.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Shared ones.
    pub shared: SharedSettings,
    /// The tenants' Postgres server, as its admin role.
    pub tenant_database_url: SecretString,
    /// What runs the pools.
    pub runtime: RuntimeKind,
    /// How to reach the Docker Engine.
    pub docker_host: String,
    /// Name of this installation on the Docker Engine.
    pub instance: String,
    /// Pools.
    pub pools: PoolSettings,
    /// Root of templates' and tenants' files.
    pub filestore_path: PathBuf,
    /// The edge.
    pub edge: EdgeSettings,
    /// Operations that run at the same time.
    pub concurrency: usize,
    /// Operations of one organization that run at the same time, on all workers together.
    pub jobs_per_organization: NonZeroU16,
}

impl WorkerSettings {
    /// Reads them from the environment.
    ///
    /// # Errors
    /// Every mistake that was met.
    pub fn load() -> Result<Self, SettingsError> {
        let mut reader = Reader::from_environment()?;
        let shared = SharedSettings::read(&mut reader, "127.0.0.1:9082");
        let own = Self::read_own(&mut reader);
        let settings = shared.zip(own).map(|(shared, own)| own(shared));
        reader.finish(settings)
    }

    /// Declares and reads what is the worker's own.
    pub(super) fn read_own(reader: &mut Reader) -> Option<impl FnOnce(SharedSettings) -> Self + use<>> {
        let tenant_database_url = reader
            .setting(
                "TENANT_DATABASE_URL",
                "a postgres:// URL",
                "The tenants' Postgres server, as its admin role. Another cluster than DATABASE_URL's.",
            )
            .required()
            .secret(postgres_url);
        let database_host = reader
            .setting(
                "TENANT_DATABASE_POOL_HOST",
                "a host name, an address, or the absolute path of a socket directory",
                "Where pools reach that server. Unset: the host of TENANT_DATABASE_URL.",
            )
            .optional(|text| Some(text.to_owned()));
        let runtime = reader
            .setting("RUNTIME", "docker", "What runs the pools.")
            .default("docker")
            .parse(|text| (text == "docker").then_some(RuntimeKind::Docker));
        let docker_host = reader
            .setting("DOCKER_HOST", "a unix:// URL", "How to reach the Docker Engine.")
            .default("unix:///var/run/docker.sock")
            .parse(|text| text.starts_with("unix://").then(|| text.to_owned()));
        let instance = reader
            .setting("PLATFORM_INSTANCE", "1 to 32 of a-z, 0-9 and -", "Name of this installation: the label of all that it makes on the Docker Engine. Nothing without it is ever touched.")
            .default("main")
            .parse(|text| {
                let fine = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                (fine && (1..=32).contains(&text.len())).then(|| text.to_owned())
            });
        let image = reader
            .setting(
                "ODOO_IMAGE",
                "an image's reference or id",
                "Odoo 19. Pinned by its id at the first use.",
            )
            .required()
            .text();
        let uid = number(
            reader,
            "POOL_UID",
            "User id of Odoo's processes in their containers.",
        );
        let gid = number(
            reader,
            "POOL_GID",
            "Group id of Odoo's processes; the worker's user must be a member.",
        );
        let ports = reader
            .setting(
                "POOL_PORTS",
                "a range of ports, such as 8700-8799",
                "Ports on loopback that pools may take, two each.",
            )
            .default("8700-8799")
            .parse(|text| {
                let (first, last) = text.split_once('-')?;
                let range = PortRange {
                    first: first.parse().ok()?,
                    last: last.parse().ok()?,
                };
                (range.first > 0 && range.first < range.last).then_some(range)
            });
        let network_range = reader
            .setting("POOL_NETWORK_RANGE", "a private IPv4 network, such as 10.213.0.0/16", "Where pools' networks take their subnets. The host's firewall rules for pools name the same range.")
            .default("10.213.0.0/16")
            .parse(|text| {
                let (address, bits) = text.split_once('/')?;
                let private = address.parse::<std::net::Ipv4Addr>().ok()?.is_private();
                (private && (8..=24).contains(&bits.parse::<u8>().ok()?)).then(|| text.to_owned())
            });
        let web_workers = reader
            .setting(
                "POOL_WEB_WORKERS",
                "1 to 64",
                "Processes of a pool's web container.",
            )
            .default("2")
            .parse(|text| text.parse().ok().filter(|count| (1..=64).contains(count)));
        let filestore_path = reader
            .setting(
                "FILESTORE_PATH",
                "an absolute path",
                "Root of templates' and tenants' files: one file system.",
            )
            .default("/var/lib/odoo-saas-platform/filestore")
            .path();
        let edge = EdgeSettings::read(reader);
        let concurrency = reader
            .setting(
                "WORKER_CONCURRENCY",
                "1 to 64",
                "Operations that run at the same time in this process.",
            )
            .default("8")
            .parse(|text| text.parse().ok().filter(|count| (1..=64).contains(count)));
        let jobs_per_organization = reader
            .setting(
                "WORKER_JOBS_PER_ORGANIZATION",
                "1 to 1000",
                "Operations of one organization that run at the same time, on all workers together; its others wait. The worker that started last decides.",
            )
            .default("8")
            .parse(|text| text.parse().ok().filter(|count: &NonZeroU16| count.get() <= 1000));
        let pools = PoolSettings {
            image: image?,
            uid: uid?,
            gid: gid?,
            ports: ports?,
            network_range: network_range?,
            database_host: database_host?,
            web_workers: web_workers?,
        };
        let (tenant_database_url, runtime, docker_host, instance) =
            (tenant_database_url?, runtime?, docker_host?, instance?);
        let (filestore_path, edge, concurrency) = (filestore_path?, edge?, concurrency?);
        let jobs_per_organization = jobs_per_organization?;
        Some(move |shared| Self {
            shared,
            tenant_database_url,
            runtime,
            docker_host,
            instance,
            pools,
            filestore_path,
            edge,
            concurrency,
            jobs_per_organization,
        })
    }
}

fn number(reader: &mut Reader, name: &'static str, about: &'static str) -> Option<u32> {
    reader
        .setting(name, "a number, not 0", about)
        .default("69069")
        .parse(|text| text.parse().ok().filter(|id| *id > 0))
}
