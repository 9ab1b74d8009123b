//! Things outside that are not as the platform's tables say: what is safe to repair is repaired, the rest is listed, and
//! what belongs to others is left alone.
//!
//! These tests change what they share, so that one runs at a time.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chown};
use serde_json::Value;
use tests::api::Api;
use tests::bait;
use tests::containers::Containers;
use tests::ids::id_of;
use tests::people::People;
use tests::place::Place;
use tests::rows::{OperationRow, TenantRow};
use tests::second_api;
use tests::services;
use tests::sql;
use tests::stage::Stage;
use tests::tenant::{Tenant, database_of, new_slug};
use tests::wait;
use tokio::sync::Mutex;
use uuid::Uuid;

static ALONE: Mutex<()> = Mutex::const_new(());

/// Asks for a comparison: its operation, and whether it was asked for now.
async fn nudge() -> Result<(String, bool)> {
    let said = second_api::run(&["reconcile"], &[]).await?;
    let (operation, rest) = said.split_once(' ').context("an operation")?;
    Ok((operation.to_owned(), rest.starts_with("compares")))
}

/// Compares, and waits for the end. One that is under way may have looked already: it is waited for first.
async fn reconcile(api: &Api) -> Result<Value> {
    loop {
        let (operation, asked_now) = nudge().await?;
        let ended = api.succeeded(&operation).await?;
        if asked_now {
            return Ok(ended);
        }
    }
}

/// All that is listed, by kind and subject.
type Listed = BTreeMap<(String, String), Value>;

async fn listed(api: &Api) -> Result<Listed> {
    let mut all = Listed::new();
    let mut token = String::new();
    loop {
        let page = api.get(&format!("/v1/drift?limit=7{token}")).await?.expect(200)?;
        for item in page["items"].as_array().context("items")? {
            let text = |field: &str| {
                let value = item[field].as_str();
                value
                    .map(str::to_owned)
                    .with_context(|| format!("{field}: {item}"))
            };
            let twice = all.insert((text("kind")?, text("subject")?), item.clone());
            ensure!(twice.is_none(), "listed twice: {item}");
        }
        match page["next_page"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return Ok(all),
        }
    }
}

/// How much the worker has repaired since it started.
async fn repairs() -> Result<f64> {
    let page = format!("http://{}/metrics", Place::get().setting("METRICS_LISTEN"));
    second_api::metric(&page, "platform_drift_repaired_total").await
}

fn has(listed: &Listed, kind: &str, subject: &str) -> bool {
    listed.contains_key(&(kind.to_owned(), subject.to_owned()))
}

/// Everything that was listed is taken for listed long ago.
async fn age() -> Result<()> {
    let mut control = sql::control().await?;
    sql::execute(
        &mut control,
        "UPDATE drift SET first_seen_at = first_seen_at - interval '11 minutes'",
    )
    .await?;
    Ok(())
}

/// A name that the platform could have given a tenant's database.
fn new_name() -> String {
    database_of(&id_of("ten", Uuid::now_v7()))
}

/// What the server says of a role: login, limit, groups, settings.
async fn role(name: &str) -> Result<Option<String>> {
    let mut server = sql::tenants().await?;
    let question = format!(
        "SELECT concat_ws(' ', r.rolcanlogin, r.rolconnlimit, \
                (SELECT string_agg(m.roleid::regrole::text, ',') FROM pg_auth_members m WHERE m.member = r.oid), \
                (SELECT string_agg(s.setconfig::text, ',') FROM pg_db_role_setting s WHERE s.setrole = r.oid)) \
           FROM pg_roles r WHERE r.rolname = '{name}'"
    );
    sql::text(&mut server, &question).await
}

async fn has_database(name: &str) -> Result<bool> {
    let mut server = sql::tenants().await?;
    let found = sql::text(
        &mut server,
        &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"),
    )
    .await?;
    Ok(found.is_some())
}

/// Runs statements as the server's superuser, who may do what the platform would not.
async fn as_superuser(statements: &[String]) -> Result<()> {
    let mut server = sql::tenants_superuser().await?;
    for statement in statements {
        sql::execute(&mut server, statement).await?;
    }
    Ok(())
}

