//! A tenants' server, on a real Postgres: who gets in where, and what is left when a job dies half-way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use odoo::names::{DatabaseName, PoolId};
use odoo::password::{GeneratedPassword, PasswordHash};
use odoo::server::{
    AdminCredentials, CloneOutcome, Identity, IdentityError, Problem, Requirements, RoleGroup, RoleSpec,
    ServerError,
};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Executor as _};
use support::{Bench, connect_as, session, superuser};
use uuid::Uuid;

fn identity(login: &str) -> Identity {
    Identity {
        base_url: "http://acme.localhost:8080".to_owned(),
        admin: AdminCredentials {
            login: login.to_owned(),
            email: "ada@example.com".to_owned(),
            password: PasswordHash::of_generated(&GeneratedPassword::generate()),
        },
        language: None,
        country: None,
        company_name: "Acme".to_owned(),
    }
}

/// The code with which the server refused, or what happened instead.
fn refusal<T>(result: Result<T, sqlx::Error>) -> String {
    match result {
        Ok(_) => "let in".to_owned(),
        Err(error) => error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .map_or_else(|| error.to_string(), std::borrow::Cow::into_owned),
    }
}

#[tokio::test]
async fn a_role_gets_into_its_own_database_and_nowhere_else() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let (ours, theirs) = (
        bench.tenant(&mut session, &template).await,
        bench.tenant(&mut session, &template).await,
    );
    let pool = PoolId::new(Uuid::now_v7());
    let bus = pool.bus_database();
    session
        .ensure_bus_database(pool, &bench.keys.password_for(&bus))
        .await
        .unwrap();

    let password = bench.keys.password_for(&ours);
    connect_as(&ours, &password, ours.as_str()).await.unwrap();
    for database in [
        theirs.as_str(),
        "postgres",
        "template1",
        "template0",
        bus.as_str(),
        template.database.as_str(),
    ] {
        let refused = refusal(connect_as(&ours, &password, database).await);
        // By pg_hba.conf, or by the database's own list.
        assert!(
            ["28000", "42501", "55000"].contains(&refused.as_str()),
            "{database}: {refused}"
        );
    }
    // Not only by pg_hba.conf: the databases' own lists say the same.
    let mut root = superuser().await;
    let allowed: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database WHERE has_database_privilege($1, oid, 'CONNECT, TEMPORARY, CREATE')
         AND datallowconn AND datname NOT LIKE '%open_to_all%'",
    )
    .bind(ours.as_str())
    .fetch_all(&mut root)
    .await
    .unwrap();
    assert_eq!(allowed, [ours.to_string()]);
    // Another's password opens nothing, nor does the pool's role open a tenant.
    assert_eq!(
        refusal(connect_as(&ours, &bench.keys.password_for(&theirs), ours.as_str()).await),
        "28P01"
    );
    let bus_password = bench.keys.password_for(&bus);
    connect_as(&bus, &bus_password, bus.as_str()).await.unwrap();
    assert_ne!(
        refusal(connect_as(&bus, &bus_password, ours.as_str()).await),
        "let in"
    );

    bench.forget(&[&ours, &theirs, &bus, &template.database]).await;
}

