//! What the engine counts, and what a sweeper finds when it looks at the queue.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
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
    pub(crate) claim_seconds: Histogram,
    pub(crate) step_seconds: HistogramVec,
    pub(crate) leases_lost: IntCounter,
    pub(crate) announced: IntCounter,
    pub(crate) swept: IntCounter,
    pub(crate) outbox_lag: Histogram,
    pub(crate) depth: IntGaugeVec,
    pub(crate) oldest: GaugeVec,
    pub(crate) outbox_rows: IntGauge,
    pub(crate) outbox_oldest: Gauge,
    pub(crate) stream_length: IntGaugeVec,
    pub(crate) stream_lag: IntGaugeVec,
    pub(crate) stream_pending: IntGaugeVec,
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
            claim_seconds: histogram("jobs_claim_seconds", "Duration of a claim that succeeded."),
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
            depth: gauges(
                "jobs_queue_depth",
                "Jobs that are not over, and dead ones; state in_line: as many of their scope run as may.",
                &["kind", "state"],
            ),
            oldest: {
                let options = Opts::new(
                    "jobs_oldest_waiting_seconds",
                    "How long the oldest job that may run has waited for a worker.",
                );
                GaugeVec::new(options, &["kind"]).expect("constant options are valid")
            },
            outbox_rows: gauge("jobs_outbox_rows", "Entries that are not in the stream yet."),
            outbox_oldest: Gauge::new("jobs_outbox_oldest_seconds", "Age of the oldest of them.")
                .expect("constant options are valid"),
            stream_length: gauges("jobs_stream_length", "Entries of a stream.", &["priority"]),
            stream_lag: gauges(
                "jobs_stream_lag",
                "Entries that no worker has read; -1: Redis can't tell.",
                &["priority"],
            ),
            stream_pending: gauges(
                "jobs_stream_pending",
                "Entries that a worker has read and not acknowledged.",
                &["priority"],
            ),
            schedule_fires: counters(
                "jobs_schedule_fires_total",
                "Moments of schedules that this process fired; outcome busy: their serial key was, and nothing runs.",
                &["outcome"],
            ),
        }
    }

    /// How many claims succeeded, and how many seconds they took together.
    #[must_use]
    pub fn claims(&self) -> (u64, f64) {
        (
            self.claim_seconds.get_sample_count(),
            self.claim_seconds.get_sample_sum(),
        )
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
            claim_seconds,
            step_seconds,
            leases_lost,
            announced,
            swept,
            outbox_lag,
            depth,
            oldest,
            outbox_rows,
            outbox_oldest,
            stream_length,
            stream_lag,
            stream_pending,
            schedule_fires,
        } = self.clone();
        let all: [Box<dyn Collector>; 19] = [
            Box::new(claimed),
            Box::new(finished),
            Box::new(retried),
            Box::new(running),
            Box::new(claim_wait),
            Box::new(claim_seconds),
            Box::new(step_seconds),
            Box::new(leases_lost),
            Box::new(announced),
            Box::new(swept),
            Box::new(outbox_lag),
            Box::new(depth),
            Box::new(oldest),
            Box::new(outbox_rows),
            Box::new(outbox_oldest),
            Box::new(stream_length),
            Box::new(stream_lag),
            Box::new(stream_pending),
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

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("constant options are valid")
}

fn histogram(name: &str, help: &str) -> Histogram {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
        .expect("constant options are valid")
}
