//! Addresses that strangers use: stations on the link that are no members of the cluster (RFC 5227
//! for IPv4, RFC 4862 §5.4 for IPv6).
//!
//! An address that nobody of ours had is probed for before it is announced; for one that another
//! member has, or had, nothing waits. What a frame says of its sender's MAC address is judged by the
//! caller, who knows the members.
//!
//! | the address | a stranger is found | then |
//! |---|---|---|
//! | is probed for first | it was there before us | withheld, and probed for again |
//! | is announced | it came later | it stays announced, and is defended |
//!
//! The second row is RFC 5227 §2.4 (c): who has a well-known address may go on defending it, once in
//! ten seconds. Giving way, (b), would let any host that is set up wrongly, or means ill, take a
//! Service away with two frames.
//!
//! A claim is no judgement. The sender may be a member that was not heard of yet, or the frame one
//! of a kind: for [`SUSPICION`] the address is probed for again and again, and only who still claims
//! it at the end of that, and is still unknown, is a stranger. Probes of others (sender 0.0.0.0 or
//! `::`) are no claims: switches that look for hosts send such, and who really probes hears our
//! answer or announcement in time.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::ethernet::Mac;

/// How many probes come before the first announcement, and the time after each.
const FIRST: (u8, Duration) = (3, Duration::from_millis(80));
/// The same while somebody is suspected.
const SUSPECTED: (u8, Duration) = (8, Duration::from_millis(250));
/// The same when a stranger that was found is looked for again.
const AGAIN: (u8, Duration) = (3, Duration::from_millis(250));
/// How long somebody is suspected before he is judged.
pub const SUSPICION: Duration = Duration::from_millis(2000);
/// Who has claimed the address within this time is there.
const RECENT: Duration = Duration::from_millis(1000);
/// Until a stranger is looked for again: at first, and at last; each time twice as long.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Whose a MAC address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A member's, this node's own, or the address's own.
    Member,
    /// It cannot be said: some member has not told its MAC addresses.
    Unknown,
    /// Nobody's of ours.
    Stranger,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send a probe for the address.
    Probe(IpAddr),
    /// Announce it: nobody else has it, or only a member.
    Announce(IpAddr),
    /// A stranger has it: it is not announced.
    Withhold(IpAddr, Mac),
    /// A stranger claims it although it is announced.
    Contest(IpAddr, Mac),
    /// Say again that it is here.
    Defend(IpAddr),
    /// The stranger is gone, or is none.
    Over(IpAddr, Mac),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    First,
    Suspect { mac: Mac, last: Duration },
    Found { mac: Mac, last: Duration },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    announced: bool,
    phase: Phase,
    /// Probes of this round.
    sent: u8,
    /// The next pause, once a stranger is found.
    pause: Duration,
    due: Duration,
}

impl Entry {
    const fn new(announced: bool, phase: Phase, now: Duration) -> Self {
        Self {
            announced,
            phase,
            sent: 0,
            pause: PAUSE.0,
            due: now,
        }
    }
}

/// The addresses that are probed for, withheld or contested; of others nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Conflicts {
    entries: BTreeMap<IpAddr, Entry>,
    queue: BTreeSet<(Duration, IpAddr)>,
}

impl Conflicts {
    /// The address is to be announced and nobody of ours had it: [`Act::Announce`] or
    /// [`Act::Withhold`] follows.
    pub fn begin(&mut self, now: Duration, ip: IpAddr) {
        if !self.waits(ip) {
            self.put(ip, Entry::new(false, Phase::First, now));
        }
    }

    /// The address is not to be announced any more.
    pub fn remove(&mut self, ip: IpAddr) {
        if let Some(entry) = self.entries.remove(&ip) {
            self.queue.remove(&(entry.due, ip));
        }
    }

    /// Whether the address must not be announced yet.
    pub fn waits(&self, ip: IpAddr) -> bool {
        self.entries.get(&ip).is_some_and(|entry| !entry.announced)
    }