#[tokio::test]
async fn a_tenant_owns_what_is_in_its_database_but_not_the_database() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = bench.tenant(&mut session, &template).await;
    let mut tenant = connect_as(&name, &bench.keys.password_for(&name), name.as_str())
        .await
        .unwrap();

    tenant
        .execute("ALTER TABLE res_partner ADD COLUMN ours int; CREATE TABLE more (id int)")
        .await
        .unwrap();
    tenant
        .execute("CREATE TEMPORARY TABLE scratch (id int)")
        .await
        .unwrap();
    for (statement, code) in [
        (format!("ALTER DATABASE {name} RENAME TO theirs"), "42501"),
        (format!("DROP DATABASE {name}"), "42501"),
        (format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"), "42501"),
        (
            format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC"),
            "granted nothing",
        ),
        ("CREATE DATABASE another".to_owned(), "42501"),
        ("CREATE ROLE another".to_owned(), "42501"),
        (format!("ALTER ROLE {name} SUPERUSER"), "42501"),
        (format!("ALTER ROLE {name} CONNECTION LIMIT 1000"), "42501"),
        ("SET ROLE platform_admin".to_owned(), "42501"),
        ("SET ROLE tenants".to_owned(), "may"),
        (format!("SET ROLE {}", template.database), "42501"),
        ("COPY (SELECT 1) TO PROGRAM 'true'".to_owned(), "42501"),
        ("SELECT pg_read_file('/etc/passwd')".to_owned(), "42501"),
        (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user".to_owned(),
            "42501",
        ),
    ] {
        let result = tenant.execute(AssertSqlSafe(statement.clone())).await;
        match code {
            // A warning, not an error: nothing was granted.
            "granted nothing" => {}
            // The group has no rights and owns nothing.
            "may" => drop(tenant.execute("RESET ROLE").await.unwrap()),
            code => assert_eq!(refusal(result), code, "{statement}"),
        }
    }
    let mut root = superuser().await;
    let public: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_database, aclexplode(datacl) a WHERE datname = $1 AND a.grantee = 0",
    )
    .bind(name.as_str())
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert_eq!(public, 0);
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn a_clone_is_made_once_however_often_it_is_asked_for() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = DatabaseName::tenant(Uuid::now_v7());
    bench.make_role(&mut session, &name, true).await;
    let began = Instant::now();
    assert_eq!(
        session.clone_database(&template.database, &name).await.unwrap(),
        CloneOutcome::Made
    );
    eprintln!("clone {:?}", began.elapsed());
    let mut tenant = connect_as(&name, &bench.keys.password_for(&name), name.as_str())
        .await
        .unwrap();
    tenant.execute("CREATE TABLE kept (id int)").await.unwrap();
    assert_eq!(
        session.clone_database(&template.database, &name).await.unwrap(),
        CloneOutcome::AlreadyThere
    );
    tenant.execute("INSERT INTO kept VALUES (1)").await.unwrap();

    let other = bench.template().await;
    let refused = session.clone_database(&other.database, &name).await.unwrap_err();
    assert!(matches!(refused, ServerError::OtherTemplate { .. }), "{refused}");
    tenant.execute("INSERT INTO kept VALUES (2)").await.unwrap();

    let unmade = DatabaseName::template("never made");
    let missing = session
        .clone_database(&unmade, &DatabaseName::tenant(Uuid::now_v7()))
        .await
        .unwrap_err();
    assert!(
        matches!(missing, ServerError::TemplateNotReady { .. }),
        "{missing}"
    );
    bench.forget(&[&name, &template.database, &other.database]).await;
}

#[tokio::test]
async fn a_clone_that_a_killed_job_left_half_way_is_made_anew() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let name = DatabaseName::tenant(Uuid::now_v7());
    let job = Uuid::now_v7();
    // Wherever it is cut off: the connection goes away at another moment each time.
    for (epoch, after) in (1..).zip([0, 3, 10, 20, 40, 60, 80, 100, 130, 160]) {
        let mut doomed = bench.server.session(&format!("job:{job}:{epoch}")).await.unwrap();
        doomed.end_lower_epochs().await.unwrap();
        doomed.lock(name.as_str()).await.unwrap();
        bench.make_role(&mut doomed, &name, true).await;
        let cut = tokio::time::timeout(
            Duration::from_millis(after),
            doomed.clone_database(&template.database, &name),
        )
        .await;
        eprintln!(
            "after {after} ms: {}",
            if cut.is_ok() { "finished" } else { "cut off" }
        );
    }
    let mut session = bench.server.session(&format!("job:{job}:99")).await.unwrap();
    session.end_lower_epochs().await.unwrap();
    session.lock(name.as_str()).await.unwrap();
    session.clone_database(&template.database, &name).await.unwrap();
    let mut tenant = connect_as(&name, &bench.keys.password_for(&name), name.as_str())
        .await
        .unwrap();
    let foreign: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> current_user::regrole",
    )
    .fetch_one(&mut tenant)
    .await
    .unwrap();
    assert_eq!(foreign, 0);
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn dropping_twice_and_dropping_what_is_in_use_leaves_nothing() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = bench.tenant(&mut session, &template).await;
    let mut tenant = connect_as(&name, &bench.keys.password_for(&name), name.as_str())
        .await
        .unwrap();
    session.drop_database(&name).await.unwrap();
    session.drop_database(&name).await.unwrap();
    assert!(tenant.execute("SELECT 1").await.is_err());
    session.drop_role(&name).await.unwrap();
    session.drop_role(&name).await.unwrap();
    assert_eq!(session.roles(Some(&name)).await.unwrap(), []);
    assert_eq!(session.databases(Some(&name)).await.unwrap(), []);
    bench.forget(&[&template.database]).await;
}