/// Makes a folder with a file in it that belongs to the same user as the folder that it lies in.
fn make_tree(path: &Path) -> Result<()> {
    std::fs::create_dir(path)?;
    std::fs::write(path.join("one"), "one")?;
    let parent = std::fs::metadata(path.parent().context("a parent")?)?;
    let owner = (
        Some(Uid::from_raw(parent.uid())),
        Some(Gid::from_raw(parent.gid())),
    );
    for path in [path.to_owned(), path.join("one")] {
        chown(&path, owner.0, owner.1)?;
    }
    Ok(())
}

/// Lets a host lead to where a tenant's leads, but for the end of it.
fn make_route(like: &Tenant, host: &str, database: &str, state: &str) -> Result<PathBuf> {
    let target = std::fs::read_link(Place::get().route(&like.host))?;
    let target = target.with_file_name(format!("{database}.{state}"));
    let link = Place::get().route(host);
    if link.is_symlink() {
        std::fs::remove_file(&link)?;
    }
    std::fs::write(link.parent().context("a folder")?.join(&target), "")?;
    symlink(&target, &link)?;
    Ok(link)
}

#[tokio::test]
async fn what_is_missing_or_changed_is_mended_and_the_tenant_serves_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let neighbour = Tenant::create(&api).await?;
    let as_made = role(&tenant.database).await?;

    std::fs::remove_file(Place::get().route(&tenant.host))?;
    assert_eq!(tenant.visit("/web/login").await?.status, 404);
    reconcile(&api).await?;
    tenant.visit("/web/login").await?.expect(200)?;

    make_route(&tenant, &tenant.host, &tenant.database, "suspended")?;
    assert_eq!(tenant.visit("/web/login").await?.status, 402);
    reconcile(&api).await?;
    tenant.visit("/web/login").await?.expect(200)?;

    // The pool keeps open sessions: they end too, so that it has to come in again.
    let name = &tenant.database;
    let end = format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = '{name}'"
    );
    as_superuser(&[format!("ALTER ROLE {name} PASSWORD 'changed'"), end.clone()]).await?;
    assert_eq!(tenant.visit("/web/login").await?.status, 503);
    neighbour.visit("/web/login").await?.expect(200)?;
    reconcile(&api).await?;
    tenant.serves(Duration::from_secs(60)).await?;

    as_superuser(&[
        format!("ALTER ROLE {name} NOLOGIN CONNECTION LIMIT 1"),
        format!("ALTER ROLE {name} SET search_path TO nowhere"),
        format!("REVOKE tenants FROM {name}"),
        end,
    ])
    .await?;
    assert_ne!(role(name).await?, as_made);
    reconcile(&api).await?;
    assert_eq!(role(name).await?, as_made);
    tenant.serves(Duration::from_secs(60)).await?;

    // Nothing of it is left to be listed.
    let listed = listed(&api).await?;
    let left: Vec<_> = listed
        .iter()
        .filter(|(_, item)| item["target"]["id"] == tenant.id.as_str())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    tenant.delete().await?;
    neighbour.delete().await
}

#[tokio::test]
async fn what_a_pool_lost_is_made_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let bus = containers.bus_database().await?;
    let as_made = role(&bus).await?;
    let cron = containers.of_role("cron").await?.id.context("an id")?;
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    containers.docker.remove_container(&cron, Some(options)).await?;
    as_superuser(&[
        format!("DROP OWNED BY {bus}"),
        format!("DROP DATABASE {bus} WITH (FORCE)"),
        format!("DROP ROLE {bus}"),
    ])
    .await?;

    reconcile(&api).await?;
    let made = containers.of_role("cron").await?;
    assert!(
        made.id.as_deref() != Some(cron.as_str()) && made.state.and_then(|state| state.running) == Some(true)
    );
    assert_eq!(role(&bus).await?, as_made);
    let password = containers.password_for(&bus).await?;
    sql::open(sql::through_socket(&bus, &password, &bus)?)
        .await
        .context("the bus for its own role")?;

    // A role that was made anew has no right at a database that stayed.
    as_superuser(&[
        format!("DROP OWNED BY {bus}"),
        format!("ALTER ROLE {bus} RENAME TO e2e_renamed"),
    ])
    .await?;
    reconcile(&api).await?;
    sql::open(sql::through_socket(&bus, &password, &bus)?)
        .await
        .context("the bus for its new role")?;
    as_superuser(&["DROP ROLE e2e_renamed".to_owned()]).await?;
    let listed = listed(&api).await?;
    assert!(
        listed.keys().all(|(_, subject)| !subject.contains(&bus)),
        "{listed:?}"
    );
    // What notifies does so over the bus.
    let tenant = Tenant::create(&api).await?;
    tenant.signed_in().await?;
    tenant.delete().await
}

