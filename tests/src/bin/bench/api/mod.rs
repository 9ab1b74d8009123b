//! What the guard costs: authorized reads through the whole router, against a bare actix handler that does the same
//! query over as large a pool and encodes the same JSON, in the same run. For those who see everything, and for a reseller
//! in the middle of the tree.

mod bare;
mod crowd;
mod load;

use anyhow::{Context as _, Result, ensure};
pub use bare::serve as serve_bare;
use platform::id::TenantId;
use tests::{api::Api, people::People};

use self::load::{Load, Measured};
use crate::{copy::Copy, report::Report};

/// Tenants in the list.
const TENANTS: u32 = 10_000;
/// Organizations, four levels deep, that they belong to.
const ORGANIZATIONS: [usize; 2] = [10, 10_000];
/// Sessions that share the requests, each below its rate limit.
const SESSIONS: usize = 300;
/// Rounds, bare and guarded by turns: a machine's mood changes in seconds.
const ROUNDS: usize = 4;
/// The port of the bare handler.
const BARE_PORT: u16 = 28_933;

pub async fn run(report: &mut Report) -> Result<()> {
    report.say(format!(
        "api: guarded reads against a bare handler, {TENANTS} tenants, {SESSIONS} sessions"
    ));
    let mut operators = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        operators.push(Api::owner().await?.token().to_owned());
    }
    for organizations in ORGANIZATIONS {
        let crowd = crowd::Crowd::make(organizations, TENANTS).await?;
        let outcome = measure_both(report, &crowd, organizations, &operators).await;
        crowd.remove().await?;
        outcome?;
    }
    Ok(())
}

async fn measure_both(
    report: &mut Report,
    crowd: &crowd::Crowd,
    organizations: usize,
    operators: &[String],
) -> Result<()> {
    let whose = format!("{organizations} organizations, the operator");
    measure(report, &whose, None, crowd.ids(), operators).await?;

    let (organization, ids) = crowd.reseller().await?;
    let mut people = People::new().await?;
    let member = people.member(&organization, "viewer").await?;
    let mut tokens = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        tokens.push(member.tokens().await?.access);
    }
    let whose = format!(
        "{organizations} organizations, a reseller with {} tenants",
        ids.len()
    );
    measure(report, &whose, Some(&organization.id), &ids, &tokens).await
}

/// Puts both loads on both servers by turns, as whoever has these tokens and sees these tenants.
async fn measure(
    report: &mut Report,
    whose: &str,
    organization: Option<&str>,
    ids: &[TenantId],
    tokens: &[String],
) -> Result<()> {
    report.say(format!(" {whose}"));
    let running = Copy::of("api")?;
    let guarded = format!(
        "http://{}",
        running.setting("LISTEN").context("the api listens somewhere")?
    );
    let bare = format!("http://127.0.0.1:{BARE_PORT}");
    let mut settings = running.with("BENCH_LISTEN", &format!("127.0.0.1:{BARE_PORT}"));
    if let Some(organization) = organization {
        settings = settings.with("BENCH_ORGANIZATION", organization);
    }
    let _server = settings.start_program(&std::env::current_exe()?, &["serve-bare"])?;
    let one: Vec<String> = ids
        .iter()
        .step_by((ids.len() / SESSIONS).max(1))
        .take(SESSIONS)
        .map(|id| format!("/v1/tenants/{id}"))
        .collect();
    let page = vec!["/v1/tenants?limit=50".to_owned()];
    same_answers(&bare, &guarded, &one[0], &tokens[0]).await?;
    same_answers(&bare, &guarded, &page[0], &tokens[0]).await?;

    for (what, paths) in [("one tenant", one), ("a page of 50", page)] {
        let (bare, guarded) = (
            Load::new(&bare, &paths, tokens),
            Load::new(&guarded, &paths, tokens),
        );
        bare.run(2)?;
        guarded.run(2)?;
        let (mut without, mut with) = (Measured::default(), Measured::default());
        for _ in 0..ROUNDS {
            without.add(&bare.run(4)?);
            with.add(&guarded.run(4)?);
        }
        report.say(format!("  {what}, bare:    {without}"));
        report.say(format!("  {what}, guarded: {with}"));
        let share = with.per_second() / without.per_second();
        report.promise(
            &format!("{what}, {whose}: guarded, of the bare handler's requests a second"),
            share,
            "",
            share >= 0.7,
            "at least 0.7",
        );
    }
    Ok(())
}

/// The comparison is one only if both say the same.
async fn same_answers(bare: &str, guarded: &str, path: &str, token: &str) -> Result<()> {
    let client = tests::http::client()?;
    let mut bodies = Vec::new();
    for base in [bare, guarded] {
        let ask = async || {
            let answer = client
                .get(format!("{base}{path}"))
                .bearer_auth(token)
                .send()
                .await?;
            let mut body: serde_json::Value = answer.error_for_status()?.json().await?;
            if let Some(next) = body.get_mut("next_page") {
                // Bound to the organization that asks, which a bare handler doesn't know.
                *next = serde_json::Value::Null;
            }
            anyhow::Ok(body)
        };
        bodies.push(tests::wait::until(std::time::Duration::from_secs(10), "it answers", ask).await?);
    }
    ensure!(
        bodies[0] == bodies[1],
        "the answers differ:\n{}\n{}",
        bodies[0],
        bodies[1]
    );
    Ok(())
}
