//! When gratuitous frames are due (MetalLB §4.3; MetalLB #2910 for the refresh).
//!
//! An address is announced at once when it is taken, repeated every 1.1 s until 5 s after the last
//! trigger (a lost frame must not leave a client with the old owner, and Linux ignores a change
//! within 1 s of the previous one), and refreshed slowly ever after, because switches and clients
//! forget. ARP and NDP share the schedule; the caller builds the frames.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// RFC 5227 §2.4, DEFEND_INTERVAL: an address is defended at most once in this time.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Intervals of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between frames after a trigger.
    pub repeat: Duration,
    /// How long after the last trigger frames are repeated.
    pub burst: Duration,
    /// Between frames afterwards; `None` sends no more.
    pub refresh: Option<Duration>,
    /// Spreads the refreshes of addresses taken together.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            repeat: Duration::from_millis(1100),
            burst: Duration::from_secs(5),
            refresh: Some(Duration::from_secs(60)),
            seed: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    triggered: Duration,
    defended: Option<Duration>,
    /// Key in the queue; `None` when nothing more is due.
    due: Option<Duration>,
}

/// The schedule of all announced addresses. Each operation costs O(log n).
#[derive(Clone, Debug)]
pub struct Announcer {
    config: Config,
    random: u64,
    entries: BTreeMap<IpAddr, Entry>,
    queue: BTreeSet<(Duration, IpAddr)>,
}

impl Announcer {
    /// An empty schedule.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            random: config.seed,
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// The address was taken, or its forwarding or the interface's MAC address changed: it is due
    /// at once, and the burst starts anew.
    pub fn trigger(&mut self, now: Duration, ip: IpAddr) {
        let defended = self.entries.get(&ip).and_then(|entry| entry.defended);
        self.insert(
            ip,
            Entry {
                triggered: now,
                defended,
                due: Some(now),
            },
        );
    }

    /// A stranger claimed the address (`Outcome::Conflict`) and this node is still its owner: it is
    /// due at once, but not oftener than RFC 5227 allows, so that two owners cannot drive each
    /// other into a storm. True if it was made due.
    pub fn defend(&mut self, now: Duration, ip: IpAddr) -> bool {
        let Some(&entry) = self.entries.get(&ip) else {
            return false;
        };
        if entry
            .defended
            .is_some_and(|last| now < last + DEFEND_INTERVAL)
        {
            return false;
        }
        self.insert(
            ip,
            Entry {
                defended: Some(now),
                due: Some(now),
                ..entry
            },
        );
        true
    }

    /// The address is no longer ours.
    pub fn remove(&mut self, ip: IpAddr) {
        if let Some(Entry { due: Some(due), .. }) = self.entries.remove(&ip) {
            self.queue.remove(&(due, ip));
        }
    }

    /// When [`Self::on_timeout`] has something to give next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// The addresses due at `now`, earliest first; each is rescheduled as it is taken. Addresses
    /// not taken stay due, so a caller may send a few and come back.
    pub fn on_timeout(&mut self, now: Duration) -> impl Iterator<Item = IpAddr> + '_ {
        std::iter::from_fn(move || self.pop(now))
    }

    fn pop(&mut self, now: Duration) -> Option<IpAddr> {
        let &(due, ip) = self.queue.first()?;
        if due > now {
            return None;
        }
        let &entry = self.entries.get(&ip)?;
        // From `now`, not from `due`: after a pause one frame is sent, not all that were missed.
        let repeat = now + self.config.repeat;
        let due = if repeat <= entry.triggered + self.config.burst {
            Some(repeat)
        } else {
            self.config
                .refresh
                .map(|refresh| now + self.spread(refresh))
        };
        self.insert(ip, Entry { due, ..entry });
        Some(ip)
    }

    fn insert(&mut self, ip: IpAddr, entry: Entry) {
        if let Some(Entry { due: Some(old), .. }) = self.entries.insert(ip, entry) {
            self.queue.remove(&(old, ip));
        }
        if let Some(due) = entry.due {
            self.queue.insert((due, ip));
        }
    }

    /// Between three quarters of the interval and the whole.
    fn spread(&mut self, interval: Duration) -> Duration {
        let share = crate::random::next(&mut self.random) >> 48;
        interval - interval / 4 * (share as u32) / 0x1_0000
    }
}
