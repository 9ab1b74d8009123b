//! What the tests of this crate share: a tenants' server that is really there, and a stand-in for Odoo's installer.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::PathBuf;
use std::str::FromStr as _;

use async_trait::async_trait;
use odoo::filestore::Filestore;
use odoo::keys::{EdgeSecret, PoolKey, PoolKeyRing};
use odoo::names::{DatabaseName, PoolId};
use odoo::runtime::{
    ContainerEntry, ContainerUser, ImageId, PoolLimits, PoolReport, PoolRole, PoolSpec, PoolState, Runtime,
    RuntimeError, TaskCommand, TaskOutcome, TaskSpec,
};
use odoo::server::{PoolHost, RoleGroup, RoleSpec, Server, Session};
use odoo::template::{Template, TemplateBuild, TemplateSpec};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through `cargo xtask test`"))
}

/// The tenants' server of the test instance, as the platform's admin role sees it.
pub(crate) fn server() -> Server {
    Server::new(&admin_url(), pool_host()).unwrap()
}

pub(crate) fn admin_url() -> SecretString {
    variable("TEST_TENANT_DATABASE_URL").into()
}

pub(crate) fn pool_host() -> PoolHost {
    PoolHost::parse(&variable("TEST_TENANT_SOCKET_DIR"))
}

/// A connection as the server's superuser, for what only an administrator or an attacker with luck could do.
pub(crate) async fn superuser() -> PgConnection {
    PgConnection::connect(&variable("TEST_TENANT_SUPERUSER_URL"))
        .await
        .unwrap()
}

/// A connection as a role of a pool, the way a pool connects: through the server's socket.
pub(crate) async fn connect_as(
    role: &DatabaseName,
    password: &SecretString,
    database: &str,
) -> Result<PgConnection, sqlx::Error> {
    let PoolHost::Socket(directory) = pool_host() else {
        panic!("TEST_TENANT_SOCKET_DIR is no directory")
    };
    let port = PgConnectOptions::from_str(admin_url().expose_secret())
        .unwrap()
        .get_port();
    let options = PgConnectOptions::new_without_pgpass()
        .socket(directory)
        .port(port)
        .username(role.as_str())
        .password(password.expose_secret())
        .database(database);
    PgConnection::connect_with(&options).await
}

/// A session of a job's first epoch.
pub(crate) async fn session(server: &Server) -> Session {
    server
        .session(&format!("job:{}:1", Uuid::now_v7()))
        .await
        .unwrap()
}

/// Names, keys and directories of one test, all new.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) keys: PoolKeyRing,
    pub(crate) filestore: Filestore,
    pub(crate) directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let filestore = Filestore::new(directory.path(), None);
        filestore.prepare().await.unwrap();
        Self {
            server: server(),
            keys: PoolKeyRing::new(PoolKey::generate()),
            filestore,
            directory,
        }
    }

    /// A template of few tables, made by the platform's own steps with a stand-in for Odoo.
    pub(crate) async fn template(&self) -> Template {
        let spec =
            template_spec(ImageId::from_str(&format!("sha256:{:064x}", Uuid::now_v7().as_u128())).unwrap());
        let build = TemplateBuild {
            spec: &spec,
            filestore: &self.filestore,
            keys: &self.keys,
        };
        let mut session = session(&self.server).await;
        build.begin(&mut session).await.unwrap();
        let installer = StandInInstaller {
            keys: self.keys.clone(),
            tree: self.filestore.tenants(),
        };
        build.install(&installer, &pool_spec(&self.keys)).await.unwrap();
        build.finish(&mut session, "test-1").await.unwrap()
    }

    /// Removes the template, which was named in `template`.
    pub(crate) async fn forget(&self, names: &[&DatabaseName]) {
        let mut session = session(&self.server).await;
        for name in names {
            session.drop_database(name).await.unwrap();
            session.drop_role(name).await.unwrap();
        }
    }

    pub(crate) async fn make_role(&self, session: &mut Session, name: &DatabaseName, login: bool) {
        let password = self.keys.password_for(name);
        session
            .ensure_role(&RoleSpec {
                name,
                group: RoleGroup::Tenants,
                password: &password,
                connection_limit: 8,
                login,
            })
            .await
            .unwrap();
    }

    /// A clone whose role may log in.
    pub(crate) async fn tenant(&self, session: &mut Session, template: &Template) -> DatabaseName {
        let name = DatabaseName::tenant(Uuid::now_v7());
        self.make_role(session, &name, true).await;
        session.clone_database(&template.database, &name).await.unwrap();
        name
    }
}

/// Other modules than the platform's own template has: on a server that both share they must not be one database.
pub(crate) fn template_spec(image: ImageId) -> TemplateSpec {
    TemplateSpec::new(image, ["base", "base_setup", "web"].map(str::to_owned))
}

