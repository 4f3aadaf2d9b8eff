//! Replies leave by the interface that the request came in by (`spec/metallb.md` §8 no. 7).
//!
//! Three parts, all kept in line by one task: marks ([`dataplane::nft::reply`]), a table of routes
//! for each chosen interface, and a rule that sends a marked packet to it. The routes are those of
//! the main table that lead over the interface, and a default route wherever there is one; a packet
//! that finds nothing there is routed as ever. They bear our protocol number (155) and stay when the
//! agent ends; the next one goes on from them.

mod choice;
mod wanted;

use std::fs;
use std::future::pending;
use std::time::Duration;

use dataplane::nft::reply::{Links, Reply};
use linux::netlink::{Change, Changes, Netlink, NetlinkError};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use self::choice::{Choice, Chosen, Mask};
use self::wanted::{Numbers, Wanted, is_our_rule, is_ours, ours};
use super::forward;
use crate::backoff::Backoff;
use crate::cli::chain;
use crate::status::Health;

/// Changes come in bursts: how long to wait for the rest, at least.
const BURST: Duration = Duration::from_millis(50);
/// So many times the length of a look passes before the next.
const REST: u32 = 10;
/// Between two looks at the marks, which somebody may have flushed.
const LOOK: Duration = Duration::from_secs(4);
/// Bounds of the time until what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why it is not so.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// Routes and rules.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Marks.
    #[error("{}", forward::nft_words(.0))]
    Marks(#[from] dataplane::nft::Error),
    /// The thread that marks.
    #[error("cannot end a thread")]
    Thread(#[from] tokio::task::JoinError),
}

/// For ever.
pub(super) async fn run(choice: Choice, health: Health) {
    let task = Task {
        choice,
        health,
        numbers: Numbers::default(),
        adopted: false,
        devices: Vec::new(),
        told: String::new(),
    };
    task.run().await;
}

/// Takes all of it away: nobody wants it any more. Says whether there was something.
pub(super) async fn remove() -> Result<bool, ReplyError> {
    let marked = match tokio::task::spawn_blocking(|| Reply::open()?.remove()).await? {
        // Then nothing can be left either.
        Err(dataplane::nft::Error::Missing { .. }) => Ok(false),
        done => done,
    }?;
    let netlink = Netlink::open()?;
    let mut found = marked;
    for rule in netlink.rules().await?.iter().filter(|it| is_our_rule(it)) {
        gone(netlink.del_rule(rule).await)?;
        found = true;
    }
    for (key, way) in ours(&netlink.routes().await?) {
        gone(netlink.del_route_by_key(&way.route(key)).await)?;
        found = true;
    }
    Ok(found)
}

/// What is gone already is no error.
fn gone(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if error.is_missing() => Ok(()),
        done => done,
    }
}

