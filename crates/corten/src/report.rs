//! The reporter: tells people what happened, without flooding and without holding anybody up.
//!
//! Reports about one Service are told in their order, those about several at the same time. While
//! the sink does not take them they wait; the queues are bounded, and what does not fit is dropped
//! and counted. The controller decides again and again about a Service that it cannot serve, so
//! its report is not repeated within [`QUIET`]; an agent reports only what has changed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use plan::config::{Finding, ObjectRef, Verdict};
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::sink::{Component, Report, Sink, Subject, WriteError};

/// How long the controller does not repeat what it said last about a Service.
const QUIET: Duration = Duration::from_secs(10);
/// Reports on their way at the same time.
const LANES: usize = 8;
/// Reports that may wait in one lane.
const QUEUE: usize = 2048;
/// With so many Services known in one lane, those told of too long ago to matter are forgotten; with
/// twice as many as stayed then, again.
const SWEEP: usize = 1024;

/// A report and its moment.
type Timed = (Report, SystemTime);

/// Where tasks hand their reports in.
#[derive(Clone, Debug)]
pub struct Reporter {
    lanes: Vec<mpsc::Sender<Timed>>,
    hasher: RandomState,
    dropped: IntCounter,
}

/// The receiving end.
#[derive(Debug)]
pub struct Reports {
    lanes: Vec<mpsc::Receiver<Timed>>,
}

impl Reporter {
    /// A reporter and its receiving end.
    pub fn new(dropped: IntCounter) -> (Self, Reports) {
        let (senders, lanes) = (0..LANES).map(|_| mpsc::channel(QUEUE)).unzip();
        let reporter = Self {
            lanes: senders,
            hasher: RandomState::new(),
            dropped,
        };
        (reporter, Reports { lanes })
    }

    /// Hands a report in; never waits.
    pub fn report(&self, report: Report) {
        if report.warning {
            tracing::warn!(about = %report.about, reason = report.reason, "{}", report.message);
        } else {
            tracing::info!(about = %report.about, reason = report.reason, "{}", report.message);
        }
        // One Service, one lane: that keeps the order.
        let lane = self.hasher.hash_one(&report.about) as usize % LANES;
        let taken = self
            .lanes
            .get(lane)
            .is_some_and(|lane| lane.try_send((report, SystemTime::now())).is_ok());
        if !taken {
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
    pub async fn run<K: Sink>(self, sink: K) {
        join_all(self.lanes.into_iter().map(|lane| drain(lane, sink.clone()))).await;
    }
}

/// Sends the reports of one lane in their order.
async fn drain<K: Sink>(mut lane: mpsc::Receiver<Timed>, sink: K) {
    let mut last: HashMap<Subject, (Report, Instant)> = HashMap::new();
    let mut sweep = SWEEP;
    while let Some((report, at)) = lane.recv().await {
        if last.len() >= sweep {
            last.retain(|_, (_, told)| told.elapsed() < QUIET);
            sweep = SWEEP.max(2 * last.len());
        }
        if report.component == Component::Controller {
            let now = Instant::now();
            let repeats = last
                .get(&report.about)
                .is_some_and(|(last, told)| *last == report && now.duration_since(*told) < QUIET);
            if repeats {
                continue;
            }
            last.insert(report.about.clone(), (report.clone(), now));
        }
        send(&sink, &report, at).await;
    }
}

/// Sends one report; tries again while that may help.
async fn send<K: Sink>(sink: &K, report: &Report, at: SystemTime) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let Err(error) = sink.report(report, at).await else {
            return;
        };
        let again = matches!(error, WriteError::Failed(_));
        tracing::warn!(
            about = %report.about,
            reason = report.reason,
            again,
            error = &error as &dyn std::error::Error,
            "event not sent"
        );
        if !again {
            return;
        }
        tokio::time::sleep(backoff.next()).await;
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use api::corten::v1alpha1::NodeStateStatus;
    use plan::name::ServiceKey;

    use super::*;
    use crate::sink::ServiceWrite;

    /// Fails the first time; remembers the rest.
    #[derive(Clone, Default)]
    struct Listener(Arc<Mutex<(bool, Vec<String>)>>);

    impl Sink for Listener {
        async fn write_service(&self, _: &ServiceWrite) -> Result<(), WriteError> {
            Ok(())
        }

        async fn forget_service(&self, _: &ServiceKey) -> Result<(), WriteError> {
            Ok(())
        }

        async fn report(&self, report: &Report, _: SystemTime) -> Result<(), WriteError> {
            let mut heard = self.0.lock().unwrap();
            if !std::mem::replace(&mut heard.0, true) {
                return Err(WriteError::Failed("away".into()));
            }
            heard.1.push(report.message.clone());
            Ok(())
        }

        async fn keep(
            &self,
            _: &api::corten::v1alpha1::AcceptedConfigSpec,
        ) -> Result<(), WriteError> {
            Ok(())
        }

        async fn publish(&self, _: &str, _: &NodeStateStatus) -> Result<(), WriteError> {
            Ok(())
        }
    }

    /// What a listener hears of these messages about one Service.
    async fn heard(component: Component, messages: &[&str]) -> Vec<String> {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (reporter, reports) = Reporter::new(dropped);
        for message in messages {
            reporter.report(Report {
                component,
                about: Subject::Service {
                    key: ServiceKey::new("default", "web"),
                    uid: "1".into(),
                },
                warning: false,
                reason: "Told",
                message: (*message).to_owned(),
            });
        }
        drop(reporter);
        let listener = Listener::default();
        reports.run(listener.clone()).await;
        listener.0.lock().unwrap().1.clone()
    }

    #[tokio::test]
    async fn the_controller_is_not_quoted_twice_in_a_row() {
        let told = heard(Component::Controller, &["a", "a", "b", "a", "a"]).await;
        assert_eq!(told, ["a", "b", "a"]);
    }

    #[tokio::test]
    async fn an_agent_that_gets_an_address_back_says_so_again() {
        let told = heard(Component::Speaker, &["mine", "mine"]).await;
        assert_eq!(told, ["mine", "mine"]);
    }
}