pub(crate) fn pool_spec(keys: &PoolKeyRing) -> PoolSpec {
    PoolSpec {
        pool: PoolId::new(Uuid::now_v7()),
        image: ImageId::from_str(&format!("sha256:{:064x}", 1)).unwrap(),
        user: ContainerUser { uid: 100, gid: 101 },
        web_port: 0,
        gevent_port: 0,
        database: server().endpoint().clone(),
        filestore: PathBuf::from("/nowhere"),
        keys: keys.clone(),
        edge_secret: EdgeSecret::generate(),
        limits: PoolLimits::default(),
    }
}

/// Stands in for the container that installs Odoo: makes those of its tables that the platform touches, as the same
/// role, and a file as Odoo would. The real one is used in `docker.rs`.
#[derive(Debug)]
pub(crate) struct StandInInstaller {
    pub(crate) keys: PoolKeyRing,
    pub(crate) tree: PathBuf,
}

const TABLES: &str = "
    CREATE TABLE ir_config_parameter (id serial PRIMARY KEY, key text UNIQUE, value text,
        create_uid int, write_uid int, create_date timestamp, write_date timestamp);
    CREATE TABLE res_lang (id serial PRIMARY KEY, code text, active bool);
    CREATE TABLE res_currency (id serial PRIMARY KEY, name text, active bool);
    CREATE TABLE res_country (id serial PRIMARY KEY, code text, currency_id int);
    CREATE TABLE res_partner (id serial PRIMARY KEY, name text, complete_name text, commercial_company_name text,
        email text, lang text, country_id int);
    CREATE TABLE res_company (id serial PRIMARY KEY, name text, email text, partner_id int, currency_id int);
    CREATE TABLE res_users (id serial PRIMARY KEY, login text, password text, partner_id int, write_date timestamp);
    CREATE TABLE ir_cron (id serial PRIMARY KEY, nextcall timestamp, active bool);
    CREATE TABLE ir_attachment (id serial PRIMARY KEY, store_fname text);
    CREATE TABLE orm_signaling_default (id serial PRIMARY KEY);
    INSERT INTO res_lang (code, active) VALUES ('en_US', true), ('fr_FR', false);
    INSERT INTO res_currency (name, active) VALUES ('EUR', true), ('CHF', false);
    INSERT INTO res_country (code, currency_id) VALUES ('FR', 1), ('CH', 2);
    INSERT INTO res_partner (name) VALUES ('My Company'), ('OdooBot'), ('Administrator');
    INSERT INTO res_company (name, partner_id, currency_id) VALUES ('My Company', 1, 1);
    INSERT INTO res_users (login, partner_id) VALUES ('__system__', 2), ('admin', 3);
    INSERT INTO ir_cron (nextcall, active) SELECT '2020-01-01', true FROM generate_series(1, 20);
    INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', 'the template''s');
    INSERT INTO ir_attachment (store_fname) VALUES ('ab/abcdef'), (NULL);
";

#[async_trait]
impl Runtime for StandInInstaller {
    async fn run_task(&self, _: &PoolSpec, task: &TaskSpec) -> Result<TaskOutcome, RuntimeError> {
        let TaskCommand::BuildTemplate { database, .. } = &task.command;
        let password = self.keys.password_for(database);
        let mut connection = connect_as(database, &password, database.as_str()).await.unwrap();
        connection.execute(TABLES).await.unwrap();
        connection.close().await.unwrap();
        let directory = self.tree.join(database.as_str()).join("ab");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("abcdef"), "a bundle").unwrap();
        Ok(TaskOutcome {
            exit: 0,
            log: String::new(),
        })
    }

    async fn end_task(&self, _: PoolId, _: &str) -> Result<(), RuntimeError> {
        unreachable!("only installs")
    }
    async fn resolve_image(&self, _: &str) -> Result<ImageId, RuntimeError> {
        unreachable!("only installs")
    }
    async fn ensure_pool(&self, _: &PoolSpec) -> Result<PoolReport, RuntimeError> {
        unreachable!("only installs")
    }
    async fn pool_state(&self, _: PoolId) -> Result<PoolState, RuntimeError> {
        unreachable!("only installs")
    }
    async fn restart(&self, _: PoolId, _: PoolRole) -> Result<(), RuntimeError> {
        unreachable!("only installs")
    }
    async fn remove_pool(&self, _: PoolId) -> Result<(), RuntimeError> {
        unreachable!("only installs")
    }
    async fn containers(&self) -> Result<Vec<ContainerEntry>, RuntimeError> {
        unreachable!("only installs")
    }
    async fn pools(&self) -> Result<Vec<PoolId>, RuntimeError> {
        unreachable!("only installs")
    }
}
