//! Sign-ins to accounts that do not exist: whoever tries a million addresses must not fill the log. They are counted for
//! each address and minute; a minute that is over becomes one event in the operator's log.

use std::net::IpAddr;

use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, Statement, TransactionTrait as _};
use serde_json::json;

use super::{Doer, Entry, Event, write};
use crate::{Platform, caller::Origin, error::Error};

impl Platform {
    /// Counts one.
    pub(crate) async fn count_unknown_sign_in(
        transaction: &DatabaseTransaction,
        address: IpAddr,
    ) -> Result<(), Error> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "INSERT INTO unknown_sign_ins (address, minute, attempts) VALUES ($1, date_trunc('minute', now()), 1)
             ON CONFLICT (address, minute) DO UPDATE SET attempts = unknown_sign_ins.attempts + 1",
            [address.to_string().into()],
        );
        crate::answered(transaction.execute_raw(statement)).await?;
        Ok(())
    }

    /// Writes down the minutes that are over.
    ///
    /// # Errors
    /// The database doesn't answer; then nothing is lost.
    pub async fn tell_of_unknown_sign_ins(&self) -> Result<(), Error> {
        const OVER: &str = "DELETE FROM unknown_sign_ins WHERE (address, minute) IN (
                SELECT address, minute FROM unknown_sign_ins
                 WHERE minute < date_trunc('minute', now()) LIMIT 100 FOR UPDATE SKIP LOCKED)
            RETURNING address, minute::text, attempts";

        let transaction = crate::answered(self.database().begin()).await?;
        let over = Statement::from_string(DbBackend::Postgres, OVER);
        for row in crate::answered(transaction.query_all_raw(over)).await? {
            let address: String = row.try_get("", "address")?;
            let (minute, attempts): (String, i64) =
                (row.try_get("", "minute")?, row.try_get("", "attempts")?);
            let event = Event {
                doer: Doer::NOBODY,
                origin: &Origin {
                    request_id: "".into(),
                    address: address.parse().map_err(Error::internal)?,
                    action: "create_token",
                },
                refused: Some("wrong_password"),
                entry: Entry {
                    organization: self.root(),
                    subject: None,
                    before: None,
                    after: Some(json!({ "unknown_accounts": attempts, "minute": minute })),
                },
            };
            write(&transaction, event).await?;
        }
        crate::answered(transaction.commit()).await?;
        Ok(())
    }
}