/// One of each kind that may not be repaired, or not at once.
struct Strays {
    role: String,
    unfinished: String,
    finished: String,
    files: String,
    staged: PathBuf,
    route: PathBuf,
    containers: Vec<String>,
    roleless: Tenant,
    fileless: Tenant,
    databaseless: TenantRow,
    people: People,
}

impl Strays {
    async fn make(api: &Api, containers: &Containers) -> Result<Self> {
        let place = Place::get();
        let (role, unfinished, finished, files) = (new_name(), new_name(), new_name(), new_name());
        let staged = place
            .filestore("")
            .join("../staging")
            .join(format!("{files}.0-1"));
        let (roleless, fileless) = (Tenant::create(api).await?, Tenant::create(api).await?);
        let mut people = People::new().await?;
        let organization = people.organization().await?;
        let databaseless = TenantRow::write(&mut people.control, &organization).await?;
        let host = place.host_of(&new_slug());
        let mut strays = Self {
            route: make_route(&roleless, &host, &new_name(), "active")?,
            role,
            unfinished,
            finished,
            files,
            staged,
            containers: Vec::new(),
            roleless,
            fileless,
            databaseless,
            people,
        };
        strays.fill(containers).await?;
        Ok(strays)
    }

    async fn fill(&mut self, containers: &Containers) -> Result<()> {
        let Self {
            role,
            unfinished,
            finished,
            ..
        } = &*self;
        as_superuser(&[
            format!("CREATE ROLE {role} NOLOGIN IN ROLE tenants"),
            format!("CREATE ROLE {unfinished} NOLOGIN IN ROLE tenants"),
            format!("CREATE DATABASE {unfinished} OWNER platform_admin"),
            format!("CREATE DATABASE {finished} OWNER platform_admin"),
            format!("COMMENT ON DATABASE {finished} IS 'done'"),
            format!("ALTER ROLE {} RENAME TO e2e_roleless", self.roleless.database),
        ])
        .await?;
        for name in [&self.files, unfinished] {
            make_tree(&Place::get().filestore(name))?;
        }
        make_tree(&self.staged)?;
        let files = Place::get().filestore(&self.fileless.database);
        std::fs::rename(&files, files.with_file_name("e2e-fileless"))?;
        // One that names no pool, and one of a pool that is in no table.
        for pool in [None, Some(id_of("pool", Uuid::now_v7()))] {
            let name = format!("e2e-stray-{}", Uuid::new_v4().simple());
            let mut labels = HashMap::from([
                (
                    "platform.instance".to_owned(),
                    Place::get().setting("PLATFORM_INSTANCE").to_owned(),
                ),
                ("platform.role".to_owned(), "stray".to_owned()),
            ]);
            labels.extend(pool.map(|pool| ("platform.pool".to_owned(), pool)));
            let body = ContainerCreateBody {
                image: Some(Place::get().odoo_image.clone()),
                labels: Some(labels),
                ..Default::default()
            };
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            containers.docker.create_container(Some(options), body).await?;
            self.containers.push(name);
        }
        Ok(())
    }

    /// What is listed of these at first: kind, subject, target.
    fn expected(&self) -> Vec<(&'static str, &str, Option<&str>)> {
        let missing = database_name(&self.databaseless);
        let mut expected = vec![
            ("stray_role", self.role.as_str(), None),
            ("unfinished_database", &self.unfinished, None),
            ("stray_database", &self.finished, None),
            ("stray_filestore", &self.files, None),
            (
                "missing_role",
                &self.roleless.database,
                Some(self.roleless.id.as_str()),
            ),
            (
                "missing_filestore",
                &self.fileless.database,
                Some(&self.fileless.id),
            ),
            ("missing_database", missing, Some(&self.databaseless.id)),
            ("missing_filestore", missing, Some(&self.databaseless.id)),
        ];
        let containers = self.containers.iter();
        expected.extend(containers.map(|name| ("stray_container", name.as_str(), None)));
        expected
    }

