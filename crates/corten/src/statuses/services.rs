//! `ServiceL2Status`: exactly one for each Service that this node announces.
//!
//! Only what is really announced is put up. Whoever takes a Service over deletes the objects of
//! other nodes at that moment, and once more when its own was deleted later: another node may have
//! taken over and died before this one heard of it. Afterwards each node minds its own objects
//! alone, so two nodes that both think themselves elected do not go on deleting each other's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use api::annotations::{LABEL_SERVICE_NAME, LABEL_SERVICE_NAMESPACE};
use api::metallb::{ServiceL2Status, ServiceL2StatusStatus};
use api::object::Object;
use plan::name::{Name, ServiceKey};
use plan::status::l2_status;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::sink::WriteError;
use crate::sink::board::Board;
use crate::source::kube::Seen;

/// Jobs under way at the same time.
const IN_FLIGHT: usize = 8;
/// How long an own object that somebody deleted is not made anew: mostly it was another node,
/// which takes the Service over, and this node is about to hear of that.
const HOLD: Duration = Duration::from_secs(2);
/// Bounds of the time between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What the planner says.
#[derive(Debug)]
pub(crate) enum Told {
    /// The interfaces that a Service is announced on from now on, empty for all; `None`: it is not
    /// announced here.
    Announced(ServiceKey, Option<Vec<Name>>),
    /// Whatever an earlier process announced and this one would too, has been told.
    Settled,
}

/// One Service's turn: what to bring about.
#[derive(Debug)]
struct Job {
    service: ServiceKey,
    wanted: Option<ServiceL2StatusStatus>,
    /// Own objects, as last seen.
    own: BTreeMap<String, ServiceL2StatusStatus>,
    /// Delete other nodes' objects.
    take_over: bool,
}

/// What came of a job.
#[derive(Debug)]
struct Done {
    service: ServiceKey,
    /// Own objects as the job found them.
    before: BTreeMap<String, ServiceL2StatusStatus>,
    /// And as it left them.
    own: BTreeMap<String, ServiceL2StatusStatus>,
    took_over: bool,
    result: Result<(), WriteError>,
}

/// What is known of a Service.
#[derive(Debug, Default)]
struct Known {
    wanted: Option<ServiceL2StatusStatus>,
    own: BTreeMap<String, ServiceL2StatusStatus>,
    /// Other nodes' objects were deleted since this node began to announce it.
    taken_over: bool,
    /// And once more, since somebody deleted this node's.
    taken_again: bool,
    busy: bool,
    /// Own objects that went while a job was under way.
    gone: BTreeSet<String>,
    not_before: Option<Instant>,
    backoff: Option<Backoff>,
}

impl Known {
    /// What is there is what should be.
    fn is_right(&self) -> bool {
        match &self.wanted {
            None => self.own.is_empty(),
            Some(wanted) => {
                self.taken_over && self.own.len() == 1 && self.own.values().eq([wanted])
            }
        }
    }
}

/// The Services with a word to say, and what is to do.
#[derive(Debug, Default)]
struct Services {
    node: String,
    known: HashMap<ServiceKey, Known>,
    due: BTreeSet<ServiceKey>,
    /// Due at their time.
    held: BTreeSet<(Instant, ServiceKey)>,
    /// Due once it is clear what is announced.
    later: BTreeSet<ServiceKey>,
    /// Which Service an own object is for.
    objects: HashMap<String, ServiceKey>,
    listed: bool,
    settled: bool,
}

/// Runs until the planner ends.
pub(crate) async fn run(board: Board, node: Name, mut told: mpsc::Receiver<Told>) {
    let mut seen = board.watch_l2(&node);
    let mut services = Services {
        node: node.to_string(),
        ..Services::default()
    };
    let mut flying: JoinSet<Done> = JoinSet::new();
    loop {
        let mut wake = None;
        while flying.len() < IN_FLIGHT {
            match services.next(Instant::now()) {
                Next::Job(job) => {
                    flying.spawn(work(board.clone(), node.clone(), job));
                }
                Next::At(at) => {
                    wake = Some(at);
                    break;
                }
                Next::Nothing => break,
            }
        }
        let at = wake.unwrap_or_else(Instant::now);
        tokio::select! {
            said = told.recv() => match said {
                None => return,
                Some(said) => services.told(said),
            },
            found = seen.next() => match found {
                None => return,
                Some(found) => services.seen(found, Instant::now()),
            },
            Some(done) = flying.join_next() => match done {
                Ok(done) => services.done(done, Instant::now()),
                Err(error) => {
                    tracing::error!(%error, "a ServiceL2Status task failed");
                    return;
                }
            },
            () = tokio::time::sleep_until(at.into()), if wake.is_some() => {}
        }
    }
}

/// What to do next.
#[derive(Debug)]
enum Next {
    Job(Job),
    /// Nothing before that.
    At(Instant),
    Nothing,
}

impl Services {
    fn told(&mut self, told: Told) {
        match told {
            Told::Settled => {
                self.settled = true;
                self.due.append(&mut self.later);
            }
            Told::Announced(service, interfaces) => {
                let known = self.known.entry(service.clone()).or_default();
                known.wanted =
                    interfaces.map(|interfaces| l2_status(&service, &self.node, &interfaces));
                if known.wanted.is_none() {
                    known.taken_over = false;
                    known.taken_again = false;
                    known.not_before = None;
                }
                self.due.insert(service);
            }
        }
    }

