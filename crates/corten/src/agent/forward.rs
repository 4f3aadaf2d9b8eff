//! The forwarding executor: a thread of its own, because netlink blocks and another program's long
//! transaction can hold it up.

mod engine;
mod refusals;
mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dataplane::conntrack::Reconciler;
use dataplane::nft::{Look, Report};
use plan::forward::{Locality, Mode, PortKey, ServicePort, Serving};
use plan::net::{Family, Protocol};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::gate::Ports;
use crate::backoff::Backoff;
use crate::http::Metrics;
use crate::status::Health;

use engine::Engine;
pub(crate) use engine::{BackEnd, ForwardError};
pub(crate) use engine::{check, nft_words, words};
use refusals::Refusals;
use settling::{Settling, Which};

/// Jobs are handed out one at a time.
const QUEUE: usize = 1;
/// What comes back of one: what was refused, and that it is done.
const DONE: usize = 2;
/// Between two looks at endpoints that leave, whose connections IPVS lets go on.
const DRAIN: Duration = Duration::from_secs(5);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// How often it is looked whether others have changed our table, where they can.
const LOOK: Duration = Duration::from_millis(500);
/// Between two comparisons of all elements, while others write all the time: so long at least, and
/// so many times what one takes.
const REST: (Duration, u32) = (Duration::from_secs(3), 20);

/// Work for the executor.
#[derive(Debug)]
pub(super) enum Job {
    /// The whole table: adopt what the kernel has, mend the rest.
    Adopt(u64, Ports),
    /// Changes.
    Apply(u64, Ports),
    /// What the constant rules depend on, from the next job on.
    Locality(Locality),
}

/// What comes back.
#[derive(Debug)]
pub(super) enum Done {
    /// The job with this number is done.
    Job(u64),
    /// Service ports that are not, or not wholly, forwarded, with the reason: what is new of that.
    Refused(Vec<(PortKey, String)>),
}

type Started = (Option<mpsc::Sender<Job>>, mpsc::Receiver<Done>);

/// Opens the kernel's tables and starts the thread. When nothing is forwarded, what an agent has left
/// that did is taken away: it would win over the proxy that forwards now, and be ever staler.
pub(super) fn start(
    mode: Mode,
    back_end: BackEnd,
    health: Health,
    metrics: Metrics,
) -> Result<Started, ForwardError> {
    let (done_in, done) = mpsc::channel(DONE);
    if mode == Mode::Off {
        match engine::clear() {
            Ok(true) => tracing::info!("what an agent that forwarded had in the kernel is gone"),
            Ok(false) => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "what an agent that forwarded had in the kernel stays; `nft delete table inet corten` and `ip link delete corten-ipvs0` remove it"
            ),
        }
        return Ok((None, done));
    }
    // On a thread of its own: a runtime within a runtime cannot wait.
    let opened = std::thread::spawn(move || Engine::open(back_end)).join();
    let engine = opened.map_err(|_| std::io::Error::other("it panicked"))??;
    let (jobs_in, jobs) = mpsc::channel(QUEUE);
    // Forwarding is more than forgetting what was before: without it, it goes on.
    let reconciler = Reconciler::open();
    let executor = Executor {
        reconciler: reconciler.inspect_err(doubt).ok(),
        settling: Settling::default(),
        refusals: Refusals::default(),
        runtime: Handle::current(),
        engine,
        jobs,
        done: done_in,
        health,
        metrics,
        compare: Instant::now(),
        looked: Instant::now(),
        drained: Instant::now(),
        counted: 0,
    };
    // The thread ends with the planner: the channel closes.
    std::thread::Builder::new()
        .name("forward".to_owned())
        .spawn(|| executor.run())?;
    Ok((Some(jobs_in), done))
}

/// Removes what any agent of this node has left in the kernel. The thread must have no more work.
pub(super) async fn remove() -> Result<(), ForwardError> {
    let removed = tokio::task::spawn_blocking(engine::remove).await;
    removed.map_err(std::io::Error::other)??;
    tracing::info!("Corten is being removed: its nftables table and virtual servers are gone");
    Ok(())
}

