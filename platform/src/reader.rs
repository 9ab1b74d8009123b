//! Reading on somebody's behalf. Whether the session still lives, the member still belongs and the role suffices is
//! asked in the very statement that reads the rows: one round trip, and a removed member gets nothing, from any process,
//! with the next request. A [`Reader`] has no other way to the database.

use std::{marker::PhantomData, sync::Arc};

use entity::id::SessionId;
use sea_orm::{
    ConnectionTrait as _, DbBackend, EntityTrait, FromQueryResult as _, QueryTrait as _, Select, Statement,
};
use uuid::Uuid;

use crate::{
    Platform,
    auth::{Claims, standing_query},
    caller::Identity,
    error::Error,
    operations::OperationReader,
    permissions::Permission,
    tenants::TenantReader,
};

/// Somebody with a verified token, who reads what the permission `P` lets them read.
#[derive(Debug)]
pub struct Reader<P> {
    platform: Arc<Platform>,
    claims: Arc<Claims>,
    request_id: String,
    permission: PhantomData<fn() -> P>,
}

impl Platform {
    /// A reader for a verified token. Nothing has been asked of the database yet: each read does.
    #[must_use]
    pub fn reader<P: Permission>(self: &Arc<Self>, claims: Arc<Claims>, request_id: &str) -> Reader<P> {
        Reader {
            platform: self.clone(),
            claims,
            request_id: request_id.to_owned(),
            permission: PhantomData,
        }
    }
}

impl<P: Permission> Reader<P> {
    /// The tenants that the caller can see.
    #[must_use]
    pub fn tenants(&self) -> TenantReader<'_, P> {
        TenantReader::new(self)
    }

    /// The operations that the caller can see.
    #[must_use]
    pub fn operations(&self) -> OperationReader<'_, P> {
        OperationReader::new(self)
    }

    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// What the token says. Only the organization is used before the database has been asked.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Reads rows, at most `limit` if that is given, and who is calling as of the same moment.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub(crate) async fn rows<E: EntityTrait>(
        &self,
        select: Select<E>,
        limit: Option<u64>,
    ) -> Result<(Identity, Vec<E::Model>), Error> {
        let Statement { sql, values, .. } = select.build(DbBackend::Postgres);
        let mut values = values.map(|values| values.0).unwrap_or_default();
        values.push(SessionId::into(self.claims.sid));
        // As text, not as a parameter: Postgres takes an unknown limit for a tenth of the table, and would make a new
        // plan for each request.
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        // One row of standing, so the join is a nested loop and keeps the rows' order.
        let sql = format!(
            "SELECT standing.role AS standing_role, found.* \
               FROM ({}) standing LEFT JOIN LATERAL ({sql}{limit}) found ON true",
            standing_query(values.len())
        );
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        let rows = crate::answered(self.platform.database().query_all_raw(statement)).await?;
        let role = rows
            .first()
            .map(|row| row.try_get("", "standing_role"))
            .transpose()?;
        let identity = self
            .platform
            .identify::<P>(&self.claims, role, &self.request_id)?;
        let mut models = Vec::with_capacity(rows.len());
        // Where nothing was found, the join answers one row of nulls.
        let nothing = match rows.as_slice() {
            [only] => only.try_get::<Option<Uuid>>("", "id")?.is_none(),
            _ => false,
        };
        if !nothing {
            for row in &rows {
                models.push(E::Model::from_query_result(row, "")?);
            }
        }
        Ok((identity, models))
    }
}

/// Who is calling, with names.
#[derive(Debug)]
pub struct Profile {
    /// The user.
    pub user: entity::user::Model,
    /// The organization that the credential acts for.
    pub organization: entity::organization::Model,
    /// The role and what comes with it.
    pub identity: Identity,
}

impl<P: Permission> Reader<P> {
    /// Who is calling, with names.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub async fn profile(&self) -> Result<Profile, Error> {
        let (_, users) = self
            .rows(entity::user::Entity::find_by_id(self.claims.sub), None)
            .await?;
        let (identity, organizations) = self
            .rows(entity::organization::Entity::find_by_id(self.claims.org), None)
            .await?;
        let (user, organization) = users
            .into_iter()
            .next()
            .zip(organizations.into_iter().next())
            .ok_or(Error::Unauthenticated)?;
        Ok(Profile {
            user,
            organization,
            identity,
        })
    }
}
