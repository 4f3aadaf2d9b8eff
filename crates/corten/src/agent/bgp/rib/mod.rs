//! The received routes of all peers, in the kernel's tables.
//!
//! One task: peers tell it what they accepted, [`fib`] says what the kernel should have, and it
//! writes the difference. Its routes bear a protocol number of their own, so that the next agent
//! adopts them, and a metric that lets every other route to the same place win.

mod fib;
mod hop;

use std::collections::BTreeMap;
use std::time::Duration;

use linux::netlink::{Hop, Netlink, NetlinkError, Route};
use plan::announce::bgp::PeerKey;
use proto::bgp::Prefix;
use proto::bgp::adj_in::Change;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::fib::{Fib, Key};
pub(super) use self::hop::{Origin, hop};
use crate::agent::interfaces::Snapshot;
use crate::backoff::Backoff;
use crate::http::Metrics;

/// Protocol number of our routes (`ip route show proto 155`).
const PROTOCOL: u8 = 155;
/// Worse than what a host has by itself (a DHCP server's default route among it): 4271, as the RFC.
const METRIC: u32 = 4271;
/// How long an earlier agent's routes stay while its peers are not back: the restart time that our
/// OPENs say.
const ADOPTED: Duration = Duration::from_secs(120);
/// Messages that may wait.
const QUEUE: usize = 1024;
/// Routes written before messages are looked at again.
const BATCH: usize = 128;
/// Bounds of the time until what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A peer's task: the next one of the same peer may begin before the last one has ended.
pub(super) type Giver = (PeerKey, u64);

/// What peers' tasks tell.
#[derive(Debug)]
pub(super) enum Message {
    /// The peer's routes go to this table; `None`: none are taken.
    Expect(Giver, Option<u32>),
    /// What is new of a peer's routes.
    Routes {
        giver: Giver,
        table: u32,
        origin: Origin,
        changes: Vec<Change>,
    },
    /// The peer has sent all that it has.
    Complete(Giver),
    /// The peer's routes are to be forgotten.
    Gone(Giver),
    /// Every peer of the configuration has said what it expects.
    Ready,
}

/// A handle on the task.
#[derive(Clone, Debug)]
pub(super) struct Rib {
    messages: mpsc::Sender<Message>,
}

impl Rib {
    pub(super) async fn tell(&self, message: Message) {
        let _ = self.messages.send(message).await;
    }
}

/// The handle, and the task to run.
pub(super) fn start(
    interfaces: watch::Receiver<Snapshot>,
    metrics: Metrics,
) -> (Rib, impl Future<Output = ()> + Send) {
    let (messages, inbox) = mpsc::channel(QUEUE);
    let task = Task {
        interfaces,
        metrics,
        fib: Fib::default(),
        backoff: Backoff::new(RETRY.0, RETRY.1),
        retry: None,
        told: None,
    };
    (Rib { messages }, task.run(inbox))
}

/// Takes every route of ours away: Corten is being removed.
pub(in crate::agent) async fn remove() -> Result<(), NetlinkError> {
    let netlink = Netlink::open()?;
    for (table, prefix) in list(&netlink).await?.into_keys() {
        delete(&netlink, (table, prefix)).await?;
    }
    Ok(())
}

