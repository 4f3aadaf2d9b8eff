//! Which UDP connections are to be forgotten (`spec/dataplane.md` §1.11).
//!
//! The kernel leads the packets of a known connection where the first one went. A UDP client that
//! goes on sending from one port would reach an endpoint that is gone for ever, or nobody, when it
//! began before there was an endpoint. TCP and SCTP end by themselves and are left alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::element::Element;
use super::{PortKey, Table};
use crate::net::{Family, Protocol};

/// Where clients connect to by UDP, and the endpoints that serve there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    fronts: HashMap<SocketAddr, usize>,
    sets: Vec<Vec<SocketAddr>>,
}

impl Serving {
    /// What `table` says of those of `keys` that are of this family. Fronts that another port holds
    /// are that one's. As with kube-proxy, a port that nobody serves forgets nothing:
    /// there is nowhere else to lead its clients.
    pub fn of<'a>(
        table: &'a Table,
        keys: impl IntoIterator<Item = &'a PortKey>,
        family: Family,
    ) -> Self {
        let mut found = Self::default();
        for key in keys {
            if key.protocol != Protocol::Udp || key.family != family {
                continue;
            }
            let Some(port) = table.get(key).filter(|port| !port.serving.is_empty()) else {
                continue;
            };
            for element in &table.elements(key) {
                if let Element::Front { front, .. } = element {
                    let front = SocketAddr::new(front.address, front.port);
                    found.fronts.insert(front, found.sets.len());
                }
            }
            found.sets.push(port.serving.clone());
        }
        found
    }

    /// No connection can be stale.
    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty()
    }

    /// Whether a connection to `destination` that `replier` answers leads nowhere.
    pub fn is_stale(&self, destination: SocketAddr, replier: SocketAddr) -> bool {
        let set = self.fronts.get(&plain(destination));
        set.and_then(|number| self.sets.get(*number))
            .is_some_and(|set| set.binary_search(&plain(replier)).is_err())
    }
}

/// Without what an IPv6 socket address may have besides.
const fn plain(socket: SocketAddr) -> SocketAddr {
    let address: IpAddr = socket.ip();
    SocketAddr::new(address, socket.port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::forward::{Mode, NodePorts, ServicePort, plan};
    use crate::world::tests::{Told, balancer, ip, key, slice};
    use crate::world::{Node, Policy, Port, Service, Slice};

    fn udp(name: &str, vip: &str) -> Service {
        let mut service = balancer(name, vip);
        for port in &mut service.ports {
            *port = Port {
                protocol: Protocol::Udp,
                node_port: 30_053,
                ..port.clone()
            };
        }
        service.external_policy = Policy::Local;
        service
    }

    fn ports(told: &Told, name: &str) -> BTreeMap<PortKey, ServicePort> {
        plan(
            &told.world,
            "me",
            Mode::All,
            &NodePorts::default(),
            &key(name),
        )
    }

    fn table(told: &Told) -> Table {
        let mut table = Table::default();
        for (key, port) in ports(told, "s") {
            table.set(&key, Some(port));
        }
        table
    }

    fn of_udp(name: &str, endpoints: &str) -> Slice {
        let mut slice = slice(name, endpoints);
        for port in &mut slice.ports {
            port.protocol = Protocol::Udp;
        }
        slice
    }

    fn node(told: &mut Told) {
        told.tell(crate::world::Event::Node {
            name: "me".into(),
            form: Some(Node {
                addresses: vec![ip("172.16.0.1")],
                ..Node::default()
            }),
        });
    }

    /// Endpoints, and the connections that are forgotten then: destination, replier, stale.
    #[test]
    fn connections_to_endpoints_that_serve_no_more() {
        let (vip, cluster, node_port) = ("10.0.0.1:80", "10.96.0.1:80", "172.16.0.1:30053");
        let (one, two) = ("10.244.0.1:8080", "10.244.0.2:8080");
        let table_of_cases = [
            // Gone; and those that began before there was an endpoint, which nobody rewrote.
            ("10.244.0.2@me", vip, one, true),
            ("10.244.0.2@me", cluster, one, true),
            ("10.244.0.2@me", node_port, one, true),
            ("10.244.0.2@me", vip, vip, true),
            ("10.244.0.2@me", node_port, node_port, true),
            // It serves: policy, topology, readiness and termination do not count.
            ("10.244.0.2@me", vip, two, false),
            ("10.244.0.2@far", vip, two, false),
            ("10.244.0.1@me#a 10.244.0.2@me#b", cluster, two, false),
            ("~10.244.0.1@me 10.244.0.2@me", vip, one, false),
            // Terminating without serving is gone.
            ("-10.244.0.1@me 10.244.0.2@me", vip, one, true),
            // The target port changed.
            ("10.244.0.1@me", vip, "10.244.0.1:9090", true),
            // Nobody serves.
            ("", vip, one, false),
            ("-10.244.0.1@me", vip, one, false),
            // Not ours.
            ("10.244.0.2@me", "10.0.0.1:81", one, false),
            ("10.244.0.2@me", "10.0.0.9:80", one, false),
            ("10.244.0.2@me", "192.0.2.1:30053", one, false),
        ];
        for (endpoints, destination, replier, stale) in table_of_cases {
            let mut told = Told::common("");
            node(&mut told);
            told.service(udp("s", "10.0.0.1"));
            told.slice("s", of_udp("s", endpoints));
            let table = table(&told);
            let serving = Serving::of(&table, table.keys().map(|key| &**key), Family::V4);
            let [destination, replier] = [destination, replier].map(|at| at.parse().unwrap());
            let name = format!("{endpoints} {destination} {replier}");
            assert_eq!(serving.is_stale(destination, replier), stale, "{name}");
        }
    }

    #[test]
    fn tcp_and_the_other_family_are_left_alone() {
        let mut told = Told::common("");
        told.service(balancer("s", "10.0.0.1"));
        told.slice("s", slice("s", "10.244.0.1@me"));
        assert!(
            ports(&told, "s")
                .values()
                .all(|port| port.serving.is_empty())
        );
        let tcp = table(&told);
        assert!(Serving::of(&tcp, tcp.keys().map(|key| &**key), Family::V4).is_empty());
        told.service(udp("s", "10.0.0.1"));
        told.slice("s", of_udp("s", "10.244.0.1@me"));
        let udp = table(&told);
        assert!(Serving::of(&udp, udp.keys().map(|key| &**key), Family::V6).is_empty());
        assert!(!Serving::of(&udp, udp.keys().map(|key| &**key), Family::V4).is_empty());
    }
}