#[tokio::test]
async fn what_another_owns_under_our_names_is_left_alone() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = DatabaseName::tenant(Uuid::now_v7());
    let mut root = superuser().await;
    root.execute(AssertSqlSafe(format!(
        "CREATE DATABASE {name} ALLOW_CONNECTIONS false"
    )))
    .await
    .unwrap();
    assert_eq!(session.databases(Some(&name)).await.unwrap(), []);
    for result in [
        session.drop_database(&name).await,
        session.clone_database(&template.database, &name).await.map(drop),
    ] {
        assert!(matches!(result.unwrap_err(), ServerError::ForeignDatabase { .. }));
    }
    root.execute(AssertSqlSafe(format!("DROP DATABASE {name}; ")))
        .await
        .unwrap();

    root.execute(AssertSqlSafe(format!("CREATE ROLE {name} SUPERUSER")))
        .await
        .unwrap();
    let password = bench.keys.password_for(&name);
    let spec = RoleSpec {
        name: &name,
        group: RoleGroup::Tenants,
        password: &password,
        connection_limit: 8,
        login: true,
    };
    assert!(matches!(
        session.ensure_role(&spec).await.unwrap_err(),
        ServerError::ForeignRole { .. }
    ));
    assert!(matches!(
        session.drop_role(&name).await.unwrap_err(),
        ServerError::ForeignRole { .. }
    ));
    root.execute(AssertSqlSafe(format!("DROP ROLE {name}")))
        .await
        .unwrap();
    bench.forget(&[&template.database]).await;
}

#[tokio::test]
async fn what_a_tenant_changed_of_its_role_is_taken_back() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = bench.tenant(&mut session, &template).await;
    let password = bench.keys.password_for(&name);
    let as_made = session.roles(Some(&name)).await.unwrap();
    assert_eq!(as_made[0].groups, [RoleGroup::Tenants]);
    assert!(bench.server.admits("test", &name, &password).await.unwrap());
    let mut tenant = connect_as(&name, &password, name.as_str()).await.unwrap();
    tenant
        .execute(AssertSqlSafe(format!(
            "ALTER ROLE {name} PASSWORD 'mine'; ALTER ROLE {name} SET search_path = nowhere;
             ALTER ROLE {name} IN DATABASE {name} SET statement_timeout = 1"
        )))
        .await
        .unwrap();
    assert_eq!(
        refusal(connect_as(&name, &password, name.as_str()).await),
        "28P01"
    );
    assert!(session.roles(Some(&name)).await.unwrap()[0].has_settings);
    assert!(!bench.server.admits("test", &name, &password).await.unwrap());
    bench.make_role(&mut session, &name, true).await;
    assert_eq!(session.roles(Some(&name)).await.unwrap(), as_made);
    // Whether the password is right can't be told of a role that may not log in.
    session.set_login(&name, false).await.unwrap();
    bench.server.admits("test", &name, &password).await.unwrap_err();
    session.set_login(&name, true).await.unwrap();
    let mut tenant = connect_as(&name, &password, name.as_str()).await.unwrap();
    tenant
        .execute("SELECT pg_sleep(0.1), * FROM res_users")
        .await
        .unwrap();
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn a_later_epoch_ends_the_earlier_ones_and_takes_their_lock() {
    let server = support::server();
    let job = Uuid::now_v7();
    let target = DatabaseName::tenant(job);
    let mut paused = server.session(&format!("job:{job}:1")).await.unwrap();
    paused.lock(target.as_str()).await.unwrap();
    let mut other_job = server
        .session(&format!("job:{}:1", Uuid::now_v7()))
        .await
        .unwrap();

    let mut thief = server.session(&format!("job:{job}:2")).await.unwrap();
    assert_eq!(thief.end_lower_epochs().await.unwrap(), 1);
    thief.lock(target.as_str()).await.unwrap();
    assert_eq!(thief.end_lower_epochs().await.unwrap(), 0);
    // The paused worker wakes: it can no longer do anything on this server.
    assert!(paused.drop_database(&target).await.is_err());
    other_job.databases(None).await.unwrap();

    let began = Instant::now();
    let locked = other_job
        .lock_within(target.as_str(), Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(locked, ServerError::Locked { .. }) && locked.is_transient());
    assert!(began.elapsed() >= Duration::from_millis(300));
    thief.unlock(target.as_str()).await.unwrap();
    other_job.lock(target.as_str()).await.unwrap();

    let mut nameless = server.session("somebody").await.unwrap();
    assert!(matches!(
        nameless.end_lower_epochs().await.unwrap_err(),
        ServerError::NoEpoch { .. }
    ));
}