fn doubt(error: &dataplane::conntrack::Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "UDP clients may go on sending to endpoints that are gone"
    );
}

struct Executor {
    reconciler: Option<Reconciler>,
    /// When UDP connections are to be looked at once more.
    settling: Settling,
    refusals: Refusals,
    runtime: Handle,
    engine: Engine,
    jobs: mpsc::Receiver<Job>,
    done: mpsc::Sender<Done>,
    health: Health,
    metrics: Metrics,
    /// When all elements may be compared again.
    compare: Instant,
    /// When it was looked last.
    looked: Instant,
    /// When endpoints that leave were looked at last.
    drained: Instant,
    /// What the kernel had counted of connections to node ports on the loopback.
    counted: u64,
}

impl Executor {
    fn run(mut self) {
        while let Some(job) = self.next() {
            let start = Instant::now();
            let (number, report) = match job {
                Job::Locality(locality) => {
                    self.engine.set_locality(locality);
                    continue;
                }
                Job::Adopt(number, ports) => {
                    let table: BTreeMap<PortKey, ServicePort> = ports
                        .into_iter()
                        .filter_map(|(key, port)| Some((key, port?)))
                        .collect();
                    let report = self.until_done(|engine| engine.adopt(&table));
                    for family in FAMILIES {
                        self.metrics.proxy.synced(family, start.elapsed(), true);
                    }
                    self.forget_everywhere(&FAMILIES);
                    (number, report)
                }
                Job::Apply(number, ports) => {
                    let changes: Vec<(PortKey, Option<ServicePort>)> = ports.into_iter().collect();
                    let report = self.until_done(|engine| engine.apply(&changes));
                    // Where ports claim the same, one that did not change may win or lose.
                    let named = self.refusals.count() == 0
                        && report.refused.is_empty()
                        && !report.rules_replaced;
                    for family in FAMILIES {
                        let keys = changes.iter().map(|(key, _)| key);
                        let mut keys = keys.filter(|key| key.family == family).peekable();
                        if keys.peek().is_some() {
                            self.metrics.proxy.synced(family, start.elapsed(), false);
                        }
                        let keys = keys.filter(|key| key.protocol == Protocol::Udp).cloned();
                        let keys: BTreeSet<PortKey> = keys.collect();
                        if !keys.is_empty() {
                            let serving = Serving::of(self.engine.table(), &keys, family);
                            self.forget(&serving, family);
                            let ports = if named {
                                Which::These(keys)
                            } else {
                                Which::All
                            };
                            self.settling.changed(family, ports, Instant::now());
                        }
                    }
                    (number, report)
                }
            };
            self.metrics
                .forward_elements
                .inc_by((report.added + report.removed) as u64);
            self.refused(&report);
            tracing::debug!(
                job = number,
                added = report.added,
                removed = report.removed,
                batches = report.batches,
                "forwarding is in place"
            );
            if let Some(news) = self.refusals.news() {
                if self.done.blocking_send(Done::Refused(news)).is_err() {
                    return;
                }
                self.refusals.told();
            }
            if self.done.blocking_send(Done::Job(number)).is_err() {
                return;
            }
        }
    }

    /// Takes in what is refused now.
    fn refused(&mut self, report: &Report) {
        self.refusals.set(&report.refused);
        let count = i64::try_from(self.refusals.count()).unwrap_or(i64::MAX);
        self.metrics.forward_refused.set(count);
    }