    /// What the operator does in the end.
    async fn remove(self, containers: &Containers) -> Result<()> {
        as_superuser(&[
            format!("DROP DATABASE IF EXISTS {}", self.unfinished),
            format!("DROP DATABASE IF EXISTS {}", self.finished),
            format!("DROP ROLE IF EXISTS {}", self.unfinished),
            format!("DROP ROLE IF EXISTS {}", self.role),
            format!("ALTER ROLE e2e_roleless RENAME TO {}", self.roleless.database),
        ])
        .await?;
        for name in [&self.files, &self.unfinished] {
            let tree = Place::get().filestore(name);
            if tree.exists() {
                std::fs::remove_dir_all(tree)?;
            }
        }
        let files = Place::get().filestore(&self.fileless.database);
        std::fs::rename(files.with_file_name("e2e-fileless"), files)?;
        for name in &self.containers {
            let options = RemoveContainerOptionsBuilder::default().force(true).build();
            containers.docker.remove_container(name, Some(options)).await?;
        }
        drop(self.people);
        self.roleless.serves(Duration::from_secs(60)).await?;
        self.roleless.delete().await?;
        self.fileless.delete().await
    }
}

/// The database that a row's tenant would have.
fn database_name(tenant: &TenantRow) -> &'static str {
    // Lives as long as the test program.
    Box::leak(database_of(&tenant.id).into_boxed_str())
}

#[tokio::test]
async fn strays_are_listed_and_only_what_nobody_can_miss_is_removed() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let strays = Strays::make(&api, &containers).await?;
    let subjects: Vec<(String, String)> = strays
        .expected()
        .into_iter()
        .map(|(kind, subject, _)| (kind.to_owned(), subject.to_owned()))
        .collect();
    let outcome = seen_and_removed(&api, &containers, &strays).await;
    strays.remove(&containers).await?;
    outcome?;
    // What is not there any more is not listed any more.
    reconcile(&api).await?;
    let listed = listed(&api).await?;
    for subject in subjects {
        ensure!(!listed.contains_key(&subject), "{subject:?} is still listed");
    }
    Ok(())
}