struct Task {
    choice: Choice,
    health: Health,
    numbers: Numbers,
    adopted: bool,
    /// The chosen interfaces, as last seen.
    devices: Vec<u32>,
    told: String,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        if self.choice.interfaces.is_empty() {
            loop {
                match remove().await {
                    Ok(true) => tracing::info!(
                        "replies are routed as ever: rules, tables and marks of --reply-by-ingress are gone"
                    ),
                    Ok(false) => {}
                    // Without the right nobody can have made any.
                    Err(error) if is_denied(&error) => {}
                    Err(error) => {
                        self.say(&[chain(&error)]);
                        tokio::time::sleep(backoff.next()).await;
                        continue;
                    }
                }
                self.say(&[]);
                return pending().await;
            }
        }
        loop {
            // Opened before the look: nothing falls between.
            let ended = match Changes::open_routing() {
                Ok(mut changes) => self.follow(&mut changes, &mut backoff).await,
                Err(error) => error,
            };
            self.say(&[chain(&ended)]);
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Looks after each change, until no more can be heard of.
    async fn follow(&mut self, changes: &mut Changes, backoff: &mut Backoff) -> NetlinkError {
        loop {
            let began = Instant::now();
            let again = match self.bring().await {
                Ok(troubles) => {
                    self.say(&troubles);
                    backoff.reset();
                    None
                }
                Err(error) => {
                    self.say(&[chain(&error)]);
                    Some(Instant::now() + backoff.next())
                }
            };
            let rest = BURST.max(began.elapsed() * REST);
            let due = again.unwrap_or_else(|| began + LOOK + rest);
            loop {
                tokio::select! {
                    change = changes.next() => match change {
                        Ok(change) if self.concerns(&change) => break,
                        Ok(_) => {}
                        Err(error) => return error,
                    },
                    () = sleep_until(due) => break,
                }
            }
            let quiet = Instant::now() + rest.min(LOOK);
            loop {
                match timeout_at(quiet, changes.next()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error,
                    Err(_) => break,
                }
            }
        }
    }

    fn concerns(&self, change: &Change) -> bool {
        match change {
            Change::Link(interface) => {
                self.devices.contains(&interface.index) || self.choice.has(interface)
            }
            Change::LinkGone { index, .. }
            | Change::Address { index, .. }
            | Change::AddressGone { index, .. } => self.devices.contains(index),
            Change::Route { table, devices } => {
                is_ours(*table) || devices.iter().any(|device| self.devices.contains(device))
            }
            Change::Rule | Change::Lost => true,
            Change::Moved { .. } => false,
        }
    }

    /// Brings the kernel in line; says what will not work all the same.
    async fn bring(&mut self) -> Result<Vec<String>, ReplyError> {
        let netlink = Netlink::open()?;
        let interfaces = netlink.interfaces().await?;
        let routes = netlink.routes().await?;
        let mask = self.choice.mask;
        if !self.adopted {
            let links = tokio::task::spawn_blocking(|| Reply::open()?.links()).await??;
            let links = links
                .into_iter()
                .map(|(index, mark)| (index, mask.number(mark)));
            self.numbers.adopt(&interfaces, links, &routes);
            self.adopted = true;
        }
        let wanted = Wanted::new(&self.choice, &interfaces, &routes, &mut self.numbers);
        self.devices = wanted.links.keys().copied().collect();

        let there = netlink.rules().await?;
        for rule in there.iter().filter(|it| is_our_rule(it)) {
            if !wanted.rules.contains(rule) {
                gone(netlink.del_rule(rule).await)?;
                tracing::info!(%rule, "removed");
            }
        }
        let mut failed = put_routes(&netlink, &wanted, &routes).await;
        for rule in wanted.rules.iter().filter(|rule| !there.contains(rule)) {
            match netlink.add_rule(rule).await {
                Err(error) if error.is_there() => {}
                Err(error) => failed = failed.and(Err(error)),
                Ok(()) => tracing::info!(%rule, "replies leave by the interface of their requests"),
            }
        }
        let links: Links = wanted.links.clone();
        let set = move || Reply::open()?.set(mask.bits(), &links);
        if tokio::task::spawn_blocking(set).await?? {
            tracing::info!(interfaces = wanted.links.len(), "replies are marked");
        }
        failed?;
        let mut troubles = wanted.troubles;
        troubles.extend(filtered(&wanted.beside_default));
        Ok(troubles)
    }

    /// Tells what is wrong, once, and when it is right again.
    fn say(&mut self, troubles: &[String]) {
        let words = troubles.join("; ");
        if words != self.told {
            match words.is_empty() {
                true => {
                    tracing::info!("replies can leave by the interfaces of their requests again")
                }
                false => tracing::warn!("{words}"),
            }
            self.health
                .set_obstacle("reply", (!words.is_empty()).then(|| words.clone()));
            self.told = words;
        }
    }
}

fn is_denied(error: &ReplyError) -> bool {
    matches!(error, ReplyError::Marks(dataplane::nft::Error::Denied))
}

/// Writes what differs, as much as can be; the first failure.
async fn put_routes(
    netlink: &Netlink,
    wanted: &Wanted,
    routes: &[linux::netlink::Route],
) -> Result<(), NetlinkError> {
    let there = ours(routes);
    let mut failed = Ok(());
    for (key, way) in &there {
        if !wanted.routes.contains_key(key) {
            failed = failed.and(gone(netlink.del_route_by_key(&way.route(*key)).await));
        }
    }
    // Gateways are found on the link.
    let mut ways: Vec<_> = wanted.routes.iter().collect();
    ways.sort_by_key(|(key, way)| (!way.is_on_link(), std::cmp::Reverse(key.2)));
    for (key, way) in ways {
        let route = way.route(*key);
        let done = match there.get(key) {
            Some(known) if known == way => continue,
            Some(_) => netlink.replace_route(&route).await,
            None => netlink.add_route(&route).await,
        };
        match done {
            Ok(()) => tracing::debug!(%route, "for replies"),
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed
}

/// What the kernel drops before anybody can mark it.
fn filtered(interfaces: &[String]) -> Vec<String> {
    let read = |interface: &str, key: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/{key}");
        let text = fs::read_to_string(path).ok();
        text.and_then(|text| text.trim().parse::<u8>().ok())
            .unwrap_or(0)
    };
    let all = read("all", "rp_filter");
    let strict = |name: &String| all.max(read(name, "rp_filter")) == 1;
    let strict: Vec<&str> = interfaces
        .iter()
        .filter(|it| strict(it))
        .map(String::as_str)
        .collect();
    let mut troubles = Vec::new();
    if let Some(first) = strict.first() {
        troubles.push(format!(
            "requests that come in by {} are dropped where the way back to the client leads over \
             another interface: the reverse path filter is strict; remedy: sysctl -w \
             net.ipv4.conf.{first}.rp_filter=2",
            strict.join(", ")
        ));
    }
    if !interfaces.is_empty() && all == 1 && read("all", "src_valid_mark") == 1 {
        troubles.push(
            "replies of Pods are dropped: the reverse path filter is strict and looks at marks; \
             remedy: sysctl -w net.ipv4.conf.all.rp_filter=0 (or 2), or \
             net.ipv4.conf.all.src_valid_mark=0"
                .to_owned(),
        );
    }
    troubles
}
