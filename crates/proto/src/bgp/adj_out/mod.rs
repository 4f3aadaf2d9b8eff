//! Adj-RIB-Out of one peer: what should be announced against what was sent.
//!
//! [`AdjOut`] holds the desired routes whether a session is there or not; a session that comes up
//! makes all of them due. [`AdjOut::poll`] turns what is due into messages: withdrawals first, then
//! announcements packed by path, then the marks (EoRR, End-of-RIB) that may follow only after all.
//! Work is linear in what changed; equal paths are stored once.

mod paths;
mod queue;
mod send;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use self::{
    paths::{PathId, Paths},
    queue::Queue,
};
use super::{Attributes, Families, Family, Negotiated, NextHop, Nlri};

/// What is said of prefixes: shared by as many as have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path {
    /// Before [`Attributes::toward`] the peer.
    pub attributes: Attributes,
    /// `None`: ourselves, as the session has it.
    pub next_hop: Option<NextHop>,
}

/// Our addresses as the peer can reach them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// IPv4 address of the session, or of its interface.
    pub ipv4: Option<Ipv4Addr>,
    /// Global IPv6 address of the session, or of its interface.
    pub ipv6: Option<Ipv6Addr>,
    /// Link-local one, if the peer is on the link.
    pub link_local: Option<Ipv6Addr>,
    /// Whether the session itself runs over IPv6.
    pub session_ipv6: bool,
}

impl LocalAddresses {
    /// Ourselves as next hop of a family. IPv4 over an IPv6 session: an IPv6 next hop if negotiated
    /// (RFC 8950), else the interface's IPv4 address. IPv6: both addresses where the global one is
    /// known (RFC 2545 §3), link-local alone otherwise.
    pub fn next_hop(&self, family: Family, extended: bool) -> Option<NextHop> {
        let ipv6 = match (self.ipv6, self.link_local) {
            (Some(global), Some(link_local)) => Some(NextHop::V6Both { global, link_local }),
            (global, link_local) => global.or(link_local).map(NextHop::V6),
        };
        let ipv4 = self.ipv4.map(NextHop::V4);
        match family {
            Family::Ipv6 => ipv6,
            Family::Ipv4 if !extended => ipv4,
            Family::Ipv4 if self.session_ipv6 => ipv6.or(ipv4),
            Family::Ipv4 => ipv4.or(ipv6),
        }
    }
}

/// How much there is. When nothing is due, the difference cannot be sent: its family or add-path was
/// not negotiated, there is no next hop for it, or its attributes leave no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prefixes that should be announced.
    pub desired: usize,
    /// Prefixes that the peer has from us.
    pub sent: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    nlri: Nlri,
    desired: Option<PathId>,
    sent: Option<PathId>,
    /// Announce again, even if the peer has it.
    again: bool,
    /// It waits in the list of changes.
    dirty: bool,
}

#[derive(Debug)]
struct Session {
    negotiated: Arc<Negotiated>,
    local: LocalAddresses,
    /// Families whose End-of-RIB is still to be sent.
    end_of_rib: Families,
    /// Families whose BoRR is still to be sent.
    begin_of_refresh: Families,
    /// Families whose EoRR is still to be sent.
    end_of_refresh: Families,
}

impl Session {
    /// Families whose refresh can begin: not before their End-of-RIB, and not before the end of an
    /// earlier one (RFC 7313 §4).
    fn refreshes(&self) -> impl Iterator<Item = Family> {
        let busy =
            |family| self.end_of_rib.contains(family) || self.end_of_refresh.contains(family);
        self.begin_of_refresh
            .iter()
            .filter(move |family| !busy(*family))
    }
}

/// Desired and sent routes of one peer.
#[derive(Debug, Default)]
pub struct AdjOut {
    index: HashMap<Nlri, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    paths: Paths,
    dirty: Vec<u32>,
    queue: Queue,
    session: Option<Session>,
    ready: bool,
    counts: Counts,
}

impl AdjOut {
    /// Empty, without session, not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The prefix should be announced so. Without add-path only paths with identifier 0 are sent.
    pub fn announce(&mut self, nlri: Nlri, path: &Arc<Path>) {
        let at = self.entry(nlri);
        let id = self.paths.hold(path);
        let Some(entry) = self.entries.get_mut(at as usize) else {
            return;
        };
        let old = entry.desired.replace(id);
        if old != Some(id) {
            self.touch(at);
        }
        match old {
            Some(old) => self.paths.release(old),
            None => self.counts.desired += 1,
        }
    }

    /// The prefix should not be announced any more.
    pub fn withdraw(&mut self, nlri: &Nlri) {
        let Some(&at) = self.index.get(nlri) else {
            return;
        };
        let entry = self.entries.get_mut(at as usize);
        if let Some(old) = entry.and_then(|entry| entry.desired.take()) {
            self.paths.release(old);
            self.counts.desired -= 1;
            self.touch(at);
        }
    }

