//! Ports whose last endpoint on this node has gone, with policy Local: where their address moves to
//! another node, clients come here until they have learned that, and are led there meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plan::desired::Forwarding;
use plan::forward::{PortKey, ServicePort};

/// How long clients and routers may take to learn where an address is now, the new owner's own
/// watch of the API included.
const LINGER: Duration = Duration::from_secs(3);

type Change = (PortKey, Option<ServicePort>);

/// What lingers, and until when.
#[derive(Debug, Default)]
pub(super) struct Lingering(BTreeMap<PortKey, Instant>);

impl Lingering {
    /// What is to be programmed for these changes. `left`: ports that have just lost their last
    /// endpoint here.
    pub(super) fn change(
        &mut self,
        now: Instant,
        left: Vec<PortKey>,
        changes: Vec<Change>,
    ) -> Vec<Change> {
        self.0
            .extend(left.into_iter().map(|key| (key, now + LINGER)));
        if self.0.is_empty() {
            return changes;
        }
        let changes = changes.into_iter().map(|(key, port)| {
            if !self.0.contains_key(&key) {
                return (key, port);
            }
            let lingering = port.as_ref().and_then(ServicePort::lingering);
            if lingering.is_none() {
                self.0.remove(&key);
            }
            (key, lingering.or(port))
        });
        changes.collect()
    }

    /// When the next one is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Those that are over, as they are desired.
    pub(super) fn over(&mut self, now: Instant, desired: &Forwarding) -> Vec<Change> {
        let over = self.0.extract_if(.., |_, until| *until <= now);
        let over = over.filter_map(|(key, _)| {
            let port = desired.get(&key.service)?.get(&key)?.clone();
            Some((key, Some(port)))
        });
        over.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use plan::forward::{Frontend, FrontendKind};
    use plan::name::ServiceKey;
    use plan::net::{Family, Protocol};
    use plan::world::Policy;

    use super::*;

    fn key() -> PortKey {
        PortKey {
            service: ServiceKey::new("default", "one"),
            port: "http".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        }
    }

    fn port(here: bool) -> ServicePort {
        let pods = |text: &str| -> Vec<SocketAddr> { vec![text.parse().unwrap()] };
        let kinds = [
            ("10.0.0.101", 80, FrontendKind::LoadBalancer),
            ("10.0.0.11", 30_080, FrontendKind::NodePort),
        ];
        let frontends = kinds.map(|(address, port, kind)| Frontend {
            address: address.parse().unwrap(),
            port,
            kind,
            policy: Policy::Local,
        });
        ServicePort {
            frontends: frontends.into(),
            cluster: pods("10.1.2.2:80"),
            local: if here {
                pods("10.1.1.2:80")
            } else {
                Vec::new()
            },
            usable_anywhere: true,
            ..ServicePort::default()
        }
    }

    fn policies(changes: &[Change]) -> Vec<Policy> {
        let frontends = changes
            .iter()
            .flat_map(|(_, port)| &port.as_ref().unwrap().frontends);
        frontends.map(|it| it.policy).collect()
    }

    fn desired(port: ServicePort) -> Forwarding {
        [(key().service, [(key(), port)].into())].into()
    }

    #[test]
    fn a_port_lingers_and_then_is_as_desired() {
        let now = Instant::now();
        let mut lingering = Lingering::default();
        let changes = lingering.change(now, vec![key()], vec![(key(), Some(port(false)))]);
        // Node ports are not what moves.
        assert_eq!(policies(&changes), [Policy::Local, Policy::Cluster]);
        assert_eq!(lingering.next(), Some(now + LINGER));
        // Another change meanwhile.
        let changes = lingering.change(now, Vec::new(), vec![(key(), Some(port(false)))]);
        assert_eq!(policies(&changes), [Policy::Local, Policy::Cluster]);
        let early = now + LINGER - Duration::from_millis(1);
        assert_eq!(lingering.over(early, &desired(port(false))), []);
        let over = lingering.over(now + LINGER, &desired(port(false)));
        assert_eq!(over, [(key(), Some(port(false)))]);
        assert_eq!(lingering.next(), None);
    }

    #[test]
    fn an_endpoint_that_is_back_ends_it_and_so_does_the_end_of_the_port() {
        let now = Instant::now();
        for change in [Some(port(true)), None] {
            let mut lingering = Lingering::default();
            lingering.change(now, vec![key()], vec![(key(), Some(port(false)))]);
            let changes = lingering.change(now, Vec::new(), vec![(key(), change.clone())]);
            assert_eq!(changes, [(key(), change)]);
            assert_eq!(lingering.next(), None);
        }
    }

    #[test]
    fn without_endpoints_anywhere_nothing_lingers() {
        let mut lingering = Lingering::default();
        let nowhere = ServicePort {
            cluster: Vec::new(),
            ..port(false)
        };
        let changes = vec![(key(), Some(nowhere))];
        assert_eq!(
            lingering.change(Instant::now(), vec![key()], changes.clone()),
            changes
        );
        assert_eq!(lingering.next(), None);
    }
}
