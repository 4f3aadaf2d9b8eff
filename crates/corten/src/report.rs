//! The reporter: tells people what happened, without flooding and without holding anybody up.
//!
//! Equal reports about one Service within [`QUIET`] are told once. The queue is bounded; what does
//! not fit is dropped and counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use plan::config::{Finding, ObjectRef, Verdict};
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::sink::{Report, Sink};

/// How long an equal report is not repeated.
const QUIET: Duration = Duration::from_secs(10);
/// Reports that may wait.
const QUEUE: usize = 16_384;

/// Where tasks hand their reports in.
#[derive(Clone, Debug)]
pub struct Reporter {
    out: mpsc::Sender<Report>,
    dropped: IntCounter,
}

/// The receiving end.
#[derive(Debug)]
pub struct Reports {
    queue: mpsc::Receiver<Report>,
}

impl Reporter {
    /// A reporter and its receiving end.
    pub fn new(dropped: IntCounter) -> (Self, Reports) {
        let (out, queue) = mpsc::channel(QUEUE);
        (Self { out, dropped }, Reports { queue })
    }

    /// Hands a report in; never waits.
    pub fn report(&self, report: Report) {
        if report.warning {
            tracing::warn!(service = %report.service, reason = report.reason, "{}", report.message);
        } else {
            tracing::info!(service = %report.service, reason = report.reason, "{}", report.message);
        }
        if self.out.try_send(report).is_err() {
            self.dropped.inc();
            tracing::warn!(
                dropped = self.dropped.get(),
                "an event was not sent: too many wait"
            );
        }
    }
}

impl Reports {
    /// Sends reports until every reporter is gone.
    pub async fn run<K: Sink>(mut self, sink: K) {
        let mut told: HashMap<Report, Instant> = HashMap::new();
        while let Some(report) = self.queue.recv().await {
            let now = Instant::now();
            told.retain(|_, at| now.duration_since(*at) < QUIET);
            if told.contains_key(&report) {
                continue;
            }
            if let Err(error) = sink.report(&report).await {
                tracing::warn!(
                    service = %report.service,
                    error = &error as &dyn std::error::Error,
                    "event not sent"
                );
            }
            told.insert(report, now);
        }
    }
}

/// Logs a configuration object's verdict.
pub fn log_verdict(object: &ObjectRef, verdict: &Verdict) {
    let told = |finding: &Finding| format!("{}: {}", finding.field, finding.message);
    match verdict {
        Verdict::Good => tracing::info!(%object, "accepted"),
        Verdict::Warned(findings) => {
            for finding in findings {
                tracing::warn!(%object, remedy = %finding.remedy, "accepted, but {}", told(finding));
            }
        }
        Verdict::Bad {
            findings,
            last_good,
        } => {
            let then = if *last_good {
                "its last good form stays in force"
            } else {
                "left out"
            };
            for finding in findings {
                tracing::error!(%object, remedy = %finding.remedy, "{then}: {}", told(finding));
            }
        }
    }
}
