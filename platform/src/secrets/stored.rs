//! Every column that holds sealed secrets. What is not listed here is not re-sealed, and its data key is taken from it: a
//! test compares the list with the tables.

use entity::id::{OperationId, PoolId};
use sea_orm::{ConnectionTrait, DbErr, Statement, TryGetable as _};
use uuid::Uuid;

/// Where sealed secrets are.
pub(super) struct Place {
    /// The table.
    pub(super) table: &'static str,
    /// Its primary key.
    id: &'static str,
    /// The column of sealed secrets.
    pub(super) column: &'static str,
    /// What a secret belongs to, of its row's primary key as text.
    belongs_to: fn(String) -> Option<String>,
}

/// A sealed secret as it was found.
pub(super) struct Found {
    /// Its row's primary key as text.
    pub(super) id: String,
    /// What it belongs to.
    pub(super) belongs_to: String,
    /// The secret.
    pub(super) sealed: Vec<u8>,
}

/// All of them.
pub(super) const PLACES: [Place; 4] = [
    Place {
        table: "signing_keys",
        id: "kid",
        column: "private_key_sealed",
        belongs_to: Some,
    },
    Place {
        table: "pools",
        id: "id",
        column: "keys_sealed",
        belongs_to: |id| Some(PoolId(Uuid::parse_str(&id).ok()?).to_string()),
    },
    Place {
        table: "sealed_secrets",
        id: "operation_id",
        column: "sealed",
        belongs_to: |id| Some(OperationId(Uuid::parse_str(&id).ok()?).to_string()),
    },
    Place {
        table: "platform_secrets",
        id: "name",
        column: "sealed",
        belongs_to: Some,
    },
];

/// Tables and columns of all sealed secrets.
pub fn columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    PLACES.iter().map(|place| (place.table, place.column))
}

impl Place {
    /// Every secret of this place.
    pub(super) async fn all(&self, connection: &impl ConnectionTrait) -> Result<Vec<Found>, DbErr> {
        self.not_beginning_with(connection, &[0; 20], "", u32::MAX).await
    }

    /// At most so many secrets that begin otherwise, in the order of their rows' keys, after the given one.
    pub(super) async fn not_beginning_with(
        &self,
        connection: &impl ConnectionTrait,
        beginning: &[u8],
        after: &str,
        limit: u32,
    ) -> Result<Vec<Found>, DbErr> {
        let Self {
            table, id, column, ..
        } = self;
        let sql = format!(
            "SELECT {id}::text AS id, {column} AS sealed FROM {table} \
              WHERE substring({column} FOR $1) <> $2 AND {id}::text > $3 ORDER BY {id}::text LIMIT $4"
        );
        let length = i32::try_from(beginning.len()).expect("a beginning has a few bytes");
        let values = [
            length.into(),
            beginning.to_vec().into(),
            after.into(),
            i64::from(limit).into(),
        ];
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
        let rows = connection.query_all_raw(statement).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let id = String::try_get_by(&row, "id")?;
            if let Some(belongs_to) = (self.belongs_to)(id.clone()) {
                found.push(Found {
                    id,
                    belongs_to,
                    sealed: Vec::try_get_by(&row, "sealed")?,
                });
            }
        }
        Ok(found)
    }

    /// Replaces a sealed secret, if it is still the one that was found.
    pub(super) async fn replace(
        &self,
        connection: &impl ConnectionTrait,
        found: &Found,
        sealed: Vec<u8>,
    ) -> Result<bool, DbErr> {
        let Self {
            table, id, column, ..
        } = self;
        let sql = format!("UPDATE {table} SET {column} = $1 WHERE {id}::text = $2 AND {column} = $3");
        let values = [
            sealed.into(),
            found.id.as_str().into(),
            found.sealed.clone().into(),
        ];
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
        Ok(connection.execute_raw(statement).await?.rows_affected() == 1)
    }
}
