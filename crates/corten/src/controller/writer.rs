//! Sends status writes: a bounded number at a time, the newest form of each Service only, and none
//! after the deadline of the leadership.
//!
//! An address that goes from one Service to another leaves the first one's status before it enters
//! the other's: whoever reads the statuses, a successor after a crash among them, never sees it
//! given twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use plan::name::ServiceKey;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::elector::Deadline;
use crate::backoff::Backoff;
use crate::sink::{ServiceWrite, Sink, WriteError};

/// What the planner asks for.
#[derive(Debug)]
pub(super) enum Write {
    /// A status, and the addresses that it takes out of the status that is there.
    Service(ServiceWrite, Vec<IpAddr>),
    /// The Service is gone.
    Forget(ServiceKey),
}

impl Write {
    const fn service(&self) -> &ServiceKey {
        match self {
            Self::Service(write, _) => &write.service,
            Self::Forget(service) => service,
        }
    }

    fn takes(&self) -> &[IpAddr] {
        match self {
            Self::Service(write, _) => &write.ingress,
            Self::Forget(_) => &[],
        }
    }

    fn gives_up(&self) -> &[IpAddr] {
        match self {
            Self::Service(_, gives_up) => gives_up,
            Self::Forget(_) => &[],
        }
    }
}

/// How a write ended.
enum Sent {
    /// It arrived, or it is not to be sent again.
    Done(Write),
    /// It may succeed later.
    Failed(Failed),
}

/// A write that failed, and how often it has.
struct Failed {
    write: Write,
    backoff: Backoff,
}

/// What waits, in the order in which it came, the newest form of each Service only; and what is on
/// its way or rests after a failure.
#[derive(Default)]
struct Queue {
    waiting: BTreeMap<u64, (Write, Option<Backoff>)>,
    place: HashMap<ServiceKey, u64>,
    /// A Service is written by one write at a time.
    busy: HashSet<ServiceKey>,
    resting: BTreeMap<(Instant, u64), Failed>,
    /// Addresses that writes which have not arrived yet take out of a status.
    leaving: BTreeMap<IpAddr, HashSet<ServiceKey>>,
    next: u64,
}

impl Queue {
    /// A newer form takes the older one's place in the queue.
    fn push(&mut self, write: Write, backoff: Option<Backoff>) {
        let next = &mut self.next;
        let number = *self
            .place
            .entry(write.service().clone())
            .or_insert_with(|| {
                *next += 1;
                *next
            });
        for address in write.gives_up() {
            let leaving = self.leaving.entry(*address).or_default();
            leaving.insert(write.service().clone());
        }
        self.waiting.insert(number, (write, backoff));
    }

    /// A write of `service` that gives up these addresses has arrived, or will never.
    fn ended(&mut self, service: &ServiceKey, gave_up: &[IpAddr]) {
        self.busy.remove(service);
        let newer = self
            .place
            .get(service)
            .and_then(|place| self.waiting.get(place))
            .map_or_else(Vec::new, |(write, _)| write.gives_up().to_vec());
        // A newer form that gives it up too has it to do still.
        for address in gave_up.iter().filter(|address| !newer.contains(address)) {
            self.left(service, *address);
        }
    }

    /// `address` is not in the status of `service` any more, or stays there.
    fn left(&mut self, service: &ServiceKey, address: IpAddr) {
        if let Some(leaving) = self.leaving.get_mut(&address) {
            leaving.remove(service);
            if leaving.is_empty() {
                self.leaving.remove(&address);
            }
        }
    }

    /// Whether the write takes an address that is still in another Service's status.
    fn too_early(&self, write: &Write) -> bool {
        let mut taken = write.takes().iter().filter_map(|ip| self.leaving.get(ip));
        taken.any(|leaving| leaving.iter().any(|other| other != write.service()))
    }

    /// The next write that may be sent; its Service is busy from now on.
    fn pop(&mut self) -> Option<(Write, Option<Backoff>)> {
        let mut idle = self
            .waiting
            .iter()
            .filter(|(_, (write, _))| !self.busy.contains(write.service()));
        let ready = idle.clone().find(|(_, (write, _))| !self.too_early(write));
        // Services that change places wait for each other: one of them has to begin.
        let begins = || idle.next().filter(|_| self.busy.is_empty());
        let ready = ready.or_else(begins).map(|(number, _)| *number)?;
        let (write, backoff) = self.waiting.remove(&ready)?;
        self.place.remove(write.service());
        self.busy.insert(write.service().clone());
        Some((write, backoff))
    }

    /// A failed write rests, out of the others' way.
    fn rest(&mut self, mut failed: Failed, now: Instant) {
        self.next += 1;
        let until = now + failed.backoff.next();
        self.resting.insert((until, self.next), failed);
    }

