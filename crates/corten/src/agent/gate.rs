//! The order between forwarding and announcing.
//!
//! Forwarding work is handed out one job at a time; what changes meanwhile gathers in a backlog,
//! newest form only. An announcement waits until the jobs with its Services' ports are done.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use plan::announce::l2::Announcement;
use plan::forward::{PortKey, ServicePort};
use plan::name::ServiceKey;

/// Changes of ports, newest form of each.
pub(super) type Ports = BTreeMap<PortKey, Option<ServicePort>>;

/// What waits for what.
#[derive(Debug, Default)]
pub(super) struct Gate {
    backlog: Ports,
    /// The job that gathers the backlog; the one before it may be under way.
    next: u64,
    under_way: bool,
    /// A job is wanted even if it is empty.
    forced: bool,
    /// Services with ports that are not programmed yet, and the last job that has them.
    pending: HashMap<ServiceKey, u64>,
    waiting: BTreeMap<IpAddr, Announcement>,
    /// Nothing is announced yet: see [`Gate::hold`].
    held: bool,
}

impl Gate {
    /// Keeps every announcement back until [`Gate::release`].
    pub(super) const fn hold(&mut self) {
        self.held = true;
    }

    /// Ends [`Gate::hold`]: returns the announcements that nothing else keeps back.
    pub(super) fn release(&mut self) -> Vec<(IpAddr, Announcement)> {
        self.held = false;
        self.ready()
    }

    /// Nothing is kept back any more.
    pub(super) fn is_open(&self) -> bool {
        !self.held && self.waiting.is_empty()
    }

    /// Takes port changes in.
    pub(super) fn program(
        &mut self,
        changes: impl IntoIterator<Item = (PortKey, Option<ServicePort>)>,
    ) {
        for (key, port) in changes {
            self.pending.insert(key.service.clone(), self.next);
            self.backlog.insert(key, port);
        }
    }

    /// Wants a job even if there is nothing to change.
    pub(super) const fn force(&mut self) {
        self.forced = true;
    }

    /// The next job, when none is under way and there is work.
    pub(super) fn job(&mut self) -> Option<(u64, Ports)> {
        if self.under_way || (self.backlog.is_empty() && !self.forced) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.under_way = true;
        self.forced = false;
        Some((number, std::mem::take(&mut self.backlog)))
    }

    /// The job with which everything taken in so far is programmed; `None`: it is.
    pub(super) fn barrier(&self) -> Option<u64> {
        if !self.backlog.is_empty() || self.forced {
            return Some(self.next);
        }
        // The job under way has the number before.
        self.under_way.then(|| self.next.saturating_sub(1))
    }

    /// A job is done: returns the announcements that waited for it.
    pub(super) fn done(&mut self, number: u64) -> Vec<(IpAddr, Announcement)> {
        self.under_way = false;
        self.pending.retain(|_, last| *last > number);
        self.ready()
    }

    /// Takes out the announcements that wait for nothing any more.
    fn ready(&mut self) -> Vec<(IpAddr, Announcement)> {
        if self.held {
            return Vec::new();
        }
        let pending = &self.pending;
        let ready = |announcement: &Announcement| {
            announcement
                .services
                .iter()
                .all(|service| !pending.contains_key(service))
        };
        let waiting = std::mem::take(&mut self.waiting);
        let (ready, still): (BTreeMap<_, _>, BTreeMap<_, _>) = waiting
            .into_iter()
            .partition(|(_, announcement)| ready(announcement));
        self.waiting = still;
        ready.into_iter().collect()
    }

    /// Whether the address may be announced now; if not, it is kept until it may.
    pub(super) fn admit(
        &mut self,
        address: IpAddr,
        announcement: Announcement,
    ) -> Option<Announcement> {
        self.waiting.remove(&address);
        let unprogrammed = announcement
            .services
            .iter()
            .any(|service| self.pending.contains_key(service));
        if self.held || unprogrammed {
            self.waiting.insert(address, announcement);
            return None;
        }
        Some(announcement)
    }

    /// The address is not to be announced any more.
    pub(super) fn withdraw(&mut self, address: IpAddr) {
        self.waiting.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use plan::announce::l2::Interfaces;
    use plan::net::{Family, Protocol};

    use super::*;

    fn key(service: &str) -> PortKey {
        PortKey {
            service: ServiceKey::new("default", service),
            port: "".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        }
    }

    fn announcement(service: &str) -> Announcement {
        let services = vec![ServiceKey::new("default", service)];
        Announcement {
            interfaces: Interfaces::All,
            services,
            placed: None,
            mac: None,
        }
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn an_address_waits_for_the_last_job_with_its_ports() {
        let mut gate = Gate::default();
        gate.program([(key("a"), Some(ServicePort::default()))]);
        assert_eq!(gate.admit(ADDRESS, announcement("a")), None);
        let (first, ports) = gate.job().expect("work");
        assert_eq!(ports.len(), 1);
        // The port changes again while the job is under way.
        gate.program([(key("a"), None)]);
        assert_eq!(gate.job(), None, "one job at a time");
        assert_eq!(gate.done(first), []);
        let (second, _) = gate.job().expect("work");
        assert_eq!(gate.done(second), [(ADDRESS, announcement("a"))]);
    }

    #[test]
    fn the_barrier_is_the_job_with_the_newest_ports() {
        let mut gate = Gate::default();
        assert_eq!(gate.barrier(), None);
        gate.program([(key("a"), Some(ServicePort::default()))]);
        assert_eq!(gate.barrier(), Some(0));
        let (first, _) = gate.job().expect("work");
        assert_eq!(gate.barrier(), Some(first));
        gate.program([(key("b"), None)]);
        assert_eq!(gate.barrier(), Some(first + 1));
        gate.done(first);
        let (second, _) = gate.job().expect("work");
        gate.done(second);
        assert_eq!(gate.barrier(), None);
    }

    #[test]
    fn an_address_whose_ports_are_programmed_does_not_wait() {
        let mut gate = Gate::default();
        gate.program([(key("other"), Some(ServicePort::default()))]);
        assert_eq!(
            gate.admit(ADDRESS, announcement("a")),
            Some(announcement("a"))
        );
    }

    #[test]
    fn what_is_held_waits_for_its_release_and_its_ports() {
        let mut gate = Gate::default();
        gate.hold();
        assert_eq!(gate.admit(ADDRESS, announcement("a")), None);
        gate.program([(key("a"), Some(ServicePort::default()))]);
        let (job, _) = gate.job().expect("work");
        assert_eq!(gate.done(job), [], "its ports are there, but it is held");
        gate.program([(key("a"), None)]);
        assert_eq!(
            gate.release(),
            [],
            "it is not held, but its ports are not there"
        );
        let (job, _) = gate.job().expect("work");
        assert_eq!(gate.done(job), [(ADDRESS, announcement("a"))]);
        assert_eq!(
            gate.admit(ADDRESS, announcement("a")),
            Some(announcement("a"))
        );
    }

    #[test]
    fn a_withdrawn_address_is_not_announced_later() {
        let mut gate = Gate::default();
        gate.program([(key("a"), Some(ServicePort::default()))]);
        assert_eq!(gate.admit(ADDRESS, announcement("a")), None);
        gate.withdraw(ADDRESS);
        let (job, _) = gate.job().expect("work");
        assert_eq!(gate.done(job), []);
    }
}
