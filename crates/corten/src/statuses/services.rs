//! `ServiceL2Status` and `ServiceBGPStatus`: exactly one for each Service that this node announces
//! in layer 2, or by BGP.
//!
//! Only what is really announced is put up. In layer 2 one node alone announces a Service: whoever
//! takes a Service over deletes the objects of other nodes at that moment, and once more when its
//! own was deleted later: another node may have taken over and died before this one heard of it.
//! Afterwards each node minds its own objects alone, so two nodes that both think themselves elected
//! do not go on deleting each other's.

use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::annotations::{LABEL_SERVICE_NAME, LABEL_SERVICE_NAMESPACE};
use api::meta::ObjectMeta;
use plan::name::{Name, ServiceKey};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::sink::WriteError;
use crate::sink::board::Board;
use crate::source::kube::Seen;

mod own;
mod word;

use own::{Own, Says};
pub(crate) use word::Word;

/// Jobs under way at the same time.
const IN_FLIGHT: usize = 8;
/// How long an own object that somebody deleted is not made anew: mostly it was another node,
/// which takes the Service over, and this node is about to hear of that.
const HOLD: Duration = Duration::from_secs(2);
/// Bounds of the time between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What is to be said of a Service besides its name and the node's: the names of interfaces or
/// peers, in order.
pub(crate) type List = Arc<[Name]>;

/// What the planner says.
#[derive(Debug)]
pub(crate) enum Told {
    /// What is to be said of a Service from now on; `None`: it is not announced here.
    Announced(ServiceKey, Option<List>),
    /// Whatever an earlier process announced and this one would too, has been told.
    Settled,
}

/// One Service's turn: what to bring about.
#[derive(Debug)]
struct Job {
    service: ServiceKey,
    wanted: Option<List>,
    /// Own objects, as last seen.
    own: Own,
    /// Delete other nodes' objects.
    take_over: bool,
}

/// What came of a job.
#[derive(Debug)]
struct Done {
    service: ServiceKey,
    /// Own objects as the job found them.
    before: Own,
    /// And as it left them.
    own: Own,
    took_over: bool,
    result: Result<(), WriteError>,
}

/// What is known of a Service.
#[derive(Debug, Default)]
struct Known {
    wanted: Option<List>,
    own: Own,
    /// Other nodes' objects were deleted since this node began to announce it.
    taken_over: bool,
    /// And once more, since somebody deleted this node's.
    taken_again: bool,
    busy: bool,
    /// Own objects that went while a job was under way.
    gone: Vec<Arc<str>>,
    not_before: Option<Instant>,
    backoff: Option<Box<Backoff>>,
}

impl Known {
    /// What is there is what should be. `alone`: no other node may have an object.
    fn is_right(&self, alone: bool) -> bool {
        match &self.wanted {
            None => self.own.is_empty(),
            Some(wanted) => {
                let says = self.own.iter().map(|(_, says)| *says);
                (self.taken_over || !alone) && says.eq([print(wanted)])
            }
        }
    }
}

/// What an object is to say.
fn print(wanted: &List) -> Says {
    Says::list(wanted.iter().map(|name| &**name))
}

/// The Services with a word to say, and what is to do.
#[derive(Debug)]
struct Services<S> {
    node: Name,
    known: HashMap<ServiceKey, Known>,
    due: BTreeSet<ServiceKey>,
    /// Due at their time.
    held: BTreeSet<(Instant, ServiceKey)>,
    /// Due once it is clear what is announced.
    later: BTreeSet<ServiceKey>,
    /// Which Service an own object is for.
    objects: HashMap<Arc<str>, ServiceKey>,
    listed: bool,
    settled: bool,
    kind: PhantomData<fn() -> S>,
}