#[tokio::test]
async fn a_clone_gets_an_identity_of_its_own() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = DatabaseName::tenant(Uuid::now_v7());
    bench.make_role(&mut session, &name, false).await;
    session.clone_database(&template.database, &name).await.unwrap();

    let mut wanted = identity("ada");
    wanted.language = Some("fr_FR".to_owned());
    let refused = session.write_identity(&name, &wanted).await.unwrap_err();
    assert!(
        matches!(refused, IdentityError::LanguageNotInstalled(ref code) if code == "fr_FR"),
        "{refused}"
    );
    wanted.language = Some("en_US".to_owned());
    wanted.country = Some("XX".to_owned());
    assert!(matches!(
        session.write_identity(&name, &wanted).await.unwrap_err(),
        IdentityError::UnknownCountry(_)
    ));
    wanted.country = Some("ch".to_owned());
    session.write_identity(&name, &wanted).await.unwrap();
    session.write_identity(&name, &wanted).await.unwrap();

    session.set_login(&name, true).await.unwrap();
    assert!(matches!(
        session.write_identity(&name, &wanted).await.unwrap_err(),
        IdentityError::InUse(_)
    ));

    let mut tenant = connect_as(&name, &bench.keys.password_for(&name), name.as_str())
        .await
        .unwrap();
    let parameters: Vec<(String, String)> =
        sqlx::query_as("SELECT key, value FROM ir_config_parameter ORDER BY key")
            .fetch_all(&mut tenant)
            .await
            .unwrap();
    let value = |key: &str| parameters.iter().find(|(name, _)| name == key).unwrap().1.clone();
    assert_ne!(value("database.uuid"), "the template's");
    assert!(
        Uuid::parse_str(&value("database.uuid")).is_ok()
            && Uuid::parse_str(&value("database.secret")).is_ok()
    );
    assert_eq!(value("web.base.url"), "http://acme.localhost:8080");
    let row: (String, String, String, String, bool, String) = sqlx::query_as(
        "SELECT u.login, p.email, p.lang, c.name, k.active, cp.complete_name
         FROM res_users u JOIN res_partner p ON p.id = u.partner_id, res_company c
         JOIN res_currency k ON k.id = c.currency_id JOIN res_partner cp ON cp.id = c.partner_id
         WHERE u.id = 2 AND k.name = 'CHF'",
    )
    .fetch_one(&mut tenant)
    .await
    .unwrap();
    assert_eq!(
        row,
        (
            "ada".into(),
            "ada@example.com".into(),
            "en_US".into(),
            "Acme".into(),
            true,
            "Acme".into()
        )
    );
    let spread: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT nextcall) FROM ir_cron WHERE nextcall BETWEEN (now() AT TIME ZONE 'UTC') - interval '1 min'
         AND (now() AT TIME ZONE 'UTC') + interval '1 hour'",
    )
    .fetch_one(&mut tenant)
    .await
    .unwrap();
    assert!(spread > 10, "{spread} different times of 20");
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn a_trigger_of_the_tenant_gets_no_rights_when_its_password_is_set() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = bench.tenant(&mut session, &template).await;
    // The keys were rotated since the role was made.
    let keys = bench.keys.clone().with_newest(odoo::keys::PoolKey::generate());
    let mut tenant = connect_as(&name, &bench.keys.password_for(&name), name.as_str())
        .await
        .unwrap();
    tenant
        .execute(
            "CREATE TABLE seen (who text);
             CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.seen VALUES (session_user || ' ' || current_user); RETURN NEW; END $$;
             CREATE TRIGGER spy BEFORE UPDATE ON res_users FOR EACH ROW EXECUTE FUNCTION spy()",
        )
        .await
        .unwrap();
    let password = PasswordHash::of_generated(&GeneratedPassword::generate());
    let login = bench
        .server
        .set_admin_password("test", &name, &keys, &password)
        .await
        .unwrap();
    assert_eq!(login, "admin");
    let seen: Vec<String> = sqlx::query_scalar("SELECT who FROM seen")
        .fetch_all(&mut tenant)
        .await
        .unwrap();
    assert_eq!(seen, [format!("{name} {name}")]);
    let signals: i64 = sqlx::query_scalar("SELECT count(*) FROM orm_signaling_default")
        .fetch_one(&mut tenant)
        .await
        .unwrap();
    assert_eq!(signals, 1);

    let strange = odoo::keys::PoolKeyRing::new(odoo::keys::PoolKey::generate());
    let refused = bench
        .server
        .set_admin_password("test", &name, &strange, &password)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, IdentityError::Server(ServerError::NoKeyFits { .. })),
        "{refused}"
    );
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn a_suspended_tenant_is_out_and_comes_back() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = bench.tenant(&mut session, &template).await;
    let password = bench.keys.password_for(&name);
    let mut tenant = connect_as(&name, &password, name.as_str()).await.unwrap();
    session.set_login(&name, false).await.unwrap();
    assert_eq!(session.terminate_backends(&name).await.unwrap(), 1);
    assert!(tenant.execute("SELECT 1").await.is_err());
    assert_eq!(
        refusal(connect_as(&name, &password, name.as_str()).await),
        "28000"
    );
    session.set_login(&name, true).await.unwrap();
    connect_as(&name, &password, name.as_str()).await.unwrap();
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn a_role_has_no_more_connections_than_its_limit() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let mut session = session(&bench.server).await;
    let name = bench.tenant(&mut session, &template).await;
    let password = bench.keys.password_for(&name);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(connect_as(&name, &password, name.as_str()).await.unwrap());
    }
    assert_eq!(
        refusal(connect_as(&name, &password, name.as_str()).await),
        "53300"
    );
    drop(open);
    bench.forget(&[&name, &template.database]).await;
}

