//! How much is not as the tables say, for Prometheus. Every process tells what the list says, whoever compared last.

use std::time::Duration;

use platform::{
    reconcile,
    values::{DriftKind, Iterable as _},
};
use prometheus::{IntGaugeVec, Opts, Registry};
use sea_orm::DatabaseConnection;
use tokio_util::sync::CancellationToken;

/// How often the list is counted.
const EVERY: Duration = Duration::from_secs(15);

/// The rows of the list by kind.
#[derive(Debug, Clone)]
pub struct DriftGauge(IntGaugeVec);

impl DriftGauge {
    /// Registers it.
    ///
    /// # Errors
    /// It is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = IntGaugeVec::new(
            Opts::new(
                "platform_drift",
                "Things outside that are not as the tables say, and were not repaired.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self(gauge))
    }

    /// Counts until the process ends. While the database does not answer, the last count stands.
    pub async fn keep(&self, database: &DatabaseConnection, ending: CancellationToken) {
        let work = async {
            loop {
                match reconcile::count(database).await {
                    Ok(counts) => self.show(&counts),
                    Err(error) => tracing::warn!(%error, "can't count what is not as the tables say"),
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        ending.run_until_cancelled(work).await;
    }

    fn show(&self, counts: &[(String, i64)]) {
        // A kind that is gone is told as none, so that an alert ends. A newer worker may know more kinds.
        let gone = DriftKind::iter()
            .map(DriftKind::as_str)
            .filter(|kind| counts.iter().all(|(counted, _)| counted != kind))
            .map(|kind| (kind, 0));
        let there = counts.iter().map(|(kind, rows)| (kind.as_str(), *rows));
        for (kind, rows) in gone.chain(there) {
            self.0.with_label_values(&[kind]).set(rows);
        }
    }
}