async fn seen_and_removed(api: &Api, containers: &Containers, strays: &Strays) -> Result<()> {
    reconcile(api).await?;
    let first = listed(api).await?;
    for (kind, subject, target) in strays.expected() {
        let item = first
            .get(&(kind.to_owned(), subject.to_owned()))
            .with_context(|| format!("{kind} {subject} is not listed: {first:#?}"))?;
        ensure!(item["target"]["id"].as_str() == target, "{item}");
        let of_kind = api.get(&format!("/v1/drift?kind={kind}&limit=200")).await?;
        let of_kind = of_kind.expect(200)?;
        let items = of_kind["items"].as_array().context("items")?;
        ensure!(
            items.contains(item) && items.iter().all(|item| item["kind"] == kind),
            "{of_kind}"
        );
    }
    // An address that leads to nobody is closed at once, and what was staged by nobody is gone.
    ensure!(!strays.route.is_symlink(), "the stray route is still there");
    ensure!(!strays.staged.exists(), "the staged folder is still there");
    tests::wait::until(Duration::from_secs(40), "the gauge tells of it", async || {
        let page = Place::get().api_metrics();
        let told = second_api::metric(&page, "platform_drift{kind=\"stray_container\"").await?;
        ensure!(told >= 2.0, "it is {told}");
        Ok(())
    })
    .await?;

    // Again: nothing more to do, and the same list.
    let repairs_before = repairs().await?;
    reconcile(api).await?;
    ensure!(repairs().await? == repairs_before, "something was repaired again");
    let second = listed(api).await?;
    ensure!(first.keys().eq(second.keys()), "{first:#?}\n{second:#?}");
    for (key, item) in &second {
        let before = &first[key];
        ensure!(
            item["id"] == before["id"] && item["first_seen_at"] == before["first_seen_at"],
            "{item}"
        );
        ensure!(item["last_seen_at"] != before["last_seen_at"], "{item}");
    }

    // What was never finished goes once it has been listed for a while; what may be somebody's accounts never does.
    age().await?;
    reconcile(api).await?;
    let last = listed(api).await?;
    for (kind, subject, _) in strays.expected() {
        let goes = matches!(kind, "stray_role" | "unfinished_database");
        ensure!(has(&last, kind, subject) != goes, "{kind} {subject}");
    }
    ensure!(role(&strays.role).await?.is_none() && role(&strays.unfinished).await?.is_none());
    ensure!(!has_database(&strays.unfinished).await? && has_database(&strays.finished).await?);
    ensure!(!Place::get().filestore(&strays.unfinished).exists());
    ensure!(Place::get().filestore(&strays.files).join("one").exists());
    for name in &strays.containers {
        let found = containers.ours().await?;
        let names = found.into_iter().filter_map(|container| container.names);
        ensure!(
            names.flatten().any(|found| found.ends_with(name.as_str())),
            "{name}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_another_owns_is_neither_touched_nor_listed() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let foreign = bait::Foreign::make(&containers).await?;
    let hosts = Place::get().route("x").with_file_name("");
    let (file, link) = (
        hosts.join("e2e-theirs.example.com"),
        hosts.join("e2e-elsewhere.example.com"),
    );
    let outcome = async {
        std::fs::write(&file, "theirs")?;
        symlink("/nowhere", &link)?;
        let before = foreign.look(&containers).await?;
        reconcile(&api).await?;
        age().await?;
        reconcile(&api).await?;
        let after = foreign.look(&containers).await?;
        ensure!(before == after, "before {before:#?}\nafter {after:#?}");
        ensure!(std::fs::read_to_string(&file)? == "theirs" && link.is_symlink());
        let listed = listed(&api).await?;
        let mine = listed
            .iter()
            .find(|((kind, subject), _)| subject.contains(foreign.name()) && kind != "stray_filestore");
        ensure!(mine.is_none(), "{mine:?}");
        // Only where the test is another user than the platform is its folder somebody else's.
        if nix::unistd::geteuid().is_root() {
            ensure!(!has(&listed, "stray_filestore", foreign.name()));
        }
        for path in [&file, &link] {
            let name = path.file_name().and_then(std::ffi::OsStr::to_str);
            ensure!(listed.keys().all(|(_, subject)| Some(subject.as_str()) != name));
        }
        anyhow::Ok(())
    }
    .await;
    for path in [&file, &link] {
        if path.is_symlink() || path.exists() {
            std::fs::remove_file(path)?;
        }
    }
    foreign.remove(&containers).await?;
    outcome
}

#[tokio::test]
async fn what_an_operation_works_on_is_left_to_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    // A role and an unfinished database of a tenant whose operation has not ended: as in the middle of its making.
    let mut stage = Stage::new("owner").await?;
    let name = database_of(&stage.tenant.id);
    sqlx::query("UPDATE tenants SET status = 'failed' WHERE id = $1")
        .bind(stage.tenant.row)
        .execute(&mut stage.people.control)
        .await?;
    as_superuser(&[
        format!("CREATE ROLE {name} NOLOGIN IN ROLE tenants"),
        format!("CREATE DATABASE {name} OWNER platform_admin"),
    ])
    .await?;
    let outcome = async {
        for _ in 0..2 {
            reconcile(&api).await?;
            age().await?;
            ensure!(has_database(&name).await? && role(&name).await?.is_some());
            ensure!(!has(&listed(&api).await?, "unfinished_database", &name));
        }
        // The operation is over: now it is somebody's to see, and then it goes.
        stage.operation.advance(&mut stage.people.control, 100).await?;
        reconcile(&api).await?;
        let seen = listed(&api).await?;
        let item = &seen[&("unfinished_database".to_owned(), name.clone())];
        ensure!(item["target"]["id"] == stage.tenant.id.as_str(), "{item}");
        // While an operation is at work on it again it stays on the list, though nobody looks.
        let organization = stage.member.organization.clone();
        let again = OperationRow::queued(&mut stage.people.control, &organization, &stage.tenant).await?;
        age().await?;
        reconcile(&api).await?;
        ensure!(has(&listed(&api).await?, "unfinished_database", &name) && has_database(&name).await?);
        again.advance(&mut stage.people.control, 100).await?;
        reconcile(&api).await?;
        ensure!(!has_database(&name).await? && role(&name).await?.is_none());
        anyhow::Ok(())
    }
    .await;
    as_superuser(&[
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("DROP ROLE IF EXISTS {name}"),
    ])
    .await?;
    outcome
}

#[tokio::test]
async fn what_another_session_has_locked_waits_for_the_next_comparison() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let mut session = sql::tenants().await?;
    let lock = format!(
        "SELECT pg_try_advisory_lock(hashtextextended('platform:{}', 0))",
        tenant.database
    );
    assert_eq!(sql::text(&mut session, &lock).await?.as_deref(), Some("true"));
    let route = Place::get().route(&tenant.host);
    std::fs::remove_file(&route)?;
    reconcile(&api).await?;
    assert!(!route.is_symlink(), "a route was published under another's lock");
    drop(session);
    wait::until(Duration::from_secs(30), "the lock is free again", async || {
        reconcile(&api).await?;
        ensure!(route.is_symlink(), "the route is still missing");
        Ok(())
    })
    .await?;
    tenant.delete().await
}

