//! Builds the database and files that tenants are cloned from: Odoo installs its modules and makes its asset bundles
//! once, here, so that no tenant ever waits for them.

use std::time::Duration;

use async_trait::async_trait;
use jobs::{JobContext, OperationKind, Outcome, Step, StepContext, StepError, StepErrorExt as _, StepResult};
use odoo::{
    runtime::PoolSpec,
    template::{TemplateBuild, TemplateError, TemplateSpec},
};
use platform::operations::kinds::BuildTemplate;
use sea_orm::DatabaseTransaction;
use serde::{Deserialize, Serialize};

use super::{database, fenced_session, files, runtime, server, tag};
use crate::world::World;

/// The kind.
pub struct Build;

/// What is known of a template once it is there.
#[derive(Serialize, Deserialize)]
struct Built {
    database: String,
    languages: Vec<String>,
}

#[async_trait]
impl OperationKind for Build {
    type Input = BuildTemplate;
    type World = World;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![Box::new(Install), Box::new(Seal)]
    }

    async fn on_finish(
        transaction: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        let template = cx.input().template;
        if *outcome == Outcome::Succeeded
            && let Some(built) = cx.recall::<Built>(Seal.name())?
        {
            platform::pools::describe_template(transaction, template, &built.database, &built.languages)
                .await?;
        }
        Ok(platform::pools::build_ended(transaction, template, outcome).await?)
    }
}

/// The build and the pool whose image, key and network it borrows.
async fn plan(cx: &JobContext<Build>) -> Result<(TemplateSpec, PoolSpec), StepError> {
    let world = cx.world();
    let row = database(platform::pools::template(&world.database, cx.input().template).await)?;
    let modules: Vec<String> = serde::Deserialize::deserialize(row.modules).permanent(
        "invalid_template",
        "The template's list of modules is not readable.",
    )?;
    let image = runtime(world.image().await)?.clone();
    let pool = database(world.pool(cx.input().pool).await)?;
    Ok((
        TemplateSpec::new(image, modules),
        runtime(world.spec(&pool).await)?,
    ))
}

fn build<'a>(cx: &'a JobContext<Build>, spec: &'a TemplateSpec, pool: &'a PoolSpec) -> TemplateBuild<'a> {
    TemplateBuild {
        spec,
        filestore: &cx.world().filestore,
        keys: &pool.keys,
    }
}

/// Sorts a build's error.
fn built<T>(result: Result<T, TemplateError>) -> Result<T, StepError> {
    const CODE: &str = "template_failed";
    const MESSAGE: &str = "The template could not be built.";
    match result {
        Ok(value) => Ok(value),
        Err(TemplateError::Server(error)) => server(Err(error)),
        Err(TemplateError::Runtime(error)) => runtime(Err(error)),
        Err(TemplateError::Filestore(error)) => files(Err(error)),
        Err(TemplateError::Install { exit, log }) => {
            tracing::error!(exit, log, "Odoo could not install the template's modules");
            Err(StepError::retry(CODE, MESSAGE).detailed(log))
        }
        Err(error @ TemplateError::Files { .. }) => Err(error).retry(CODE, MESSAGE),
    }
}

/// Lets Odoo install the modules in an empty database.
struct Install;

#[async_trait]
impl Step<Build> for Install {
    fn name(&self) -> &'static str {
        "install"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(1800)
    }

    async fn apply(&self, cx: &StepContext<Build>) -> StepResult {
        let (spec, pool) = plan(cx).await?;
        let mut session = fenced_session(cx, spec.database().as_str()).await?;
        if server(session.template(&spec.database()).await)?.is_some() {
            return Ok(());
        }
        let build = build(cx, &spec, &pool);
        // The container of a cut-off run would go on installing into this one's database.
        built(build.end_install(cx.world().runtime.as_ref(), pool.pool).await)?;
        built(build.begin(&mut session).await)?;
        built(build.install(cx.world().runtime.as_ref(), &pool).await)
    }

    async fn undo(&self, cx: &StepContext<Build>) -> StepResult {
        let (spec, pool) = plan(cx).await?;
        let mut session = fenced_session(cx, spec.database().as_str()).await?;
        let build = build(cx, &spec, &pool);
        built(build.end_install(cx.world().runtime.as_ref(), pool.pool).await)?;
        built(build.remove(&mut session).await)
    }
}

/// Gives the database and its files their final form, in which nobody can change them.
struct Seal;

#[async_trait]
impl Step<Build> for Seal {
    fn name(&self) -> &'static str {
        "seal"
    }

    async fn apply(&self, cx: &StepContext<Build>) -> StepResult {
        let (spec, pool) = plan(cx).await?;
        let mut session = fenced_session(cx, spec.database().as_str()).await?;
        let known = server(session.template(&spec.database()).await)?;
        let template = match known {
            Some(template) => template,
            None => built(build(cx, &spec, &pool).finish(&mut session, &tag(cx)).await)?,
        };
        session.close().await;
        cx.remember(&Built {
            database: template.database.to_string(),
            languages: template.languages,
        })
    }

    async fn undo(&self, _: &StepContext<Build>) -> StepResult {
        // The database goes with the first step's undo.
        Ok(())
    }
}