#[tokio::test]
async fn an_unfit_server_is_told_what_it_lacks() {
    let server = support::server();
    let facts = server
        .prepare(
            "test",
            Requirements {
                pool_connections: 100,
            },
        )
        .await
        .unwrap();
    assert!(facts.version >= 150_000);
    let ServerError::NotPrepared { problems } = server
        .prepare(
            "test",
            Requirements {
                pool_connections: 100_000,
            },
        )
        .await
        .unwrap_err()
    else {
        panic!("a server of ours does not hold 100,000 connections")
    };
    assert!(
        matches!(
            problems[..],
            [Problem::Setting {
                name: "max_connections",
                least: 100_030,
                ..
            }]
        ),
        "{problems:?}"
    );

    let mut root = superuser().await;
    let name = format!("open_to_all_{}", Uuid::now_v7().simple());
    root.execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    let refused = server.prepare("test", Requirements::default()).await;
    let Err(ServerError::NotPrepared { problems }) = &refused else {
        panic!("{refused:?}")
    };
    let [Problem::OpenDatabase { sql }] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert!(refused.as_ref().unwrap_err().to_string().contains(sql));
    // The remedy that it names is the remedy.
    root.execute(AssertSqlSafe(sql.clone())).await.unwrap();
    server.prepare("test", Requirements::default()).await.unwrap();
    root.execute(AssertSqlSafe(format!("DROP DATABASE {name}")))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_address_of_a_server_is_never_shown() {
    let url = "postgres://admin:hunter2@[broken/postgres".into();
    let error = odoo::server::Server::new(&url, support::pool_host()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(
        !format!("{:?}", support::server()).contains(
            support::admin_url()
                .expose_secret()
                .split([':', '@'])
                .nth(2)
                .unwrap()
        )
    );
}

#[tokio::test]
async fn four_clones_at_once_are_four_clones() {
    let bench = Bench::new().await;
    let template = bench.template().await;
    let began = Instant::now();
    let clones = (0..8).map(|_| async {
        let mut session = session(&bench.server).await;
        bench.tenant(&mut session, &template).await
    });
    let names = futures::future::join_all(clones).await;
    eprintln!("8 clones {:?}", began.elapsed());
    for name in &names {
        connect_as(name, &bench.keys.password_for(name), name.as_str())
            .await
            .unwrap();
    }
    let names: Vec<&DatabaseName> = names.iter().chain([&template.database]).collect();
    bench.forget(&names).await;
}
