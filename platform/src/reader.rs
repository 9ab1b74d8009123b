//! Reading on somebody's behalf. Whether the session still lives, the member still belongs and the role suffices is
//! asked in the very statement that reads the rows: one round trip, and a removed member gets nothing, from any process,
//! with the next request. A [`Reader`] has no other way to the database.

use std::{marker::PhantomData, sync::Arc};

use entity::{id::OrganizationId, values::Role};
use sea_orm::{
    DbBackend, EntityTrait, FromQueryResult, QueryTrait, Select, Statement, sea_query::SimpleExpr,
};

use crate::{
    Platform,
    api_keys::ApiKeyReader,
    audit::AuditReader,
    auth::Credential,
    caller::{Identity, Origin, Rows, below},
    error::Error,
    members::{InvitationReader, MemberReader},
    operations::OperationReader,
    organizations::OrganizationReader,
    paging::Page,
    permissions::Permission,
    profile::ProfileReader,
    tenants::TenantReader,
};

/// Somebody with a credential, who reads what the permission `P` lets them read.
#[derive(Debug)]
pub struct Reader<P> {
    platform: Arc<Platform>,
    credential: Credential,
    origin: Origin,
    permission: PhantomData<fn() -> P>,
}

impl Platform {
    /// A reader for a credential. Nothing has been asked of the database yet: each read does.
    #[must_use]
    pub fn reader<P: Permission>(self: &Arc<Self>, credential: Credential, origin: Origin) -> Reader<P> {
        Reader {
            platform: self.clone(),
            credential,
            origin,
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

    /// The organizations that the caller can see.
    #[must_use]
    pub fn organizations(&self) -> OrganizationReader<'_, P> {
        OrganizationReader::new(self)
    }

    /// The members that the caller can see.
    #[must_use]
    pub fn members(&self) -> MemberReader<'_, P> {
        MemberReader::new(self)
    }

    /// The invitations that the caller can see.
    #[must_use]
    pub fn invitations(&self) -> InvitationReader<'_, P> {
        InvitationReader::new(self)
    }

    /// The API keys that the caller can see.
    #[must_use]
    pub fn api_keys(&self) -> ApiKeyReader<'_, P> {
        ApiKeyReader::new(self)
    }

    /// The audit log that the caller can see.
    #[must_use]
    pub fn audit(&self) -> AuditReader<'_, P> {
        AuditReader::new(self)
    }

    /// The caller's own account.
    #[must_use]
    pub fn profile(&self) -> ProfileReader<'_, P> {
        ProfileReader::new(self)
    }

    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// The credential. Only its organization and its actor are used before the database has been asked.
    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Where the caller is.
    pub(crate) fn organization(&self) -> OrganizationId {
        self.credential.organization()
    }

    /// The condition that a row's organization is the caller's own or below it. Every query of a reader has it.
    pub(crate) fn sees(&self, rows: Rows, organization_column: &'static str) -> SimpleExpr {
        let organization = self.organization();
        let is_root = organization == self.platform.root();
        below(rows, organization, is_root, organization_column)
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
        self.rows_as::<E::Model>(&select, limit).await
    }

    /// The same for a query whose rows are no table's.
    ///
    /// # Errors
    /// As [`Reader::rows`].
    pub(crate) async fn rows_as<M: FromQueryResult>(
        &self,
        select: &impl QueryTrait,
        limit: Option<u64>,
    ) -> Result<(Identity, Vec<M>), Error> {
        self.rows_of(select.build(DbBackend::Postgres), limit).await
    }

    /// The same for a statement.
    ///
    /// # Errors
    /// As [`Reader::rows`].
    pub(crate) async fn rows_of<M: FromQueryResult>(
        &self,
        Statement { sql, values, .. }: Statement,
        limit: Option<u64>,
    ) -> Result<(Identity, Vec<M>), Error> {
        let mut values = values.map(|values| values.0).unwrap_or_default();
        let (entrance, parameter) = self.credential.entrance(self.platform.root(), values.len() + 1);
        values.push(parameter);
        // As text, not as a parameter: Postgres takes an unknown limit for a tenth of the table, and would make a new
        // plan for each request.
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        // One row of standing, so the join is a nested loop: it enters the organization before it reads, and keeps the
        // rows' order.
        let sql = format!(
            "SELECT standing.role AS standing_role, found.* \
               FROM (SELECT {entrance}) AS standing (role) \
               LEFT JOIN LATERAL (SELECT true AS is_a_row, those.* FROM ({sql}{limit}) those) found ON true \
              WHERE standing.role IS NOT NULL"
        );
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        let rows = self.platform.reads().rows(statement).await?;
        let role: Option<Role> = rows
            .first()
            .map(|row| row.try_get("", "standing_role"))
            .transpose()?;
        let identity = self
            .platform
            .identify::<P>(&self.credential, role, self.origin.clone())?;
        let mut models = Vec::with_capacity(rows.len());
        for row in &rows {
            // Where nothing was found, the join answers one row of nulls.
            if row.try_get::<Option<bool>>("", "is_a_row")?.is_some() {
                models.push(M::from_query_result(row, "")?);
            }
        }
        Ok((identity, models))
    }

    /// A page of rows that were asked for with one more.
    pub(crate) fn page<T>(
        &self,
        list: &impl serde::Serialize,
        limit: u32,
        rows: Vec<T>,
        id: impl Fn(&T) -> uuid::Uuid,
    ) -> Page<T> {
        let tokens = self.platform.page_tokens();
        tokens.page(self.organization(), list, limit, rows, id)
    }

    /// The row after which a page begins.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub(crate) fn after(
        &self,
        list: &impl serde::Serialize,
        page_token: Option<&str>,
    ) -> Result<Option<uuid::Uuid>, Error> {
        let tokens = self.platform.page_tokens();
        page_token
            .map(|token| tokens.read(self.organization(), list, token))
            .transpose()
    }
}
