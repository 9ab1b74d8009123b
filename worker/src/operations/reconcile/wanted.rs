//! What should be, by the name that database, role, files, routes and containers share.

use std::{collections::BTreeMap, sync::Arc};

use jobs::StepError;
use odoo::{
    edge::{Hostname, Route, RouteState},
    names::{DatabaseKind, DatabaseName},
};
use platform::{
    id::{PoolId, TemplateId, TenantId},
    operations::Target,
    reconcile::Tables,
    tenants::TenantRow,
    values::{Readiness, TenantStatus},
};
use secrecy::SecretString;

use crate::{
    operations::database,
    world::{Pool, World, outside},
};

/// What should have one of the platform's names.
pub(super) enum Wanted {
    /// A tenant that people use, or may use again.
    Tenant(Box<WantedTenant>),
    /// A tenant that owns nothing: its making failed, or its deletion was given up.
    Nothing(TenantId),
    /// A pool that is ready.
    Pool(Arc<Pool>),
    /// A pool that is not ready yet, or not any more: what it has is being made, or will be used again.
    UnreadyPool(PoolId),
    /// A template that is ready.
    Template(TemplateId),
}

/// A tenant as it should be.
pub(super) struct WantedTenant {
    /// Which.
    pub(super) id: TenantId,
    /// What serves it.
    pub(super) pool: Arc<Pool>,
    /// Its address.
    pub(super) host: Hostname,
    /// Where that leads.
    pub(super) route: Route,
    /// Whether its role may log in; `None` where its status leaves that open.
    pub(super) login: Option<bool>,
    /// Connections that its role may have.
    pub(super) connections: u16,
}

impl Wanted {
    /// The tenant, pool or template.
    pub(super) fn target(&self) -> Target {
        match self {
            Self::Tenant(tenant) => Target::Tenant(tenant.id),
            Self::Nothing(id) => Target::Tenant(*id),
            Self::Pool(pool) => Target::Pool(pool.row.id),
            Self::UnreadyPool(id) => Target::Pool(*id),
            Self::Template(id) => Target::Template(*id),
        }
    }

    /// The password that its pool would use, where one should open its database.
    pub(super) fn password(&self, name: &DatabaseName) -> Option<SecretString> {
        match self {
            Self::Tenant(tenant) => Some(tenant.pool.keys.ring.password_for(name)),
            Self::Pool(pool) => Some(pool.keys.ring.password_for(name)),
            Self::Nothing(_) | Self::UnreadyPool(_) | Self::Template(_) => None,
        }
    }
}

/// All that should be.
pub(super) struct Plan {
    /// By name.
    pub(super) wanted: BTreeMap<DatabaseName, Wanted>,
    tables: Tables,
}

impl Plan {
    /// Of what the tables say.
    pub(super) async fn new(world: &World, mut tables: Tables) -> Result<Self, StepError> {
        let mut wanted = BTreeMap::new();
        let unready = |pool: &&platform::pools::PoolRow| pool.status != Readiness::Ready;
        for pool in tables.pools.iter().filter(unready) {
            wanted.insert(outside(pool.id).bus_database(), Wanted::UnreadyPool(pool.id));
        }
        let rows = std::mem::take(&mut tables.pools);
        let pools: BTreeMap<PoolId, Arc<Pool>> = database(world.open_all(rows).await)?
            .into_iter()
            .map(|pool| (pool.row.id, Arc::new(pool)))
            .collect();
        for pool in pools.values().filter(|pool| pool.row.status == Readiness::Ready) {
            wanted.insert(pool.id().bus_database(), Wanted::Pool(pool.clone()));
        }
        for template in &tables.templates {
            let name = template.database_name.as_deref().map(str::parse);
            if let Some(Ok(name)) = name
                && template.status == Readiness::Ready
            {
                wanted.insert(name, Wanted::Template(template.id));
            }
        }
        for row in &tables.tenants {
            let name = DatabaseName::tenant(row.id.0);
            let tenant = tenant(world, &pools, row, name.clone())?;
            wanted.insert(name, tenant);
        }
        Ok(Self { wanted, tables })
    }

    /// Whether an operation that has not ended works on what has this name, or may do so.
    pub(super) fn is_worked_on(&self, name: &DatabaseName) -> bool {
        match name.kind() {
            DatabaseKind::Tenant => self.tables.is_worked_on("tenant", name.id()),
            DatabaseKind::Bus => self.tables.is_worked_on("pool", name.id()),
            // Its name is in no table before it is done.
            DatabaseKind::Template => self.tables.template_in_the_making(),
        }
    }

    /// Whether a template is being built, in a container of some pool.
    pub(super) fn template_in_the_making(&self) -> bool {
        self.tables.template_in_the_making()
    }

    /// Whether a tree on its way in or out, named as the filestore names them, is no running operation's.
    pub(super) fn is_left_behind(&self, tree: &str) -> bool {
        let Some(Ok(name)) = tree.split_once('.').map(|(database, _)| database.parse()) else {
            // The platform names none so.
            return false;
        };
        // Behind the full stop stands the operation's id, where one staged the tree.
        let staged_by_running = self.tables.unfinished.iter().any(|operation| {
            let id = platform::id::OperationId(operation.id);
            tree.contains(&id.suffix())
        });
        !staged_by_running && !self.is_worked_on(&name)
    }
}

fn tenant(
    world: &World,
    pools: &BTreeMap<PoolId, Arc<Pool>>,
    row: &TenantRow,
    name: DatabaseName,
) -> Result<Wanted, StepError> {
    let (state, login) = match row.status {
        TenantStatus::Active => (RouteState::Active, Some(true)),
        TenantStatus::Suspended => (RouteState::Suspended, None),
        TenantStatus::Maintenance => (RouteState::Maintenance, None),
        // One that is being made or deleted has an operation, or its operation was given up.
        TenantStatus::Provisioning | TenantStatus::Failed | TenantStatus::Deleting => {
            return Ok(Wanted::Nothing(row.id));
        }
    };
    let pool = pools.get(&row.pool_id).ok_or_else(|| {
        StepError::permanent("pool_not_ready", "A tenant's pool was never started.").detailed(row.id)
    })?;
    let connections = world.tenant_connections().ok_or_else(|| {
        StepError::permanent(
            "pool_too_large",
            "The pool has more processes than a tenant can serve.",
        )
    })?;
    Ok(Wanted::Tenant(Box::new(WantedTenant {
        id: row.id,
        host: world.host(&row.slug)?,
        route: Route {
            pool: pool.id(),
            web_port: pool.web_port,
            gevent_port: pool.gevent_port,
            database: name,
            state,
        },
        pool: pool.clone(),
        login,
        connections,
    })))
}
