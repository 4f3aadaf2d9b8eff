//! What waits to be written: the newest form of each Service only, in the order in which it came.
//!
//! An address that goes from one Service to another leaves the first one's status before it enters
//! the other's: whoever reads the statuses, a successor after a crash among them, never sees it
//! given twice. Finding the next write costs the same however many wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use plan::name::{Name, ServiceKey};

use crate::backoff::Backoff;
use crate::sink::ServiceWrite;

/// What the planner asks for.
#[derive(Debug)]
pub(super) enum Write {
    /// A status, and the addresses that it takes out of the status that is there.
    Service(ServiceWrite, Vec<IpAddr>),
    /// The Service is gone.
    Forget(ServiceKey),
}

/// What the planner has found out.
#[derive(Debug)]
pub(super) enum Order {
    Write(Write),
    /// In the Service's form of this `resourceVersion` is nothing to change.
    Settled(ServiceKey, Name),
}

impl Write {
    pub(super) const fn service(&self) -> &ServiceKey {
        match self {
            Self::Service(write, _) => &write.service,
            Self::Forget(service) => service,
        }
    }

    /// The form of the Service that it is decided on.
    fn version(&self) -> Option<&Name> {
        match self {
            Self::Service(write, _) => Some(&write.resource_version),
            Self::Forget(_) => None,
        }
    }

    fn takes(&self) -> &[IpAddr] {
        match self {
            Self::Service(write, _) => &write.ingress,
            Self::Forget(_) => &[],
        }
    }

    pub(super) fn gives_up(&self) -> &[IpAddr] {
        match self {
            Self::Service(_, gives_up) => gives_up,
            Self::Forget(_) => &[],
        }
    }
}

/// A write that failed, and how often it has.
pub(super) struct Failed {
    pub(super) write: Write,
    pub(super) backoff: Backoff,
}

/// What waits; and what is on its way or rests after a failure.
#[derive(Default)]
pub(super) struct Queue {
    waiting: BTreeMap<u64, (Write, Option<Backoff>)>,
    place: HashMap<ServiceKey, u64>,
    /// Those that wait and may be sent: their Service is not busy, and they take no address that
    /// is still in another one's status.
    ready: BTreeSet<u64>,
    /// A Service is written by one write at a time. With what was settled meanwhile.
    busy: HashMap<ServiceKey, Option<Name>>,
    /// Writes that came to nothing because their Service has a newer form: what they give up is
    /// still in its status until that form is decided on.
    outdated: HashMap<ServiceKey, Write>,
    resting: BTreeMap<(Instant, u64), Failed>,
    rests: HashMap<ServiceKey, (Instant, u64)>,
    /// Addresses that writes which have not arrived yet take out of a status.
    leaving: BTreeMap<IpAddr, HashSet<ServiceKey>>,
    /// Who of those that wait takes an address.
    takers: HashMap<IpAddr, BTreeSet<u64>>,
    next: u64,
}

impl Queue {
    /// Whether a form of `service` waits.
    pub(super) fn holds(&self, service: &ServiceKey) -> bool {
        self.place.contains_key(service)
    }

    /// A newer form takes the older one's place in the queue.
    pub(super) fn push(&mut self, write: Write, backoff: Option<Backoff>) {
        let next = &mut self.next;
        let number = *self
            .place
            .entry(write.service().clone())
            .or_insert_with(|| {
                *next += 1;
                *next
            });
        self.take_out(number);
        for address in write.takes() {
            self.takers.entry(*address).or_default().insert(number);
        }
        for address in write.gives_up() {
            let leaving = self.leaving.entry(*address).or_default();
            // Of three that leave, two are others to anybody.
            if leaving.insert(write.service().clone()) && leaving.len() < 3 {
                self.look_at_takers(*address);
            }
        }
        self.waiting.insert(number, (write, backoff));
        self.look_at(number);
    }

    /// What waits under this number; its place stays.
    fn take_out(&mut self, number: u64) -> Option<(Write, Option<Backoff>)> {
        self.ready.remove(&number);
        let taken = self.waiting.remove(&number)?;
        for address in taken.0.takes() {
            if let Some(takers) = self.takers.get_mut(address) {
                takers.remove(&number);
                if takers.is_empty() {
                    self.takers.remove(address);
                }
            }
        }
        Some(taken)
    }

    /// A write of `service` that gives up these addresses has arrived, or will never.
    pub(super) fn ended(&mut self, service: &ServiceKey, gave_up: &[IpAddr]) {
        self.busy.remove(service);
        let place = self.place.get(service).copied();
        let newer = place
            .and_then(|place| self.waiting.get(&place))
            .map_or_else(Vec::new, |(write, _)| write.gives_up().to_vec());
        // A newer form that gives it up too has it to do still.
        for address in gave_up.iter().filter(|address| !newer.contains(address)) {
            self.left(service, *address);
        }
        if let Some(place) = place {
            self.look_at(place);
        }
    }

