//! The baseline: an actix server with nothing but two handlers, for the callers of one organization. No credential, no
//! limit, no log; the same query by the same library over as large a pool, and the same JSON.

use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use platform::{
    entity::tenant,
    id::{OrganizationId, TenantId},
    values::{Isolation, TenantStatus},
};
use sea_orm::{
    ColumnTrait as _, ConnectOptions, Database, DatabaseConnection, DbBackend, EntityTrait as _,
    QueryFilter as _, QueryOrder as _, QueryTrait as _, Statement,
    sea_query::{Expr, SimpleExpr},
};
use serde::Serialize;
use serde_json::Value;

/// As many as the api has.
const CONNECTIONS: u32 = 16;

struct Bare {
    database: DatabaseConnection,
    /// Whose tenants and those of all below it are shown; `None`: all there are.
    organization: Option<OrganizationId>,
    url: (String, String),
}

/// The tenant as the API shows it.
#[derive(Serialize)]
struct Tenant {
    id: TenantId,
    slug: String,
    name: String,
    organization_id: OrganizationId,
    status: TenantStatus,
    status_reason: Option<String>,
    odoo_version: String,
    isolation: Isolation,
    url: String,
    language: Option<String>,
    country: Option<String>,
    labels: Value,
    protected: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Tenant>,
    next_page: Option<String>,
}

/// Serves until it is killed. Settings come from the environment of the api's process.
pub async fn serve() -> Result<()> {
    let setting = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let url = match std::env::var("DATABASE_URL") {
        Ok(url) => url,
        Err(_) => std::fs::read_to_string(setting("DATABASE_URL_FILE")?)?
            .trim()
            .to_owned(),
    };
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(CONNECTIONS)
        .sqlx_logging(false)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(5))
        // As the api's own work sees the tables: all rows.
        .map_sqlx_postgres_opts(|postgres| postgres.options([("platform.scope", "system")]));
    let database = Database::connect(options).await?;
    let bare = web::Data::new(Bare {
        database,
        organization: std::env::var("BENCH_ORGANIZATION")
            .ok()
            .map(|id| id.parse())
            .transpose()?,
        url: (
            format!("{}://", setting("PUBLIC_SCHEME")?),
            format!(".{}:{}", setting("DOMAIN")?, setting("PUBLIC_PORT")?),
        ),
    });
    let listen = setting("BENCH_LISTEN")?;
    #[allow(
        clippy::disallowed_methods,
        reason = "what the project's own routes are compared with"
    )]
    let server = HttpServer::new(move || {
        App::new()
            .app_data(bare.clone())
            .route("/v1/tenants/{id}", web::get().to(one))
            .route("/v1/tenants", web::get().to(page))
    })
    .workers(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
    .bind(listen)?
    .run();
    Ok(server.await?)
}

impl Bare {
    fn visible(&self) -> SimpleExpr {
        match self.organization {
            Some(organization) => Expr::cust_with_values(
                "EXISTS (SELECT FROM organization_ancestors up \
                  WHERE up.organization_id = tenants.organization_id AND up.ancestor_id = $1)",
                [organization.0],
            ),
            None => Expr::cust("true"),
        }
    }

    fn tenant(&self, row: tenant::Model) -> Tenant {
        Tenant {
            url: format!("{}{}{}", self.url.0, row.slug, self.url.1),
            id: row.id,
            slug: row.slug,
            name: row.name,
            organization_id: row.organization_id,
            status: row.status,
            status_reason: row.status_reason,
            odoo_version: row.odoo_version,
            isolation: row.isolation,
            language: row.language,
            country: row.country,
            labels: row.labels,
            protected: row.protected,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

async fn one(bare: web::Data<Bare>, id: web::Path<String>) -> HttpResponse {
    let Ok(id) = id.parse::<TenantId>() else {
        return HttpResponse::BadRequest().finish();
    };
    let found = tenant::Entity::find()
        .filter(bare.visible())
        .filter(tenant::Column::Id.eq(id))
        .one(&bare.database)
        .await;
    match found {
        Ok(Some(row)) => HttpResponse::Ok().json(bare.tenant(row)),
        Ok(None) => HttpResponse::NotFound().finish(),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

async fn page(bare: web::Data<Bare>) -> HttpResponse {
    // The limit as text, as the API has it: a parameter would cost a new plan each time.
    let Statement { sql, values, .. } = tenant::Entity::find()
        .filter(bare.visible())
        .order_by_desc(tenant::Column::Id)
        .build(DbBackend::Postgres);
    let statement = Statement {
        sql: format!("{sql} LIMIT 51"),
        values,
        db_backend: DbBackend::Postgres,
    };
    let found = tenant::Entity::find()
        .from_raw_sql(statement)
        .all(&bare.database)
        .await;
    match found {
        Ok(rows) => {
            let items: Vec<Tenant> = rows.into_iter().take(50).map(|row| bare.tenant(row)).collect();
            HttpResponse::Ok().json(Page {
                next_page: items.last().map(|last| last.id.to_string()),
                items,
            })
        }
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}