    /// Mends what others have done to the table.
    fn look(&mut self) {
        let look = match self.engine.look() {
            Ok(look) => look,
            Err(error) => {
                // As when nothing is known: what is there is read.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "it is not known what others did to {}",
                    self.engine.what()
                );
                Look::Uncertain
            }
        };
        let now = Instant::now();
        if look == Look::Untouched || (look == Look::Uncertain && now < self.compare) {
            return;
        }
        let report = self.until_done(Engine::check);
        self.compare = Instant::now() + REST.0.max(now.elapsed() * REST.1);
        self.metrics.forward_comparisons.inc();
        if !report.is_zero() {
            self.metrics.forward_repairs.inc();
            tracing::warn!(
                added = report.added,
                removed = report.removed,
                rules = report.rules_replaced,
                "another program changed {}; it is mended",
                self.engine.what()
            );
            // Meanwhile connections were not led where they should be.
            for family in FAMILIES {
                self.settling.changed(family, Which::All, Instant::now());
            }
        }
        self.refused(&report);
        // Without waiting: the planner may be waiting to hand out a job. What it has no room for is
        // told with that.
        if let Some(news) = self.refusals.news()
            && self.done.try_send(Done::Refused(news)).is_ok()
        {
            self.refusals.told();
        }
    }

    /// Tells what the kernel counts. It begins anew with new rules, but not with a new process.
    fn count(&mut self) {
        match self.engine.loopback_connections() {
            Ok(Some(counted)) => {
                let more = counted.checked_sub(self.counted).unwrap_or(counted);
                self.metrics.proxy.on_loopback.inc_by(more);
                self.counted = counted;
            }
            Ok(None) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "connections to the loopback cannot be counted");
            }
        }
    }

    /// The next job. Before it, and while none comes, others' changes are mended, and UDP connections
    /// looked at once more when that is due.
    fn next(&mut self) -> Option<Job> {
        loop {
            for (family, ports) in self.settling.due(Instant::now()) {
                match ports {
                    Which::These(keys) => {
                        let serving = Serving::of(self.engine.table(), &keys, family);
                        self.forget(&serving, family);
                    }
                    Which::All => self.forget_everywhere(&[family]),
                }
            }
            if self.looked.elapsed() >= LOOK {
                self.look();
                self.count();
                self.looked = Instant::now();
            }
            if self.engine.drains() && self.drained.elapsed() >= DRAIN {
                if let Err(error) = self.engine.tick() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "endpoints that leave cannot be looked at");
                }
                self.drained = Instant::now();
            }
            let rest = self.settling.rest(Instant::now());
            let wait = rest.map_or(LOOK, |rest| rest.min(LOOK));
            let next = async { tokio::time::timeout(wait, self.jobs.recv()).await };
            if let Ok(job) = self.runtime.block_on(next) {
                return job;
            }
        }
    }

    /// Forgets stale UDP connections to any port.
    fn forget_everywhere(&mut self, families: &[Family]) {
        for family in families {
            let table = self.engine.table();
            let keys = table.keys().map(|key| &**key);
            let serving = Serving::of(table, keys, *family);
            self.forget(&serving, *family);
        }
    }

    fn forget(&mut self, serving: &Serving, family: Family) {
        let Some(reconciler) = self.reconciler.as_mut().filter(|_| !serving.is_empty()) else {
            return;
        };
        let start = Instant::now();
        match reconciler.reconcile(serving, family) {
            Ok(deleted) => {
                let took = start.elapsed();
                self.metrics.proxy.reconciled(family, took, deleted);
                if deleted > 0 {
                    tracing::info!(deleted, %family, "UDP connections to endpoints that are gone");
                }
            }
            Err(error) => doubt(&error),
        }
    }

    /// Tries until it succeeds. After a failure the back end assumes nothing of the kernel's state:
    /// the next attempt reads it again.
    fn until_done(
        &mut self,
        attempt: impl Fn(&mut Engine) -> Result<Report, ForwardError>,
    ) -> Report {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match attempt(&mut self.engine) {
                Ok(report) => {
                    self.health.set_obstacle("forward", None);
                    return report;
                }
                Err(error) => {
                    self.metrics.proxy.failed();
                    self.health.set_obstacle("forward", Some(words(&error)));
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "forwarding could not be written; trying again"
                    );
                    std::thread::sleep(backoff.next());
                }
            }
        }
    }
}
