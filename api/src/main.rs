//! The API's process. Without a word it serves; with one it does one thing and ends.

use std::process::ExitCode;

use platform::{
    auth::Rotation,
    reconcile::Nudge,
    settings::{self, ApiSettings, MigrateSettings},
};

const USAGE: &str = "usage: odoo-saas-api [command]\n\n\
  serve                         answer requests (the default)\n\
  migrate                       bring the database up to date and end\n\
  rotate-signing-key            make a new key that will sign access tokens; nobody is logged out\n\
  rotate-signing-key --at-once  the same, and the old keys' tokens are worth nothing: for a key that became known\n\
  rotate-data-key               make a new key that seals secrets, and seal again those that are stored\n\
  reconcile                     compare the tables with what is there now; prints the operation that does so\n\
  openapi                       print the OpenAPI document\n\
  errors                        print docs/errors.md\n\
  permissions                   print docs/permissions.md\n\
  settings                      print docs/configuration.md\n";

/// Gives back what is not used (`.cargo/config.toml` says how soon).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[actix_web::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] | ["serve"] => serve().await,
        ["migrate"] => migrate().await,
        ["rotate-signing-key"] => rotate(Rotation::WithOverlap).await,
        ["rotate-signing-key", "--at-once"] => rotate(Rotation::AtOnce).await,
        ["rotate-data-key"] => rotate_data_key().await,
        ["reconcile"] => reconcile().await,
        ["openapi"] => print(&api::openapi_text()),
        ["errors"] => print(&api::error_reference()),
        ["permissions"] => print(&api::permission_reference()),
        ["settings"] => print(&settings::reference()),
        ["help" | "--help" | "-h"] => print(USAGE),
        _ => {
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

async fn rotate(rotation: Rotation) -> Outcome {
    let settings = ApiSettings::load()?;
    api::rotate_signing_key(&settings, rotation).await?;
    println!(
        "{}",
        match rotation {
            Rotation::AtOnce =>
                "a new key signs from now on; tokens of older keys are refused within a minute",
            Rotation::IfOlder(_) | Rotation::WithOverlap =>
                "a new key will sign in ten minutes; nobody is logged out",
        }
    );
    Ok(())
}

async fn rotate_data_key() -> Outcome {
    let settings = ApiSettings::load()?;
    telemetry::start_logging(settings.shared.log.format, &settings.shared.log.level);
    let done = api::rotate_data_key(&settings).await?;
    println!(
        "a new data key seals from now on; sealed again under it: {}; wrapped anew under MASTER_KEY: {}",
        done.resealed, done.rewrapped
    );
    if done.stuck > 0 {
        return Err(format!("{} secrets do not open: the log names them", done.stuck).into());
    }
    if settings.shared.master_key_previous.is_some() {
        println!("MASTER_KEY_PREVIOUS is needed no longer");
    }
    Ok(())
}

async fn reconcile() -> Outcome {
    let settings = ApiSettings::load()?;
    match api::nudge_reconciler(&settings).await? {
        Nudge::Asked(operation) => println!("{operation} compares the tables with what is there"),
        Nudge::UnderWay(operation) => println!("{operation} is under way already"),
        Nudge::NothingYet => {
            return Err("the platform has never been started: there is nothing to compare".into());
        }
    }
    Ok(())
}

async fn migrate() -> Outcome {
    let settings = MigrateSettings::load()?;
    platform::database::migrate(&settings.database_url).await?;
    Ok(())
}
