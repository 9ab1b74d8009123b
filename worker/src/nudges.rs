//! When a worker asks for a comparison of the tables with what is there: at its start, since whatever ended the one
//! before it may have left something behind, and after an operation was given up half-way. The schedule is elsewhere.

use std::time::Duration;

use platform::reconcile::{self, Nudge};
use sea_orm::DatabaseConnection;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether an operation was given up.
const EVERY: Duration = Duration::from_secs(30);

/// Asks until told to end.
pub async fn keep(database: &DatabaseConnection, ending: CancellationToken) {
    let work = async {
        let mut begun = false;
        loop {
            let nudge = if begun {
                reconcile::nudge_after_deaths(database).await
            } else {
                reconcile::nudge_now(database).await.map(Some)
            };
            match nudge {
                Ok(nudge) => {
                    begun = true;
                    if let Some(Nudge::Asked(operation)) = nudge {
                        tracing::info!(%operation, "asked for a comparison of the tables with what is there");
                    }
                }
                Err(error) => tracing::warn!(%error, "a comparison could not be asked for"),
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    ending.run_until_cancelled(work).await;
}
