//! What the engine counts. Queue depth and age are asked of Postgres by whoever exports them, not counted here.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};

const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The engine's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) claimed: IntCounterVec,
    pub(crate) finished: IntCounterVec,
    pub(crate) retried: IntCounterVec,
    pub(crate) running: IntGauge,
    pub(crate) claim_wait: Histogram,
    pub(crate) step_seconds: HistogramVec,
    pub(crate) leases_lost: IntCounter,
    pub(crate) announced: IntCounter,
    pub(crate) swept: IntCounter,
    pub(crate) outbox_lag: Histogram,
    pub(crate) schedule_fires: IntCounterVec,
}

impl Metrics {
    /// Metrics that no registry knows yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            claimed: counters("jobs_claimed_total", "Claims of jobs.", &["kind"]),
            finished: counters(
                "jobs_finished_total",
                "Operations that ended; status dead: given up half-way.",
                &["kind", "status"],
            ),
            retried: counters(
                "jobs_retried_total",
                "Releases of jobs to be tried again later.",
                &["kind"],
            ),
            running: gauge("jobs_running", "Jobs that this process holds."),
            claim_wait: histogram("jobs_claim_wait_seconds", "From when a job may run to its claim."),
            step_seconds: {
                let options = HistogramOpts::new("jobs_step_seconds", "Duration of one try of a step.")
                    .buckets(SECONDS.to_vec());
                HistogramVec::new(options, &["kind", "step", "direction"])
                    .expect("constant options are valid")
            },
            leases_lost: counter("jobs_leases_lost_total", "Leases that ended under a running job."),
            announced: counter(
                "jobs_announced_total",
                "Entries added to the stream by this process.",
            ),
            swept: counter(
                "jobs_swept_total",
                "Jobs announced again by this process's sweeper.",
            ),
            outbox_lag: histogram(
                "jobs_outbox_lag_seconds",
                "Age of a batch's oldest outbox row when relayed.",
            ),
            schedule_fires: counters(
                "jobs_schedule_fires_total",
                "Moments of schedules that this process fired; outcome busy: their serial key was, and nothing runs.",
                &["outcome"],
            ),
        }
    }

    /// Adds them to a registry.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let Self {
            claimed,
            finished,
            retried,
            running,
            claim_wait,
            step_seconds,
            leases_lost,
            announced,
            swept,
            outbox_lag,
            schedule_fires,
        } = self.clone();
        let all: [Box<dyn Collector>; 11] = [
            Box::new(claimed),
            Box::new(finished),
            Box::new(retried),
            Box::new(running),
            Box::new(claim_wait),
            Box::new(step_seconds),
            Box::new(leases_lost),
            Box::new(announced),
            Box::new(swept),
            Box::new(outbox_lag),
            Box::new(schedule_fires),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("constant options are valid")
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("constant options are valid")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("constant options are valid")
}

fn histogram(name: &str, help: &str) -> Histogram {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
        .expect("constant options are valid")
}