    /// Exactly these should be announced.
    pub fn replace(&mut self, desired: impl IntoIterator<Item = (Nlri, Arc<Path>)>) {
        let mut kept = vec![false; self.entries.len()];
        for (nlri, path) in desired {
            self.announce(nlri, &path);
            let at = self.index.get(&nlri).map(|at| *at as usize);
            if let Some(kept) = at.and_then(|at| kept.get_mut(at)) {
                *kept = true;
            }
        }
        for (at, kept) in kept.into_iter().enumerate() {
            let gone = self
                .entries
                .get(at)
                .filter(|entry| !kept && entry.desired.is_some());
            if let Some(nlri) = gone.map(|entry| entry.nlri) {
                self.withdraw(&nlri);
            }
        }
    }

    /// All inputs are there: when everything is sent, End-of-RIB may follow. It holds over sessions.
    pub fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    /// A session is there: everything is due.
    pub fn up(&mut self, negotiated: Arc<Negotiated>, local: LocalAddresses) {
        self.down();
        let families = negotiated.codec.families;
        self.session = Some(Session {
            negotiated,
            local,
            end_of_rib: families,
            begin_of_refresh: Families::NONE,
            end_of_refresh: Families::NONE,
        });
        for at in 0..self.entries.len() {
            self.touch(at as u32);
        }
    }

    /// The session is gone, and with it what was sent.
    pub fn down(&mut self) {
        self.session = None;
        self.queue.clear();
        self.dirty.clear();
        self.counts.sent = 0;
        for at in 0..self.entries.len() {
            if let Some(entry) = self.entries.get_mut(at) {
                entry.dirty = false;
                entry.again = false;
                if let Some(sent) = entry.sent.take() {
                    self.paths.release(sent);
                }
            }
            self.forget(at as u32);
        }
    }

    /// Our addresses changed under a living session: everything is due.
    pub fn set_local(&mut self, local: LocalAddresses) {
        match &mut self.session {
            Some(session) if session.local != local => session.local = local,
            _ => return,
        }
        for family in Family::ALL {
            self.again(family);
        }
    }

    /// The peer asked for all routes of a family (RFC 2918; with BoRR and EoRR, RFC 7313).
    pub fn refresh(&mut self, family: Family) {
        let Some(session) = &mut self.session else {
            return;
        };
        if !session.negotiated.codec.families.contains(family) {
            return;
        }
        if session.negotiated.enhanced_refresh {
            session.begin_of_refresh.insert(family);
        } else {
            self.again(family);
        }
    }

    /// Everything of a family is due, whatever was sent.
    fn again(&mut self, family: Family) {
        for at in 0..self.entries.len() {
            if let Some(entry) = self.entries.get_mut(at)
                && entry.nlri.prefix.family() == family
            {
                entry.again = true;
                self.touch(at as u32);
            }
        }
    }

    /// Whether [`AdjOut::poll`] has nothing to say.
    pub fn is_idle(&self) -> bool {
        let Some(session) = &self.session else {
            return true;
        };
        let marks = !session.end_of_refresh.is_empty()
            || self.ready && !session.end_of_rib.is_empty()
            || session.refreshes().next().is_some();
        self.dirty.is_empty() && self.queue.is_empty() && !marks
    }

    /// How much is desired and sent.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends messages until `out` has `limit` bytes or nothing is due; whether more is due. The
    /// last message may exceed the limit.
    pub fn poll(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        self.begin_refreshes(out);
        self.stage();
        self.send_withdrawals(out, limit);
        if self.queue.withdrawals.is_empty() {
            self.send_announcements(out, limit);
        }
        if self.queue.is_empty() && self.dirty.is_empty() {
            self.send_marks(out);
        }
        !self.is_idle()
    }

    fn entry(&mut self, nlri: Nlri) -> u32 {
        if let Some(&at) = self.index.get(&nlri) {
            return at;
        }
        let entry = Entry {
            nlri,
            desired: None,
            sent: None,
            again: false,
            dirty: false,
        };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.entries.get_mut(at as usize) {
                    *place = entry;
                }
                at
            }
            None => {
                // There are as many of these as routes for every peer: doubling is too much.
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(64 + self.entries.len() / 8);
                }
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.index.insert(nlri, at);
        at
    }

    fn touch(&mut self, at: u32) {
        if let Some(entry) = self.entries.get_mut(at as usize)
            && !entry.dirty
            && self.session.is_some()
        {
            entry.dirty = true;
            self.dirty.push(at);
        } else {
            self.forget(at);
        }
    }

    /// Frees an entry that nobody needs.
    fn forget(&mut self, at: u32) {
        let entry = self.entries.get(at as usize);
        let idle = |entry: &&Entry| entry.desired.is_none() && entry.sent.is_none() && !entry.dirty;
        // A free place has the index of another, or of none.
        if let Some(entry) = entry.filter(idle)
            && self.index.get(&entry.nlri) == Some(&at)
        {
            self.index.remove(&entry.nlri);
            self.free.push(at);
        }
    }
}