#[tokio::test]
async fn tenants_come_and_go_undisturbed_while_everything_is_compared() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let comparing = async {
        for _ in 0..12 {
            reconcile(&api).await?;
            age().await?;
        }
        anyhow::Ok(())
    };
    let living = async {
        for _ in 0..4 {
            let tenant = Tenant::create(&api).await?;
            tenant.signed_in().await?;
            let (database, id) = (tenant.database.clone(), tenant.id.clone());
            tenant.delete().await?;
            ensure!(!has_database(&database).await?, "{id} left its database");
        }
        anyhow::Ok(())
    };
    let (compared, lived) = tokio::join!(comparing, living);
    compared?;
    lived
}

#[tokio::test]
async fn one_comparison_is_under_way_at_a_time_and_a_worker_asks_for_one_when_it_starts() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    reconcile(&api).await?;
    let worker = Pid::from_raw(services::process("worker")?);
    kill(worker, Signal::SIGSTOP)?;
    let nudges = async { anyhow::Ok((nudge().await?, nudge().await?)) }.await;
    kill(worker, Signal::SIGCONT)?;
    let ((first, now), (second, again)) = nudges?;
    assert!(now && !again, "the second is under way");
    assert_eq!(first, second);
    let ended = api.succeeded(&first).await?;
    assert_eq!(ended["kind"], "platform.reconcile");
    assert_eq!(ended["target"]["type"], "organization");
    assert_eq!(ended["target"]["id"], ended["organization_id"]);
    let of_target = format!(
        "/v1/operations?kind=platform.reconcile&limit=1&target_id={}",
        ended["target"]["id"].as_str().context("a target")?
    );

    services::kill_hard("worker").await?;
    wait::until(Duration::from_secs(60), "the new worker asks", async || {
        let newest = api.get(&of_target).await?.expect(200)?;
        let newest = newest["items"][0]["id"].as_str().context("an operation")?;
        ensure!(newest != first, "still {newest}");
        Ok(newest.to_owned())
    })
    .await?;
    reconcile(&api).await?;
    Ok(())
}

#[tokio::test]
async fn nobody_but_the_operator_sees_what_differs() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = Stage::new("owner").await?;
    // Whatever else is wrong with the request.
    for path in [
        "/v1/drift",
        "/v1/drift?colour=red&kind=odd",
        "/v1/drift?page_token=x",
    ] {
        assert_eq!(stage.api.get(path).await?.problem(403)?, "forbidden");
    }
    let operator = Api::owner().await?;
    for (query, code) in [
        ("limit=0", "invalid_value"),
        ("kind=odd", "invalid_value"),
        ("colour=red", "unknown_parameter"),
    ] {
        let answer = operator.get(&format!("/v1/drift?{query}")).await?;
        answer.problem(422)?;
        assert_eq!(answer.json()["errors"][0]["code"], code, "{query}");
    }
    assert_eq!(
        operator.get("/v1/drift?page_token=x").await?.problem(400)?,
        "invalid_page_token"
    );
    Ok(())
}
