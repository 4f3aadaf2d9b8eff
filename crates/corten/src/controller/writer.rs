//! Sends status writes: a bounded number at a time, the newest form of each Service only, and none
//! after the deadline of the leadership. [`Queue`] decides in which order.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::elector::{Deadline, may_write};
use super::queue::{Failed, Order, Queue, Write};
use crate::backoff::Backoff;
use crate::sink::{Sink, WriteError};

/// How a write ended.
enum Sent {
    /// It arrived, or it is not to be sent again.
    Done(Write),
    /// Its Service has a newer form, or is gone.
    Outdated(Write),
    /// It may succeed later.
    Failed(Failed),
}

/// Runs until the planner ends.
pub(super) async fn run<K: Sink>(
    sink: K,
    mut orders: mpsc::Receiver<Order>,
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
            order = orders.recv() => match order {
                Some(Order::Write(write)) => {
                    // What rests of this Service is older.
                    queue.supersede(write.service());
                    queue.push(write, None);
                }
                Some(Order::Settled(service, version)) => queue.settled(&service, version),
                None => return,
            },
            Some(done) = flying.join_next() => match done {
                Ok(Sent::Done(write)) => queue.ended(write.service(), write.gives_up()),
                Ok(Sent::Outdated(write)) => queue.outdated(write),
                Ok(Sent::Failed(failed)) if queue.holds(failed.write.service()) => {
                    queue.ended(failed.write.service(), failed.write.gives_up());
                }
                Ok(Sent::Failed(failed)) => queue.rest(failed, Instant::now()),
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
    mut leads_until: watch::Receiver<Deadline>,
) -> Sent {
    if !may_write(&mut leads_until).await {
        return Sent::Done(write);
    }
    let result = match &write {
        Write::Service(write, _) => sink.write_service(write).await,
        Write::Forget(service) => sink.forget_service(service).await,
    };
    match result {
        Ok(()) => Sent::Done(write),
        Err(WriteError::Outdated) => {
            tracing::debug!(service = %write.service(), "status write was outdated");
            Sent::Outdated(write)
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    use api::corten::v1alpha1::NodeStateStatus;
    use plan::name::ServiceKey;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::sink::{Report, ServiceWrite};

    /// Fails for the Service `bad` as long as its form is `old`; remembers what was asked, and how
    /// much of it at once.
    #[derive(Clone)]
    struct Moody {
        asked: Arc<Mutex<Vec<String>>>,
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        /// Each answer takes one.
        answers: Arc<Semaphore>,
    }

    impl Default for Moody {
        fn default() -> Self {
            Self {
                asked: Arc::default(),
                now: Arc::default(),
                most: Arc::default(),
                answers: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            }
        }
    }

    impl Sink for Moody {
        async fn write_service(&self, write: &ServiceWrite) -> Result<(), WriteError> {
            let asked = format!("{} {}", write.service.name, write.resource_version);
            let fails = asked == "bad old";
            self.asked.lock().unwrap().push(asked);
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.answers.acquire().await.unwrap().forget();
            self.now.fetch_sub(1, Ordering::SeqCst);
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

    fn order(name: &str, version: &str) -> Order {
        Order::Write(write(name, version))
    }

    /// Waits until the sink was asked that `count` times.
    async fn asked(sink: &Moody, what: &str, count: usize) {
        wanted(sink, count, |one| one == what).await;
    }

    /// Waits until the sink was asked `count` times for such a thing.
    async fn wanted(sink: &Moody, count: usize, such: impl Fn(&str) -> bool) {
        let found = || {
            sink.asked
                .lock()
                .unwrap()
                .iter()
                .filter(|one| such(one))
                .count()
        };
        let enough = async {
            while found() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), enough).await;
        assert!(in_time.is_ok(), "not {count} of {:?}", sink.asked);
    }

    #[tokio::test]
    async fn so_many_are_on_their_way_at_once_and_no_more() {
        let sink = Moody {
            answers: Arc::new(Semaphore::new(0)),
            ..Moody::default()
        };
        let (_leads, leads_until) = watch::channel(Deadline::Never);
        let (out, orders) = mpsc::channel(64);
        let writer = tokio::spawn(run(sink.clone(), orders, leads_until));
        let count = 3 * Moody::IN_FLIGHT;
        for n in 0..count {
            out.send(order(&format!("s-{n}"), "1")).await.unwrap();
        }
        wanted(&sink, Moody::IN_FLIGHT, |_| true).await;
        for _ in 0..count {
            assert!(sink.now.load(Ordering::SeqCst) <= Moody::IN_FLIGHT);
            sink.answers.add_permits(1);
            tokio::task::yield_now().await;
        }
        wanted(&sink, count, |_| true).await;
        assert_eq!(sink.most.load(Ordering::SeqCst), Moody::IN_FLIGHT);
        drop(out);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_write_that_fails_is_tried_again_holds_up_nobody_and_gives_way_to_a_newer_one() {
        let sink = Moody::default();
        let (_leads, leads_until) = watch::channel(Deadline::Never);
        let (out, orders) = mpsc::channel(64);
        let writer = tokio::spawn(run(sink.clone(), orders, leads_until));
        out.send(order("bad", "old")).await.unwrap();
        asked(&sink, "bad old", 2).await;
        for n in 0..Moody::IN_FLIGHT {
            out.send(order(&format!("good-{n}"), "1")).await.unwrap();
        }
        asked(&sink, "good-15 1", 1).await;
        out.send(order("bad", "new")).await.unwrap();
        asked(&sink, "bad new", 1).await;
        drop(out);
        writer.await.unwrap();
        let last = sink.asked.lock().unwrap().last().cloned();
        assert_eq!(last.as_deref(), Some("bad new"));
    }

    #[tokio::test]
    async fn what_the_deadline_held_up_is_sent_when_the_lease_is_renewed() {
        let sink = Moody::default();
        let (leads, leads_until) = watch::channel(Deadline::Until(Instant::now()));
        let (out, orders) = mpsc::channel(64);
        let writer = tokio::spawn(run(sink.clone(), orders, leads_until));
        // More than are on their way at once.
        let count = 2 * Moody::IN_FLIGHT;
        for n in 0..count {
            out.send(order(&format!("s-{n}"), "1")).await.unwrap();
        }
        // The writer has taken them all.
        let reserved = out.reserve_many(out.max_capacity()).await.unwrap();
        drop(reserved);
        assert!(sink.asked.lock().unwrap().is_empty());
        leads.send_replace(Deadline::Never);
        wanted(&sink, count, |_| true).await;
        drop(out);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_deadline() {
        let sink = Moody::default();
        let (leads, leads_until) = watch::channel(Deadline::Withdrawn);
        // Nobody will renew it: the write is dropped without being sent, at once.
        drop(leads);
        let sent = send(sink.clone(), write("good", "1"), None, leads_until).await;
        assert!(matches!(sent, Sent::Done(_)));
        assert!(sink.asked.lock().unwrap().is_empty());
    }
}