    /// A write of `service` came to nothing: its Service has a newer form, which is on its way
    /// through the source and is decided on anew.
    pub(super) fn outdated(&mut self, write: Write) {
        let settled = self.busy.get(write.service()).cloned().flatten();
        let newer = settled.is_some_and(|version| write.version() != Some(&version));
        if newer || self.holds(write.service()) || write.gives_up().is_empty() {
            self.ended(write.service(), write.gives_up());
        } else {
            self.busy.remove(write.service());
            self.outdated.insert(write.service().clone(), write);
        }
    }

    /// The form `version` of `service` is as it should be.
    pub(super) fn settled(&mut self, service: &ServiceKey, version: Name) {
        if let Some(settled) = self.busy.get_mut(service) {
            *settled = Some(version);
            return;
        }
        // An older form says nothing: it is the one that the write was decided on.
        let outdated = self.outdated.get(service);
        if outdated.is_some_and(|write| write.version() != Some(&version)) {
            self.supersede(service);
        }
    }

    /// `address` is not in the status of `service` any more, or stays there.
    fn left(&mut self, service: &ServiceKey, address: IpAddr) {
        let Some(leaving) = self.leaving.get_mut(&address) else {
            return;
        };
        let others = leaving.remove(service) && leaving.len() < 2;
        if leaving.is_empty() {
            self.leaving.remove(&address);
        }
        if others {
            self.look_at_takers(address);
        }
    }

    /// Whether the write takes an address that is still in another Service's status.
    fn too_early(&self, write: &Write) -> bool {
        let mut taken = write.takes().iter().filter_map(|ip| self.leaving.get(ip));
        taken.any(|leaving| leaving.iter().any(|other| other != write.service()))
    }

    /// Who leaves `address` has changed.
    fn look_at_takers(&mut self, address: IpAddr) {
        let takers = self.takers.get(&address).cloned().unwrap_or_default();
        for number in takers {
            self.look_at(number);
        }
    }

    /// Finds out anew whether what waits under `number` may be sent.
    fn look_at(&mut self, number: u64) {
        let ready = self.waiting.get(&number).is_some_and(|(write, _)| {
            !self.busy.contains_key(write.service()) && !self.too_early(write)
        });
        if ready {
            self.ready.insert(number);
        } else {
            self.ready.remove(&number);
        }
    }

    /// The next write that may be sent; its Service is busy from now on.
    pub(super) fn pop(&mut self) -> Option<(Write, Option<Backoff>)> {
        let number = match self.ready.first() {
            Some(number) => *number,
            None => self.begins()?,
        };
        let (write, backoff) = self.take_out(number)?;
        self.place.remove(write.service());
        self.busy.insert(write.service().clone(), None);
        Some((write, backoff))
    }

    /// Services that change places wait for each other: one of them has to begin. Not one that
    /// waits for a write which failed and will be tried or decided on again.
    fn begins(&self) -> Option<u64> {
        if !self.busy.is_empty() {
            return None;
        }
        let rests = |ip| {
            let leaving = self.leaving.get(ip).into_iter().flatten();
            leaving
                .into_iter()
                .any(|other| self.rests.contains_key(other) || self.outdated.contains_key(other))
        };
        let mut waiting = self.waiting.iter();
        let begins = waiting.find(|(_, (write, _))| !write.takes().iter().any(rests));
        begins.map(|(number, _)| *number)
    }

    /// A failed write rests, out of the others' way.
    pub(super) fn rest(&mut self, mut failed: Failed, now: Instant) {
        let service = failed.write.service().clone();
        self.busy.remove(&service);
        self.next += 1;
        let place = (now + failed.backoff.next(), self.next);
        self.resting.insert(place, failed);
        self.rests.insert(service, place);
    }

    /// A newer form of `service` comes: what waits, rests or was outdated of it is void.
    pub(super) fn supersede(&mut self, service: &ServiceKey) {
        let waiting = self
            .place
            .get(service)
            .and_then(|place| self.waiting.get(place));
        let mut void: Vec<IpAddr> =
            waiting.map_or_else(Vec::new, |(write, _)| write.gives_up().to_vec());
        let rested = self.rests.remove(service);
        if let Some(failed) = rested.and_then(|place| self.resting.remove(&place)) {
            void.extend_from_slice(failed.write.gives_up());
        }
        if let Some(outdated) = self.outdated.remove(service) {
            void.extend_from_slice(outdated.gives_up());
        }
        for address in void {
            self.left(service, address);
        }
    }

    /// When the first of the resting writes has rested enough.
    pub(super) fn rested_at(&self) -> Option<Instant> {
        self.resting.keys().next().map(|(until, _)| *until)
    }

    /// Puts what has rested back, unless a newer form waits or is on its way.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let Failed { write, backoff } = entry.remove();
            self.rests.remove(write.service());
            if !self.place.contains_key(write.service()) && !self.busy.contains_key(write.service())
            {
                self.push(write, Some(backoff));
            }
        }
    }
}

#[cfg(test)]
mod tests;