    /// A newer form of `service` comes: what waits or rests of it is void.
    fn supersede(&mut self, service: &ServiceKey) {
        let waiting = self
            .place
            .get(service)
            .and_then(|place| self.waiting.get(place));
        let mut void: Vec<IpAddr> =
            waiting.map_or_else(Vec::new, |(write, _)| write.gives_up().to_vec());
        self.resting.retain(|_, failed| {
            let stays = failed.write.service() != service;
            if !stays {
                void.extend_from_slice(failed.write.gives_up());
            }
            stays
        });
        for address in void {
            self.left(service, address);
        }
    }

    /// When the first of the resting writes has rested enough.
    fn rested_at(&self) -> Option<Instant> {
        self.resting.keys().next().map(|(until, _)| *until)
    }

    /// Puts what has rested back, unless a newer form waits or is on its way.
    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let Failed { write, backoff } = entry.remove();
            if !self.place.contains_key(write.service()) && !self.busy.contains(write.service()) {
                self.push(write, Some(backoff));
            }
        }
    }
}

/// Runs until the planner ends.
pub(super) async fn run<K: Sink>(
    sink: K,
    mut writes: mpsc::Receiver<Write>,
    leads_until: watch::Receiver<Deadline>,
) {
    let mut queue = Queue::default();
    let mut flying: JoinSet<Sent> = JoinSet::new();
    loop {
        while flying.len() < K::IN_FLIGHT {
            let Some((write, backoff)) = queue.pop() else {
                break;
            };
            flying.spawn(send(sink.clone(), write, backoff, leads_until.clone()));
        }
        let rested = queue.rested_at();
        let until = rested.unwrap_or_else(Instant::now);
        tokio::select! {
            write = writes.recv() => {
                let Some(write) = write else { return };
                // What rests of this Service is older.
                queue.supersede(write.service());
                queue.push(write, None);
            }
            Some(done) = flying.join_next() => match done {
                Ok(Sent::Done(write)) => queue.ended(write.service(), write.gives_up()),
                Ok(Sent::Failed(failed)) if queue.place.contains_key(failed.write.service()) => {
                    queue.ended(failed.write.service(), failed.write.gives_up());
                }
                Ok(Sent::Failed(failed)) => {
                    queue.busy.remove(failed.write.service());
                    queue.rest(failed, Instant::now());
                }
                Err(error) => {
                    tracing::error!(%error, "a write task failed");
                    return;
                }
            },
            () = tokio::time::sleep_until(until.into()), if rested.is_some() => {
                queue.wake(Instant::now());
            }
        }
    }
}