    /// The addresses that strangers have: those withheld, or those that are announced all the same.
    pub fn found(&self, announced: bool) -> impl Iterator<Item = IpAddr> + '_ {
        let of = move |entry: &Entry| {
            entry.announced == announced && matches!(entry.phase, Phase::Found { .. })
        };
        let entries = self.entries.iter();
        entries.filter_map(move |(ip, entry)| of(entry).then_some(*ip))
    }

    /// A frame that ties the address, which is announced or waits, to a MAC address.
    pub fn on_claim(&mut self, now: Duration, ip: IpAddr, mac: Mac, whose: Whose) -> Option<Act> {
        let Some(mut entry) = self.entries.get(&ip).copied() else {
            if whose == Whose::Stranger {
                let phase = Phase::Suspect { mac, last: now };
                self.put(ip, Entry::new(true, phase, now));
            }
            return None;
        };
        match (entry.phase, whose) {
            // A member has it, which gives way: nobody waits for that.
            (Phase::First | Phase::Suspect { .. }, Whose::Member) if !entry.announced => {
                self.remove(ip);
                return Some(Act::Announce(ip));
            }
            (_, Whose::Member | Whose::Unknown) => return None,
            (Phase::First, Whose::Stranger) => {
                entry = Entry::new(false, Phase::Suspect { mac, last: now }, now);
            }
            (Phase::Suspect { .. }, Whose::Stranger) => {
                entry.phase = Phase::Suspect { mac, last: now };
            }
            (Phase::Found { .. }, Whose::Stranger) => {
                entry.phase = Phase::Found { mac, last: now };
            }
        }
        self.put(ip, entry);
        let defends = entry.announced && matches!(entry.phase, Phase::Found { .. });
        defends.then_some(Act::Defend(ip))
    }

    /// When [`Self::on_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// Does what is due; `whose` judges anew, as members may have been heard of since.
    pub fn on_timeout(&mut self, now: Duration, whose: impl Fn(IpAddr, Mac) -> Whose) -> Vec<Act> {
        let mut acts = Vec::new();
        while let Some(&(due, ip)) = self.queue.first()
            && due <= now
        {
            let Some(mut entry) = self.entries.get(&ip).copied() else {
                break;
            };
            let (probes, gap) = match entry.phase {
                Phase::First => FIRST,
                Phase::Suspect { .. } => SUSPECTED,
                Phase::Found { .. } => AGAIN,
            };
            if entry.sent < probes {
                entry.sent += 1;
                entry.due = now + gap;
                self.put(ip, entry);
                acts.push(Act::Probe(ip));
                continue;
            }
            let there =
                |mac, last| now.saturating_sub(last) <= RECENT && whose(ip, mac) == Whose::Stranger;
            match entry.phase {
                Phase::Suspect { mac, last } | Phase::Found { mac, last } if there(mac, last) => {
                    if matches!(entry.phase, Phase::Suspect { .. }) {
                        acts.push(match entry.announced {
                            true => Act::Contest(ip, mac),
                            false => Act::Withhold(ip, mac),
                        });
                    }
                    let next = Entry {
                        phase: Phase::Found { mac, last },
                        sent: 0,
                        pause: PAUSE.1.min(entry.pause * 2),
                        due: now + entry.pause,
                        ..entry
                    };
                    self.put(ip, next);
                    continue;
                }
                Phase::Found { mac, .. } => acts.push(Act::Over(ip, mac)),
                Phase::First | Phase::Suspect { .. } => {}
            }
            self.remove(ip);
            if !entry.announced {
                acts.push(Act::Announce(ip));
            }
        }
        acts
    }

    fn put(&mut self, ip: IpAddr, entry: Entry) {
        if let Some(old) = self.entries.insert(ip, entry) {
            self.queue.remove(&(old.due, ip));
        }
        self.queue.insert((entry.due, ip));
    }
}