    fn seen(&mut self, seen: Seen, now: Instant) {
        match seen {
            Seen::Listed => self.listed = true,
            Seen::Applied(Object::ServiceL2Status(object)) => {
                let service = service_of(&object);
                let name = object.metadata.name;
                self.objects.insert(name.clone(), service.clone());
                let known = self.known.entry(service.clone()).or_default();
                known.own.insert(name, object.status);
                self.due.insert(service);
            }
            Seen::Gone(Object::ServiceL2Status(object)) => {
                let name = &object.metadata.name;
                let Some(service) = self.objects.remove(name) else {
                    return;
                };
                if let Some(known) = self.known.get_mut(&service) {
                    known.own.remove(name);
                    if known.busy {
                        known.gone.insert(name.clone());
                    }
                    if known.wanted.is_some() {
                        known.not_before = Some(now + HOLD);
                        known.taken_over &= known.taken_again;
                        known.taken_again = true;
                    }
                    self.due.insert(service);
                }
            }
            Seen::Applied(_) | Seen::Gone(_) => {}
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        let Some(known) = self.known.get_mut(&done.service) else {
            return;
        };
        known.busy = false;
        let gone = std::mem::take(&mut known.gone);
        for name in done.before.keys() {
            if !done.own.contains_key(name) {
                known.own.remove(name);
            }
        }
        for (name, status) in done.own {
            // What the watch said meanwhile is newer, or will be put right by another job.
            if !gone.contains(&name) && known.own.get(&name) == done.before.get(&name) {
                self.objects.insert(name.clone(), done.service.clone());
                known.own.insert(name, status);
            }
        }
        known.taken_over |= done.took_over && known.wanted.is_some();
        match done.result {
            Ok(()) => known.backoff = None,
            Err(error) => {
                if !matches!(error, WriteError::Outdated) {
                    tracing::warn!(
                        service = %done.service,
                        error = &error as &dyn std::error::Error,
                        "ServiceL2Status not written; trying again"
                    );
                }
                let backoff = known
                    .backoff
                    .get_or_insert_with(|| Backoff::new(RETRY.0, RETRY.1));
                known.not_before = Some(now + backoff.next());
            }
        }
        self.due.insert(done.service);
    }

    /// The next job. Nothing is done before all own objects are known, and nothing that an earlier
    /// process put up is deleted before it is clear what this one announces.
    fn next(&mut self, now: Instant) -> Next {
        if !self.listed {
            return Next::Nothing;
        }
        while let Some((at, _)) = self.held.first()
            && *at <= now
        {
            self.due
                .extend(self.held.pop_first().map(|(_, service)| service));
        }
        while let Some(service) = self.due.pop_first() {
            let Some(known) = self.known.get_mut(&service) else {
                continue;
            };
            if known.busy {
                // It is looked at again when the job is done.
            } else if known.is_right() {
                if known.wanted.is_none() {
                    self.known.remove(&service);
                }
            } else if known.wanted.is_none() && !self.settled {
                self.later.insert(service);
            } else if let Some(at) = known.not_before.filter(|at| *at > now) {
                self.held.insert((at, service));
            } else {
                known.busy = true;
                return Next::Job(Job {
                    wanted: known.wanted.clone(),
                    own: known.own.clone(),
                    take_over: !known.taken_over,
                    service,
                });
            }
        }
        let first = self.held.first();
        first.map_or(Next::Nothing, |(at, _)| Next::At(*at))
    }
}

/// The Service that an object is for: by its labels, as its status may not be written yet.
fn service_of(object: &ServiceL2Status) -> ServiceKey {
    let label = |key: &str| object.metadata.labels.get(key).map_or("", String::as_str);
    ServiceKey::new(label(LABEL_SERVICE_NAMESPACE), label(LABEL_SERVICE_NAME))
}

async fn work(board: Board, node: Name, job: Job) -> Done {
    let mut done = Done {
        service: job.service.clone(),
        before: job.own.clone(),
        own: job.own.clone(),
        took_over: false,
        result: Ok(()),
    };
    done.result = bring_about(&board, &node, &job, &mut done.own).await;
    done.took_over = job.take_over && job.wanted.is_some() && done.result.is_ok();
    done
}

/// Brings the objects of one Service in line; `own` says what this node's are afterwards.
async fn bring_about(
    board: &Board,
    node: &str,
    job: &Job,
    own: &mut BTreeMap<String, ServiceL2StatusStatus>,
) -> Result<(), WriteError> {
    let mut kept = None;
    if let Some(wanted) = &job.wanted {
        // One with this node and Service in its status, or none yet: those fields cannot change.
        let fits = |status: &ServiceL2StatusStatus| {
            status.node.is_empty()
                || (status.node == wanted.node
                    && status.service_name == wanted.service_name
                    && status.service_namespace == wanted.service_namespace)
        };
        let found = own.iter().find(|(_, status)| fits(status));
        let name = match found.map(|(name, _)| name.clone()) {
            Some(name) => name,
            None => {
                let name = board.create_l2(node, &job.service).await?;
                own.insert(name.clone(), ServiceL2StatusStatus::default());
                name
            }
        };
        if own.get(&name) != Some(wanted) {
            match board.write_l2(&name, wanted).await {
                Ok(()) => {
                    own.insert(name.clone(), wanted.clone());
                }
                Err(error) => {
                    // It was deleted meanwhile: the next try makes a new one.
                    if matches!(error, WriteError::Outdated) {
                        own.remove(&name);
                    }
                    return Err(error);
                }
            }
        }
        kept = Some(name);
    }
    let extra: Vec<String> = own
        .keys()
        .filter(|name| Some(*name) != kept.as_ref())
        .cloned()
        .collect();
    for name in extra {
        board.delete_l2(&name).await?;
        own.remove(&name);
    }
    if job.take_over && job.wanted.is_some() {
        for name in board.others_l2(node, &job.service).await? {
            board.delete_l2(&name).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