/// Runs until the planner ends.
pub(crate) async fn run<S: Word>(board: Board, node: Name, mut told: mpsc::Receiver<Told>) {
    let mut seen = board.watch_words::<S>(&node);
    let mut services = Services::<S>::new(node.clone());
    let mut flying: JoinSet<Done> = JoinSet::new();
    loop {
        let mut wake = None;
        while flying.len() < IN_FLIGHT {
            match services.next(Instant::now()) {
                Next::Job(job) => {
                    flying.spawn(work::<S>(board.clone(), node.clone(), job));
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
                    let kind = <S::Object as api::Kind>::KIND;
                    tracing::error!(%error, "a {kind} task failed");
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

impl<S: Word> Services<S> {
    fn new(node: Name) -> Self {
        Self {
            node,
            known: HashMap::new(),
            due: BTreeSet::new(),
            held: BTreeSet::new(),
            later: BTreeSet::new(),
            objects: HashMap::new(),
            listed: false,
            settled: false,
            kind: PhantomData,
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Settled => {
                self.settled = true;
                self.due.append(&mut self.later);
            }
            Told::Announced(service, wanted) => {
                let known = self.known.entry(service.clone()).or_default();
                known.wanted = wanted;
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
            Seen::Applied(object) => {
                let Some((metadata, status)) = S::read(object) else {
                    return;
                };
                let mut service = service_of(&metadata);
                if let Some((known, _)) = self.known.get_key_value(&service) {
                    service = known.clone();
                }
                let name: Arc<str> = metadata.name.into();
                self.objects.insert(name.clone(), service.clone());
                let says = Says::of(&status, &self.node, &service);
                let known = self.known.entry(service.clone()).or_default();
                known.own.insert(name, says);
                self.due.insert(service);
            }
            Seen::Gone(object) => {
                let Some((ObjectMeta { name, .. }, _)) = S::read(object) else {
                    return;
                };
                let Some((name, service)) = self.objects.remove_entry(&*name) else {
                    return;
                };
                if let Some(known) = self.known.get_mut(&service) {
                    known.own.remove(&name);
                    if known.busy {
                        known.gone.push(name);
                    }
                    if known.wanted.is_some() {
                        known.not_before = Some(now + HOLD);
                        known.taken_over &= known.taken_again;
                        known.taken_again = true;
                    }
                    self.due.insert(service);
                }
            }
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        let Some(known) = self.known.get_mut(&done.service) else {
            return;
        };
        known.busy = false;
        let gone = std::mem::take(&mut known.gone);
        for (name, _) in done.before.iter() {
            if done.own.get(name).is_none() {
                known.own.remove(name);
            }
        }
        for (name, says) in done.own.iter() {
            // What the watch said meanwhile is newer, or will be put right by another job.
            if !gone.contains(name) && known.own.get(name) == done.before.get(name) {
                self.objects.insert(name.clone(), done.service.clone());
                known.own.insert(name.clone(), *says);
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
                        "{} not written; trying again",
                        <S::Object as api::Kind>::KIND
                    );
                }
                let backoff = known
                    .backoff
                    .get_or_insert_with(|| Box::new(Backoff::new(RETRY.0, RETRY.1)));
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
            } else if known.is_right(S::ALONE) {
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
                    take_over: S::ALONE && !known.taken_over,
                    service,
                });
            }
        }
        let first = self.held.first();
        first.map_or(Next::Nothing, |(at, _)| Next::At(*at))
    }
}

/// The Service that an object is for: by its labels, as its status may not be written yet.
fn service_of(metadata: &ObjectMeta) -> ServiceKey {
    let label = |key: &str| metadata.labels.get(key).map_or("", String::as_str);
    ServiceKey::new(label(LABEL_SERVICE_NAMESPACE), label(LABEL_SERVICE_NAME))
}

async fn work<S: Word>(board: Board, node: Name, job: Job) -> Done {
    let mut done = Done {
        service: job.service.clone(),
        before: job.own.clone(),
        own: job.own.clone(),
        took_over: false,
        result: Ok(()),
    };
    done.result = bring_about::<S>(&board, &node, &job, &mut done.own).await;
    done.took_over = job.take_over && job.wanted.is_some() && done.result.is_ok();
    done
}

/// Brings the objects of one Service in line; `own` says what this node's are afterwards.
async fn bring_about<S: Word>(
    board: &Board,
    node: &str,
    job: &Job,
    own: &mut Own,
) -> Result<(), WriteError> {
    let mut kept = None;
    if let Some(wanted) = &job.wanted {
        let fits = |(_, says): &&(Arc<str>, Says)| *says != Says::OfOthers;
        let found = own.iter().find(fits).map(|(name, _)| name.clone());
        let name = match found {
            Some(name) => name,
            None => {
                let name: Arc<str> = board.create_word::<S>(node, &job.service).await?.into();
                own.insert(name.clone(), Says::Nothing);
                name
            }
        };
        let says = print(wanted);
        if own.get(&name) != Some(says) {
            let status = S::of(&job.service, node, wanted);
            match board.write_word(&name, &status).await {
                Ok(()) => own.insert(name.clone(), says),
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
    let names = own.iter().map(|(name, _)| name.clone());
    let extra: Vec<Arc<str>> = names.filter(|name| Some(name) != kept.as_ref()).collect();
    for name in extra {
        board.delete_word::<S>(&name).await?;
        own.remove(&name);
    }
    if job.take_over && job.wanted.is_some() {
        for name in board.other_words::<S>(node, &job.service).await? {
            board.delete_word::<S>(&name).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
