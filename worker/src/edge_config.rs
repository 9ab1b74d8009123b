//! `odoo-saas-worker edge-config`: the edge's configuration, from the same settings that the worker's routes come from.

use std::path::PathBuf;

use clap::Parser;
use odoo::edge::{EdgeConfig, PublicScheme};
use platform::settings::EdgeConfigSettings;

use crate::Outcome;

/// Prints the edge's configuration for Nginx.
#[derive(Parser)]
#[command(name = "odoo-saas-worker edge-config")]
struct Arguments {
    /// Where Nginx writes its process id.
    #[arg(long)]
    pid_file: PathBuf,
    /// An existing directory for what Nginx buffers.
    #[arg(long)]
    temp_path: PathBuf,
    /// Where requests are logged.
    #[arg(long)]
    access_log: PathBuf,
    /// Where errors are logged.
    #[arg(long)]
    error_log: PathBuf,
    /// Lets Nginx detach itself, where no supervisor keeps it.
    #[arg(long)]
    daemon: bool,
}

pub async fn print() -> Outcome {
    let arguments = Arguments::parse_from(std::env::args().skip(1));
    let settings = EdgeConfigSettings::load()?;
    tokio::fs::create_dir_all(&settings.edge.path).await?;
    let user = settings
        .edge
        .user
        .as_deref()
        .map(|text| match text.split_once(' ') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (text.to_owned(), None),
        });
    let text = EdgeConfig {
        listen: vec![settings.edge.listen],
        admin_domain: settings.domains.admin_domain.parse()?,
        public_scheme: if settings.domains.scheme == "https" {
            PublicScheme::Https
        } else {
            PublicScheme::Http
        },
        api: settings.edge.api,
        pools: std::net::Ipv4Addr::LOCALHOST.into(),
        // Nginx compares real paths.
        edge_path: tokio::fs::canonicalize(&settings.edge.path).await?,
        pid_file: arguments.pid_file,
        temp_path: arguments.temp_path,
        access_log: arguments.access_log,
        error_log: arguments.error_log,
        user,
        open_files: None,
        trusted_proxies: Vec::new(),
        daemon: arguments.daemon,
    }
    .render()?;
    print!("{text}");
    Ok(())
}
