//! When our messages are due, and who was heard.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use super::{ALL_NODES, ALL_ROUTERS, Error, Message};
use crate::ethernet::Mac;

/// Between two advertisements; FRR's for peers on an interface.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same for the first ones, and between solicitations (RFC 4861 §10: at most 16 s, and 4 s).
const FIRST_INTERVAL: Duration = Duration::from_secs(3);
/// So many advertisements are the first, and so many solicitations are sent (RFC 4861 §10).
const FIRST: u32 = 3;
/// A solicitation is answered after at most this (RFC 4861 §10)...
const ANSWER: Duration = Duration::from_millis(500);
/// ...and not sooner than this after the last advertisement (RFC 4861 §10).
const PAUSE: Duration = Duration::from_secs(3);
/// A router that says no lifetime counts for three of our intervals, as those of FRR do.
const LIFETIME: Duration = Duration::from_secs(30);
/// Routers remembered; a link of two speakers has one.
const ROUTERS: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Router {
    /// Which message it was heard by, counted.
    heard: u64,
    until: Duration,
}

/// One interface. Every call takes the time; none goes back in it.
#[derive(Debug)]
pub struct Discovery {
    mac: Option<Mac>,
    random: u64,
    advertised: u32,
    solicited: u32,
    next: Duration,
    /// The next solicitation, until a router was heard.
    next_question: Option<Duration>,
    last: Option<Duration>,
    heard: u64,
    routers: BTreeMap<Ipv6Addr, Router>,
    outbox: VecDeque<(Ipv6Addr, Vec<u8>)>,
}

impl Discovery {
    /// The interface is there: the first messages are due at once. `seed`: of the jitter.
    pub fn new(now: Duration, mac: Option<Mac>, seed: u64) -> Self {
        Self {
            mac,
            random: seed,
            advertised: 0,
            solicited: 0,
            next: now,
            next_question: Some(now),
            last: None,
            heard: 0,
            routers: BTreeMap::new(),
            outbox: VecDeque::new(),
        }
    }

    /// Takes a message. An error is for the log; nothing was changed.
    pub fn on_message(
        &mut self,
        now: Duration,
        source: Ipv6Addr,
        hop_limit: u8,
        message: &[u8],
    ) -> Result<(), Error> {
        match Message::parse(message, source, hop_limit)? {
            Message::Solicitation { .. } => {
                // To all, as RFC 4861 §6.2.6 allows: it answers whoever else asks.
                let wait = self.jittered(ANSWER);
                let earliest = self.last.map_or(now, |last| last + PAUSE);
                self.next = self.next.min((now + wait).max(earliest));
            }
            Message::Advertisement { lifetime, .. } => {
                self.next_question = None;
                self.heard += 1;
                let lifetime = match lifetime {
                    0 => LIFETIME,
                    seconds => Duration::from_secs(seconds.into()),
                };
                let router = Router {
                    heard: self.heard,
                    until: now + lifetime,
                };
                self.routers.insert(source, router);
                if self.routers.len() > ROUTERS {
                    let oldest = self.routers.iter().min_by_key(|(_, it)| it.heard);
                    if let Some(oldest) = oldest.map(|(address, _)| *address) {
                        self.routers.remove(&oldest);
                    }
                }
            }
        }
        Ok(())
    }

    /// Who was heard last.
    pub fn newest(&self) -> Option<Ipv6Addr> {
        let newest = self.routers.iter().max_by_key(|(_, it)| it.heard);
        newest.map(|(address, _)| *address)
    }

    /// All who were heard, and not too long ago.
    pub fn routers(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.routers.keys().copied()
    }

    /// When to call [`Self::on_timeout`].
    pub fn poll_timeout(&self) -> Duration {
        let ends = self.routers.values().map(|it| it.until);
        ends.chain(self.next_question)
            .fold(self.next, Duration::min)
    }

    /// Forgets who is gone, and says what is due.
    pub fn on_timeout(&mut self, now: Duration) {
        self.routers.retain(|_, router| router.until > now);
        let mac = self.mac;
        if self.next <= now {
            let message = Message::Advertisement { lifetime: 0, mac };
            self.outbox.push_back((ALL_NODES, message.build()));
            self.advertised = self.advertised.saturating_add(1);
            self.last = Some(now);
            let first = self.advertised < FIRST;
            let interval = if first { FIRST_INTERVAL } else { INTERVAL };
            self.next = now + self.jittered(interval);
        }
        if self.next_question.is_some_and(|next| next <= now) {
            let message = Message::Solicitation { mac };
            self.outbox.push_back((ALL_ROUTERS, message.build()));
            self.solicited += 1;
            let again = self.solicited < FIRST;
            self.next_question = again.then(|| now + FIRST_INTERVAL);
        }
    }

    /// The next message, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(Ipv6Addr, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// Three quarters to all of it.
    fn jittered(&mut self, most: Duration) -> Duration {
        let share = (crate::random::next(&mut self.random) >> 48) as u32;
        most - most / 4 * share / 0x1_0000
    }
}