struct Task {
    interfaces: watch::Receiver<Snapshot>,
    metrics: Metrics,
    fib: Fib,
    backoff: Backoff,
    /// Something failed: then the kernel is read again.
    retry: Option<Instant>,
    /// The last trouble that was told.
    told: Option<String>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let late = Instant::now() + ADOPTED;
        let mut netlink = None;
        let mut unread = true;
        let mut batch = Vec::new();
        loop {
            if unread && self.retry.is_none() {
                match self.read(&mut netlink).await {
                    Ok(()) => unread = false,
                    Err(error) => {
                        netlink = None;
                        self.failed(&error);
                    }
                }
            }
            if !unread && let Some(netlink) = &netlink {
                self.write(netlink).await;
            }
            let busy = !unread && self.fib.is_dirty();
            let late_one = self.fib.waits().then_some(late);
            let wake = [late_one, self.retry].into_iter().flatten().min();
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for message in batch.drain(..) {
                        self.fib.take(message);
                    }
                }
                changed = self.interfaces.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // The kernel takes away what led over a link that is gone, and says nothing.
                    unread = true;
                    self.retry = None;
                }
                () = std::future::ready(()), if busy => {}
                () = tokio::time::sleep_until(wake.unwrap_or(late)), if wake.is_some() => {
                    let now = Instant::now();
                    if self.retry.is_some_and(|at| at <= now) {
                        self.retry = None;
                        unread = true;
                    }
                    if late <= now {
                        self.fib.expire();
                    }
                }
            }
        }
    }

    async fn read(&mut self, netlink: &mut Option<Netlink>) -> Result<(), NetlinkError> {
        if netlink.is_none() {
            *netlink = Some(Netlink::open()?);
        }
        if let Some(netlink) = netlink {
            // Seen as it is now: a change from here on reads again.
            self.interfaces.mark_unchanged();
            self.fib.found(list(netlink).await?);
        }
        Ok(())
    }

    /// Writes some of what differs.
    async fn write(&mut self, netlink: &Netlink) {
        let interfaces = self.interfaces.borrow().clone();
        let mut clean = true;
        for _ in 0..BATCH {
            let Some((key, hops, known)) = self.fib.next(&interfaces) else {
                break;
            };
            match put(netlink, key, &hops, known).await {
                Ok(()) => {
                    tracing::debug!(table = key.0, prefix = %key.1, ?hops, "received route");
                    self.fib.done(key, hops);
                }
                Err(error) => {
                    clean = false;
                    self.failed(&error);
                }
            }
        }
        if clean && self.retry.is_none() {
            self.backoff.reset();
            self.told = None;
        }
        let count = i64::try_from(self.fib.len()).unwrap_or(i64::MAX);
        self.metrics.bgp_routes_installed.set(count);
    }

    fn failed(&mut self, error: &NetlinkError) {
        self.metrics.bgp_route_errors.inc();
        let why = crate::cli::chain(error);
        if self.told.as_ref() != Some(&why) {
            tracing::warn!(why, "a received route is not in the kernel; trying again");
            self.told = Some(why);
        }
        let wait = &mut self.backoff;
        self.retry
            .get_or_insert_with(|| Instant::now() + wait.next());
    }
}

/// Our routes.
async fn list(netlink: &Netlink) -> Result<BTreeMap<Key, Vec<Hop>>, NetlinkError> {
    let routes = netlink.routes().await?.into_iter();
    let ours = routes.filter(|route| route.protocol == PROTOCOL && route.metric == Some(METRIC));
    let keyed = ours.filter_map(|route| {
        let prefix = Prefix::new(route.to.0, route.to.1).ok()?;
        Some(((route.table, prefix), route.next_hops()))
    });
    Ok(keyed.collect())
}

fn route((table, prefix): Key) -> Route {
    let mut route = Route::new(prefix.address(), prefix.length());
    route.table = table;
    route.protocol = PROTOCOL;
    route.metric = Some(METRIC);
    route
}

async fn put(netlink: &Netlink, key: Key, hops: &[Hop], known: bool) -> Result<(), NetlinkError> {
    match (hops, known) {
        ([], _) => delete(netlink, key).await,
        // Only what is ours is replaced: another's route of this metric is an error.
        (hops, true) => netlink.replace_route(&route(key).hops(hops)).await,
        (hops, false) => netlink.add_route(&route(key).hops(hops)).await,
    }
}

async fn delete(netlink: &Netlink, key: Key) -> Result<(), NetlinkError> {
    match netlink.del_route_by_key(&route(key)).await {
        Err(error) if error.is_missing() => Ok(()),
        outcome => outcome,
    }
}