/// Sends one write.
async fn send<K: Sink>(
    sink: K,
    write: Write,
    backoff: Option<Backoff>,
    leads_until: watch::Receiver<Deadline>,
) -> Sent {
    if !leads_until.borrow().allows(Instant::now()) {
        return Sent::Done(write);
    }
    let result = match &write {
        Write::Service(write, _) => sink.write_service(write).await,
        Write::Forget(service) => sink.forget_service(service).await,
    };
    match result {
        Ok(()) => Sent::Done(write),
        Err(WriteError::Outdated) => {
            // The newer form is on its way through the source and is decided on anew.
            tracing::debug!(service = %write.service(), "status write was outdated");
            Sent::Done(write)
        }
        // Refused too: what the API server says no to today it may accept when it is mended, and
        // nobody would ask again.
        Err(error) => {
            tracing::warn!(
                service = %write.service(),
                error = &error as &dyn std::error::Error,
                "status write failed; trying again"
            );
            let backoff = backoff.unwrap_or_else(|| {
                Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
            });
            Sent::Failed(Failed { write, backoff })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    use api::corten::v1alpha1::NodeStateStatus;

    use super::*;
    use crate::sink::Report;

    /// Fails for the Service `bad` as long as its form is `old`; remembers what was asked.
    #[derive(Clone, Default)]
    struct Moody(Arc<Mutex<Vec<String>>>);

    impl Sink for Moody {
        async fn write_service(&self, write: &ServiceWrite) -> Result<(), WriteError> {
            let asked = format!("{} {}", write.service.name, write.resource_version);
            let fails = asked == "bad old";
            self.0.lock().unwrap().push(asked);
            if fails {
                return Err(WriteError::Failed("away".into()));
            }
            Ok(())
        }

        async fn forget_service(&self, _: &ServiceKey) -> Result<(), WriteError> {
            Ok(())
        }

        async fn report(&self, _: &Report, _: SystemTime) -> Result<(), WriteError> {
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

    fn write(name: &str, version: &str) -> Write {
        Write::Service(
            ServiceWrite {
                service: ServiceKey::new("default", name),
                resource_version: version.into(),
                ingress: Vec::new(),
                pool: None,
            },
            Vec::new(),
        )
    }

    /// A write that moves a Service from one address to another.
    fn moves(name: &str, from: &str, to: &str) -> Write {
        let list = |text: &str| {
            text.split_whitespace()
                .map(|ip| ip.parse().unwrap())
                .collect()
        };
        match write(name, from) {
            Write::Service(write, _) => {
                let ingress = list(to);
                Write::Service(ServiceWrite { ingress, ..write }, list(from))
            }
            forget @ Write::Forget(_) => forget,
        }
    }

    fn popped(queue: &mut Queue) -> Option<Write> {
        queue.pop().map(|(write, _)| write)
    }

    fn name(write: Option<&Write>) -> &str {
        write.map_or("", |write| &write.service().name)
    }

    #[test]
    fn an_address_leaves_one_status_before_it_enters_another() {
        let mut queue = Queue::default();
        queue.push(moves("a", "10.0.0.1", "10.0.0.9"), None);
        queue.push(moves("b", "", "10.0.0.1"), None);
        queue.push(moves("c", "", "10.0.0.2"), None);
        let a = popped(&mut queue).expect("it waits for nobody");
        assert_eq!(name(Some(&a)), "a");
        assert_eq!(name(popped(&mut queue).as_ref()), "c");
        assert!(popped(&mut queue).is_none(), "a has not arrived");
        queue.ended(a.service(), a.gives_up());
        assert_eq!(name(popped(&mut queue).as_ref()), "b");
        assert!(queue.leaving.is_empty());
    }

    #[test]
    fn services_that_change_places_do_not_wait_for_ever() {
        let mut queue = Queue::default();
        queue.push(moves("a", "10.0.0.1", "10.0.0.2"), None);
        queue.push(moves("b", "10.0.0.2", "10.0.0.1"), None);
        let a = popped(&mut queue).expect("one begins");
        assert!(popped(&mut queue).is_none());
        queue.ended(a.service(), a.gives_up());
        assert_eq!(name(popped(&mut queue).as_ref()), "b");
    }

    #[test]
    fn a_newer_form_that_keeps_the_address_holds_nobody_up() {
        let mut queue = Queue::default();
        queue.push(moves("a", "10.0.0.1", ""), None);
        queue.push(moves("b", "", "10.0.0.3"), None);
        queue.supersede(&ServiceKey::new("default", "a"));
        queue.push(moves("a", "", "10.0.0.1"), None);
        assert!(queue.leaving.is_empty());
    }

    /// Waits until the sink was asked that `count` times.
    async fn asked(sink: &Moody, what: &str, count: usize) {
        let enough = async {
            while sink
                .0
                .lock()
                .unwrap()
                .iter()
                .filter(|one| *one == what)
                .count()
                < count
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), enough).await;
        assert!(in_time.is_ok(), "{what} {count} times: {:?}", sink.0);
    }

    #[tokio::test]
    async fn a_write_that_fails_is_tried_again_holds_up_nobody_and_gives_way_to_a_newer_one() {
        let sink = Moody::default();
        let (_leads, leads_until) = watch::channel(Deadline::Never);
        let (out, writes) = mpsc::channel(64);
        let writer = tokio::spawn(run(sink.clone(), writes, leads_until));
        out.send(write("bad", "old")).await.unwrap();
        asked(&sink, "bad old", 2).await;
        for n in 0..Moody::IN_FLIGHT {
            out.send(write(&format!("good-{n}"), "1")).await.unwrap();
        }
        asked(&sink, "good-15 1", 1).await;
        out.send(write("bad", "new")).await.unwrap();
        asked(&sink, "bad new", 1).await;
        drop(out);
        writer.await.unwrap();
        let last = sink.0.lock().unwrap().last().cloned();
        assert_eq!(last.as_deref(), Some("bad new"));
    }

    #[test]
    fn what_rested_does_not_come_back_beside_a_newer_form() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push(write("bad", "old"), None);
        let (old, _) = queue.pop().expect("it waits");
        queue.busy.clear();
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        queue.rest(
            Failed {
                write: old,
                backoff,
            },
            now,
        );
        queue.push(write("bad", "new"), None);
        queue.wake(now + Duration::from_secs(1));
        assert!(queue.resting.is_empty());
        assert_eq!(queue.waiting.len(), 1);
        let (newer, _) = queue.pop().expect("it waits");
        assert!(matches!(newer, Write::Service(write, _) if &*write.resource_version == "new"));
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_deadline() {
        let sink = Moody::default();
        let (_leads, leads_until) = watch::channel(Deadline::Until(Instant::now()));
        let (out, writes) = mpsc::channel(64);
        out.send(write("good", "1")).await.unwrap();
        drop(out);
        run(sink.clone(), writes, leads_until).await;
        assert!(sink.0.lock().unwrap().is_empty());
    }
}
