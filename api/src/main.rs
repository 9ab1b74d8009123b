//! The API's process. Without a word it serves; with one it does one thing and ends.

use std::process::ExitCode;

use platform::settings::{self, ApiSettings, MigrateSettings};

const USAGE: &str = "usage: odoo-saas-api [serve | migrate | openapi | errors | settings]\n\n\
  serve     answer requests (the default)\n\
  migrate   bring the database up to date and end\n\
  openapi   print the OpenAPI document\n\
  errors    print docs/errors.md\n\
  settings  print docs/configuration.md\n";

#[actix_web::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    if arguments.next().is_some() {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    }
    let outcome = match command.as_deref() {
        None | Some("serve") => serve().await,
        Some("migrate") => migrate().await,
        Some("openapi") => print(&api::openapi_text()),
        Some("errors") => print(&api::error_reference()),
        Some("settings") => print(&settings::reference()),
        Some("help" | "--help" | "-h") => print(USAGE),
        Some(_) => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("odoo-saas-api: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn print(text: &str) -> Outcome {
    use std::io::Write as _;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

async fn serve() -> Outcome {
    let settings = ApiSettings::load()?;
    telemetry::start_logging(settings.shared.log.format, &settings.shared.log.level);
    api::serve(settings).await
}

async fn migrate() -> Outcome {
    let settings = MigrateSettings::load()?;
    platform::migrate(&settings.database_url).await?;
    Ok(())
}
